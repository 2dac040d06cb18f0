package packetdrill

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// repairer is what an endpoint offers that knows TCP_REPAIR.
type repairer interface {
	Repair() *tcp.RepairSocket
	QueueSeq(repair.Queue) (uint32, error)
	SetRepairOption(number int, value []byte) error
	RepairOption(number int) ([]byte, error)
}

// repairNumbers are the options of TCP_REPAIR by name.
var repairNumbers = map[string]int{
	"TCP_REPAIR":         tcp.OptionRepair,
	"TCP_REPAIR_QUEUE":   tcp.OptionRepairQueue,
	"TCP_QUEUE_SEQ":      tcp.OptionQueueSeq,
	"TCP_REPAIR_OPTIONS": tcp.OptionRepairOptions,
	"TCP_TIMESTAMP":      tcp.OptionTimestamp,
	"TCP_REPAIR_WINDOW":  tcp.OptionRepairWindow,
}

// windowMembers are those of struct tcp_repair_window, in order, and whether
// each is a sequence number of the peer's.
var windowMembers = []struct {
	name string
	seq  bool
}{{"snd_wl1", true}, {"snd_wnd", false}, {"max_window", false}, {"rcv_wnd", false}, {"rcv_wup", true}}

// repairable is the socket's endpoint, which must know TCP_REPAIR.
func (r *runner) repairable(s *sock) repairer {
	e, ok := s.ep.(repairer)
	if !ok {
		r.skip("TCP_REPAIR with this TCP")
	}
	return e
}

// frozen reports whether a socket is in repair mode.
func (s *sock) frozen() bool {
	e, ok := s.ep.(repairer)
	if !ok || s.listening {
		return false
	}
	on, err := e.Repair().Repair()
	return on && err == nil
}

// selected is the queue that a frozen socket's repair calls are about.
func (s *sock) selected() repair.Queue {
	b, err := s.ep.(repairer).RepairOption(tcp.OptionRepairQueue)
	if err != nil {
		return repair.NoQueue
	}
	return repair.Queue(binary.NativeEndian.Uint32(b))
}

// repairErrno is what Linux calls an error of the repair interface's.
func repairErrno(err error) errno {
	for _, k := range []struct {
		is   error
		name errno
	}{
		{syscall.EPERM, "EPERM"},
		{syscall.EINVAL, "EINVAL"},
		{syscall.EFBIG, "EFBIG"},
		{syscall.EPIPE, "EPIPE"},
		{syscall.ENOPROTOOPT, "ENOPROTOOPT"},
		{repair.ErrPermission, "EPERM"},
		{repair.ErrInvalid, "EINVAL"},
		{repair.ErrClosed, "EPIPE"},
		{repair.ErrAddress, "EADDRNOTAVAIL"},
		{repair.ErrAddrInUse, "EADDRNOTAVAIL"},
		{repair.ErrNoRoute, "ENETUNREACH"},
	} {
		if errors.Is(err, k.is) {
			return k.name
		}
	}
	return errno(err.Error())
}

// repaired is the outcome of a call that returns 0 or an error of package
// repair's.
func repaired(err error) outcome {
	if err != nil {
		return failed(repairErrno(err))
	}
	return returned(0)
}

// numbering is how the numbers of a script relate to those on the wire: what to
// add to the script's.
type numbering struct{ local, remote, ts uint32 }

// numbering is that of the socket's connection, or of the one it is to take
// the place of. With neither the numbers are the same.
func (s *sock) numbering() numbering {
	f := s.flow
	if f == nil {
		f = s.former
	}
	if f == nil {
		return numbering{}
	}
	// The lowest bit of a timestamp is a flag to TCP_TIMESTAMP, so it stays.
	return numbering{f.localISN, f.remoteISN, (f.tsLive - f.tsScript) &^ 1}
}

// of is what to add to the numbers of a queue.
func (n numbering) of(q repair.Queue) uint32 {
	switch q {
	case repair.SendQueue:
		return n.local
	case repair.RecvQueue:
		return n.remote
	}
	return 0
}

// shifts are what to add to each of the words that an option's value is made
// of; words beyond are taken as they are.
func (s *sock) shifts(name string) (list []uint32) {
	n := s.numbering()
	switch name {
	case "TCP_QUEUE_SEQ":
		return []uint32{n.of(s.selected())}
	case "TCP_TIMESTAMP":
		return []uint32{n.ts}
	case "TCP_REPAIR_WINDOW":
		for _, m := range windowMembers {
			if m.seq {
				list = append(list, n.remote)
			} else {
				list = append(list, 0)
			}
		}
	}
	return list
}

