// Package repairtest holds every repair.Socket to the rules of Linux's
// TCP_REPAIR, one by one. The same table runs against a user-space endpoint and
// against a kernel's socket, which shows that the table itself is right.
package repairtest

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tcprepair/ustack/stack/repair"
)

// Lab makes the sockets that the table is tried on.
type Lab struct {
	// Socket makes a fresh socket, CLOSED and unbound, of Local's family.
	Socket func(t *testing.T) repair.Socket
	// Connected makes an ESTABLISHED one, which has sent nothing, and its peer.
	Connected func(t *testing.T) (repair.Socket, net.Conn)
	// Listener makes a listening one.
	Listener func(t *testing.T) repair.Socket
	// Write has the connection of a Connected socket send, as its user would.
	Write func(t *testing.T, s repair.Socket, p []byte)
	// SetReuseAddress and ReuseAddress are SO_REUSEADDR.
	SetReuseAddress func(t *testing.T, s repair.Socket, on bool)
	ReuseAddress    func(t *testing.T, s repair.Socket) bool
	// Local is an address of the host, with a free port. Remote is one to which
	// there is a route; what is sent there need not arrive.
	Local, Remote netip.AddrPort
}

// Run tries every rule.
func Run(t *testing.T, lab *Lab) {
	for _, r := range []struct {
		name string
		rule func(*testing.T, *Lab)
	}{
		{"mode", modes},
		{"reusing addresses", reuse},
		{"half-closed", halfClosed},
		{"queue sequence numbers", queueSeqs},
		{"setting queue sequence numbers", setQueueSeqs},
		{"options", options},
		{"window", window},
		{"timestamp", timestamp},
		{"writing to the queues", writeQueues},
		{"peeking", peek},
		{"connecting", connecting},
		{"duplicate connection", duplicate},
		{"closing", closing},
		{"frozen", frozen},
	} {
		t.Run(r.name, func(t *testing.T) { r.rule(t, lab) })
	}
}

// want fails unless err is what a rule says.
func want(t *testing.T, what string, err, wanted error) {
	t.Helper()
	if wanted == nil && err != nil || !errors.Is(err, wanted) {
		t.Errorf("%s: %v, want %v", what, err, wanted)
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func freeze(t *testing.T, s repair.Socket) {
	t.Helper()
	must(t, "freezing", s.SetRepair(repair.On))
}

// eventually fails unless cond comes true within a while.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(10 * time.Second)
	defer late.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("never: %s", what)
		}
	}
}

// received waits until the socket has n unread bytes.
func received(t *testing.T, s repair.Socket, n int) {
	t.Helper()
	eventually(t, "the peer's data is there", func() bool {
		unread, _, _, err := s.Queued()
		must(t, "asking for the queues", err)
		return unread == n
	})
}

// Any state but LISTEN can be repaired, and there are three modes.
func modes(t *testing.T, lab *Lab) {
	want(t, "a listener", lab.Listener(t).SetRepair(repair.On), repair.ErrPermission)
	s := lab.Socket(t)
	want(t, "mode 2", s.SetRepair(2), repair.ErrInvalid)
	for _, m := range []repair.Mode{repair.On, repair.On, repair.OffNoProbe, repair.On, repair.Off, repair.Off} {
		want(t, "a fresh socket, "+m.String(), s.SetRepair(m), nil)
		on, err := s.Repair()
		must(t, "asking for the mode", err)
		if on != (m == repair.On) {
			t.Errorf("after %v it is in repair: %t", m, on)
		}
	}
}

// The end of repair takes SO_REUSEADDR away, whether there was a beginning or
// not.
func reuse(t *testing.T, lab *Lab) {
	connected, _ := lab.Connected(t)
	for name, s := range map[string]repair.Socket{"a fresh socket": lab.Socket(t), "a connection": connected} {
		for _, modes := range [][]repair.Mode{{repair.On, repair.Off}, {repair.On, repair.OffNoProbe}, {repair.Off}} {
			lab.SetReuseAddress(t, s, true)
			if !lab.ReuseAddress(t, s) {
				t.Fatalf("%s: SO_REUSEADDR cannot be set", name)
			}
			for _, m := range modes {
				must(t, name, s.SetRepair(m))
			}
			if lab.ReuseAddress(t, s) {
				t.Errorf("%s: after %v it may still reuse addresses", name, modes)
			}
		}
	}
}

// A connection whose peer has closed can be repaired too, and its FIN counts as
// a sequence number and not as a byte.
func halfClosed(t *testing.T, lab *Lab) {
	s, peer := lab.Connected(t)
	_, err := peer.Write([]byte("last words"))
	must(t, "the peer's write", err)
	must(t, "the peer's close", peer.(interface{ CloseWrite() error }).CloseWrite())
	eventually(t, "CLOSE-WAIT", func() bool {
		st, err := s.State()
		must(t, "asking for the state", err)
		return st == repair.StateCloseWait
	})
	freeze(t, s)
	unread, unacked, unsent, err := s.Queued()
	must(t, "asking for the queues", err)
	if unread != 10 || unacked != 0 || unsent != 0 {
		t.Errorf("%d, %d, %d bytes queued, want 10, 0, 0", unread, unacked, unsent)
	}
	end, err := s.QueueSeq(repair.RecvQueue)
	must(t, "the receive queue's end", err)
	w, err := s.Window()
	must(t, "the window", err)
	// The kernel may delay the acknowledgement of the FIN.
	if w.RcvWup != end && w.RcvWup != end-1 && w.RcvWup != end-11 {
		t.Errorf("the last acknowledgement was of %d, the queue ends at %d", w.RcvWup, end)
	}
}

// A queue's number is that of its end; without a queue, or outside repair, there
// is none.
func queueSeqs(t *testing.T, lab *Lab) {
	s, peer := lab.Connected(t)
	_, err := s.QueueSeq(repair.RecvQueue)
	want(t, "outside repair", err, repair.ErrInvalid)
	freeze(t, s)
	_, err = s.QueueSeq(repair.NoQueue)
	want(t, "no queue", err, repair.ErrInvalid)
	recv, err := s.QueueSeq(repair.RecvQueue)
	must(t, "the receive queue's", err)
	send, err := s.QueueSeq(repair.SendQueue)
	must(t, "the send queue's", err)
	must(t, "thawing", s.SetRepair(repair.OffNoProbe))

	_, err = peer.Write(make([]byte, 100))
	must(t, "the peer's write", err)
	received(t, s, 100)
	lab.Write(t, s, make([]byte, 30))
	freeze(t, s)
	if seq, _ := s.QueueSeq(repair.RecvQueue); seq != recv+100 {
		t.Errorf("100 bytes received took the receive queue's end from %d to %d", recv, seq)
	}
	if seq, _ := s.QueueSeq(repair.SendQueue); seq != send+30 {
		t.Errorf("30 bytes written took the send queue's end from %d to %d", send, seq)
	}
}

// Where a queue begins can be set in CLOSED only.
func setQueueSeqs(t *testing.T, lab *Lab) {
	s := lab.Socket(t)
	want(t, "outside repair", s.SetQueueSeq(repair.SendQueue, 1), repair.ErrPermission)
	freeze(t, s)
	want(t, "no queue", s.SetQueueSeq(repair.NoQueue, 1), repair.ErrInvalid)
	want(t, "send queue", s.SetQueueSeq(repair.SendQueue, 4_000_000_000), nil)
	want(t, "receive queue", s.SetQueueSeq(repair.RecvQueue, 7), nil)
	for q, n := range map[repair.Queue]uint32{repair.SendQueue: 4_000_000_000, repair.RecvQueue: 7} {
		if seq, err := s.QueueSeq(q); err != nil || seq != n {
			t.Errorf("the %v queue's number is %d (%v), was set to %d", q, seq, err, n)
		}
	}
	c, _ := lab.Connected(t)
	freeze(t, c)
	want(t, "ESTABLISHED, send queue", c.SetQueueSeq(repair.SendQueue, 1), repair.ErrPermission)
	want(t, "ESTABLISHED, receive queue", c.SetQueueSeq(repair.RecvQueue, 1), repair.ErrPermission)
}

// Options can be set before anything was sent, and scales have a limit.
func options(t *testing.T, lab *Lab) {
	o := repair.Options{MSS: 1000, Scaling: true, SendScale: 3, RecvScale: 5, SACK: true, Timestamps: true}
	fresh := lab.Socket(t)
	want(t, "outside repair", fresh.SetOptions(o), repair.ErrInvalid)
	freeze(t, fresh)
	want(t, "in CLOSED", fresh.SetOptions(o), repair.ErrPermission)

	s := connected(t, lab)
	for _, scale := range []repair.Options{
		{MSS: 1000, Scaling: true, SendScale: 15}, {MSS: 1000, Scaling: true, RecvScale: 15},
	} {
		want(t, "a scale of 15", s.SetOptions(scale), repair.ErrTooBig)
	}
	must(t, "setting options", s.SetOptions(o))
	got, err := s.Options()
	must(t, "reading options", err)
	if got.MSS > o.MSS {
		t.Errorf("MSS is %d, was set to %d", got.MSS, o.MSS)
	}
	if got.MSS = o.MSS; got != o {
		t.Errorf("options are %+v, were set to %+v", got, o)
	}

	used, peer := lab.Connected(t)
	lab.Write(t, used, []byte("x"))
	_, err = io.ReadFull(peer, make([]byte, 1))
	must(t, "the peer's read", err)
	freeze(t, used)
	want(t, "after data was sent", used.SetOptions(o), repair.ErrPermission)
}

// connected makes a socket ESTABLISHED by repair alone.
func connected(t *testing.T, lab *Lab) repair.Socket {
	t.Helper()
	s := lab.Socket(t)
	freeze(t, s)
	must(t, "the send queue's beginning", s.SetQueueSeq(repair.SendQueue, 1000))
	must(t, "the receive queue's beginning", s.SetQueueSeq(repair.RecvQueue, 5000))
	must(t, "bind", s.Bind(lab.Local))
	must(t, "connect", s.Connect(lab.Remote))
	return s
}

// The window's numbers have to fit.
func window(t *testing.T, lab *Lab) {
	live, _ := lab.Connected(t)
	want(t, "outside repair", live.SetWindow(repair.Window{}), repair.ErrPermission)
	s := connected(t, lab)
	good := repair.Window{SndWl1: 4999, SndWnd: 20_000, MaxWindow: 30_000, RcvWnd: 10_000, RcvWup: 5000}
	for _, bad := range []struct {
		what  string
		spoil func(*repair.Window)
	}{
		{"largest window below the present", func(w *repair.Window) { w.MaxWindow = w.SndWnd - 1 }},
		{"WL1 beyond our window", func(w *repair.Window) { w.SndWl1 = 5000 + w.RcvWnd + 1 }},
		{"RCV.WUP after RCV.NXT", func(w *repair.Window) { w.RcvWup = 5001 }},
	} {
		w := good
		bad.spoil(&w)
		want(t, bad.what, s.SetWindow(w), repair.ErrInvalid)
	}
	must(t, "setting the window", s.SetWindow(good))
	if got, err := s.Window(); err != nil || got != good {
		t.Errorf("the window is %+v (%v), was set to %+v", got, err, good)
	}
}