// setRepair is setsockopt of an option of TCP_REPAIR.
func (r *runner) setRepair(c *call, s *sock, name string) outcome {
	e := r.repairable(s)
	words := r.repairWords(c, name)
	for i, d := range s.shifts(name) {
		if i < len(words) {
			words[i] += d
		}
	}
	var b []byte
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	n := r.intArg(c, 4)
	if n < 0 || n > int64(len(b)) {
		r.failCall(c, "the value of %s has %d bytes, not %d", name, len(b), n)
	}
	return repaired(e.SetRepairOption(repairNumbers[name], b[:n]))
}

// repairWords are the 32-bit words that the value of an option is made of.
func (r *runner) repairWords(c *call, name string) (words []uint32) {
	members := map[string][]string{
		"TCP_REPAIR_OPTIONS": {"opt_code", "opt_val"},
		"TCP_REPAIR_WINDOW":  nil,
	}
	list, several := members[name]
	if !several {
		return []uint32{uint32(r.intArg(c, 3))}
	}
	values := []Expr{c.arg(3)}
	if name == "TCP_REPAIR_OPTIONS" {
		a, ok := c.arg(3).(Array)
		if !ok {
			r.failCall(c, "%s is no array of {opt_code=…, opt_val=…}", exprText(c.arg(3)))
		}
		values = a.Elems
	} else {
		for _, m := range windowMembers {
			list = append(list, m.name)
		}
	}
	for _, e := range values {
		st, _ := e.(Struct)
		for _, m := range list {
			v, err := r.eval(st.Field(m))
			if err != nil {
				r.failCall(c, "%s: %s: %v", exprText(e), m, err)
			}
			words = append(words, uint32(v))
		}
	}
	return words
}

// getRepair is getsockopt of an option of TCP_REPAIR.
func (r *runner) getRepair(c *call, s *sock, name string) outcome {
	const windowSize = 20
	if name == "TCP_REPAIR_WINDOW" && r.intArg(c, 4) != windowSize {
		return failed("EINVAL")
	}
	b, err := r.repairable(s).RepairOption(repairNumbers[name])
	if err != nil {
		return failed(repairErrno(err))
	}
	var words []uint32
	for ; len(b) >= 4; b = b[4:] {
		words = append(words, binary.NativeEndian.Uint32(b))
	}
	for i, d := range s.shifts(name) {
		words[i] -= d
	}
	switch _, any := c.arg(3).(Ellipsis); {
	case any:
		return returned(0)
	case name == "TCP_REPAIR_WINDOW":
		return r.compareWindow(c, words)
	}
	want, got := uint32(r.intArg(c, 3)), words[0]
	if want != got && !(name == "TCP_TIMESTAMP" && r.sameTime(want, got)) {
		return wrong(exprText(Int{int64(want)}), exprText(Int{int64(got)}), "%s is another", name)
	}
	return returned(0)
}

// sameTime reports whether timestamps are the same as far as time is. The
// values of timestamps are the script's business only if it says how they tick.
func (r *runner) sameTime(want, got uint32) bool {
	return r.set.tsTick == 0 || tsApart(want, got, r.set.tsTick) <= r.set.toleranceFor(r.now()-r.last)
}

// compareWindow compares the members of the window that the script names.
func (r *runner) compareWindow(c *call, words []uint32) outcome {
	st, ok := c.arg(3).(Struct)
	if !ok {
		r.failCall(c, "%s is no {snd_wl1=…, snd_wnd=…, max_window=…, rcv_wnd=…, rcv_wup=…}", exprText(c.arg(3)))
	}
	got, differs := Struct{}, false
	for i, m := range windowMembers {
		e := st.Field(m.name)
		if _, any := e.(Ellipsis); any {
			got.Fields = append(got.Fields, Field{Name: m.name, V: e})
			continue
		}
		v, err := r.eval(e)
		if err != nil {
			r.failCall(c, "%s: %v", m.name, err)
		}
		differs = differs || uint32(v) != words[i]
		got.Fields = append(got.Fields, Field{Name: m.name, V: Int{int64(words[i])}})
	}
	if differs {
		return wrong(exprText(st), exprText(got), "TCP_REPAIR_WINDOW is another")
	}
	return returned(0)
}

// repairBind is bind in repair mode, which does not ask who else is there.
func (r *runner) repairBind(s *sock, a netip.AddrPort) outcome {
	return repaired(r.repairable(s).Repair().Bind(a))
}

// repairConnect is connect in repair mode: the connection is there at once,
// and goes on with the numbers that the script has given its queues.
func (r *runner) repairConnect(s *sock, remote netip.AddrPort) outcome {
	n := s.numbering()
	e := r.repairable(s).Repair()
	if err := e.Connect(remote); err != nil {
		return failed(repairErrno(err))
	}
	r.begin(s, remote)
	send, err1 := e.QueueSeq(repair.SendQueue)
	recv, err2 := e.QueueSeq(repair.RecvQueue)
	if err := errors.Join(err1, err2); err != nil {
		r.fail("TCP_QUEUE_SEQ: %v", err)
	}
	s.flow.goOn(n, send, recv)
	return returned(0)
}
