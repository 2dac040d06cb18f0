package repair

import (
	"fmt"
	"net/netip"
)

// fakeHost is a kernel of sorts: it makes fakes and knows their addresses.
type fakeHost struct {
	addr   netip.Addr
	taken  map[Flow]*fake
	ports  map[uint16]bool // that a listener holds
	failAt string          // the call at which the next fake fails
	made   []*fake
}

func newHost(addr string) *fakeHost {
	return &fakeHost{addr: netip.MustParseAddr(addr), taken: map[Flow]*fake{}, ports: map[uint16]bool{}}
}

func (h *fakeHost) Socket(local netip.AddrPort) (Socket, error) {
	if h.failAt == "Socket" {
		return nil, errFake
	}
	f := &fake{host: h, state: StateClosed, failAt: h.failAt, clock: 77}
	h.made = append(h.made, f)
	return f, nil
}

// open returns an established connection.
func (h *fakeHost) open(local, remote string) *fake {
	f := &fake{
		host: h, state: StateEstablished, clock: 5000,
		local: netip.MustParseAddrPort(local), remote: netip.MustParseAddrPort(remote),
		writeSeq: 1000, rcvNxt: 2000,
		options: Options{MSS: 1460, Scaling: true, SendScale: 7, RecvScale: 9, SACK: true, Timestamps: true},
		window:  Window{SndWl1: 1999, SndWnd: 30000, MaxWindow: 60000, RcvWnd: 65536, RcvWup: 2000},
	}
	h.taken[Flow{f.local, f.remote}] = f
	return f
}

var errFake = fmt.Errorf("fake failure")

// fake is a Socket with Linux's rules.
type fake struct {
	host   *fakeHost
	failAt string
	log    []string

	local, remote    netip.AddrPort
	state            State
	mode             Mode
	writeSeq, rcvNxt uint32 // FINs included
	recv, send       []byte
	unsent           int
	fin              bool // ours, queued
	options          Options
	optionsSet       bool
	window           Window
	windowSet        bool
	clock            uint32
	micros           bool
	closed           bool

	countFIN bool   // Queued counts an unacknowledged FIN, as SIOCOUTQ does
	creep    uint32 // how far the receive sequence moves at each Peek: an unpatched kernel
	early    bool   // data was sent before the window was set
}

func (f *fake) call(name string, args ...any) error {
	f.log = append(f.log, fmt.Sprint(append([]any{name}, args...)...))
	if f.failAt == name {
		return errFake
	}
	return nil
}

func (f *fake) Addrs() (netip.AddrPort, netip.AddrPort, error) {
	return f.local, f.remote, f.call("Addrs")
}
func (f *fake) State() (State, error) { return f.state, f.call("State") }
func (f *fake) Repair() (bool, error) { return f.mode == On, f.call("Repair") }

func (f *fake) SetRepair(m Mode) error {
	if err := f.call("SetRepair", m); err != nil {
		return err
	}
	if f.state == StateListen || !m.Valid() {
		return ErrInvalid
	}
	f.mode = m
	return nil
}

func (f *fake) QueueSeq(q Queue) (uint32, error) {
	if err := f.call("QueueSeq", q); err != nil {
		return 0, err
	}
	switch {
	case f.mode != On || q == NoQueue:
		return 0, ErrInvalid
	case q == SendQueue:
		return f.writeSeq, nil
	}
	return f.rcvNxt, nil
}

func (f *fake) SetQueueSeq(q Queue, seq uint32) error {
	if err := f.call("SetQueueSeq", q); err != nil {
		return err
	}
	switch {
	case f.mode != On || f.state != StateClosed:
		return ErrPermission
	case q == SendQueue:
		f.writeSeq = seq
	case q == RecvQueue:
		f.rcvNxt = seq
	default:
		return ErrInvalid
	}
	return nil
}

func (f *fake) Peek(q Queue, p []byte) (int, error) {
	if err := f.call("Peek", q); err != nil {
		return 0, err
	}
	f.rcvNxt += f.creep
	switch {
	case f.mode != On:
		return 0, ErrPermission
	case q == SendQueue:
		return copy(p, f.send), nil
	case q == RecvQueue:
		return copy(p, f.recv), nil
	}
	return 0, ErrInvalid
}

// WriteQueue takes at most 1000 bytes at a time.
func (f *fake) WriteQueue(q Queue, p []byte) (int, error) {
	if err := f.call("WriteQueue", q); err != nil {
		return 0, err
	}
	p = p[:min(len(p), 1000)]
	switch {
	case f.mode != On:
		return 0, ErrPermission
	case f.state != StateEstablished && f.state != StateCloseWait:
		return 0, ErrClosed
	case q == SendQueue:
		f.send = append(f.send, p...)
		f.writeSeq += uint32(len(p))
	case q == RecvQueue:
		f.recv = append(f.recv, p...)
		f.rcvNxt += uint32(len(p))
	default:
		return 0, ErrInvalid
	}
	return len(p), nil
}

func (f *fake) Queued() (int, int, int, error) {
	unacked := len(f.send)
	if f.countFIN && f.fin {
		unacked++
	}
	return len(f.recv), unacked, f.unsent, f.call("Queued")
}

func (f *fake) Options() (Options, error) { return f.options, f.call("Options") }

func (f *fake) SetOptions(o Options) error {
	if err := f.call("SetOptions"); err != nil {
		return err
	}
	switch {
	case f.mode != On:
		return ErrInvalid
	case f.state != StateEstablished || len(f.send) > 0:
		return ErrPermission
	case o.SendScale > MaxScale:
		return ErrTooBig
	}
	f.options, f.optionsSet = o, true
	return nil
}

func (f *fake) Window() (Window, error) { return f.window, f.call("Window") }

func (f *fake) SetWindow(w Window) error {
	if err := f.call("SetWindow"); err != nil {
		return err
	}
	switch {
	case f.mode != On:
		return ErrPermission
	case w.MaxWindow < w.SndWnd, before(f.rcvNxt+w.RcvWnd, w.SndWl1), before(f.rcvNxt, w.RcvWup):
		return ErrInvalid
	}
	f.window, f.windowSet = w, true
	return nil
}

func (f *fake) Timestamp() (uint32, bool, error) { return f.clock, f.micros, f.call("Timestamp") }

func (f *fake) SetTimestamp(v uint32, micros bool) error {
	if err := f.call("SetTimestamp"); err != nil {
		return err
	}
	if f.mode != On {
		return ErrPermission
	}
	f.clock, f.micros = v, micros
	return nil
}

func (f *fake) Bind(local netip.AddrPort) error {
	if err := f.call("Bind"); err != nil {
		return err
	}
	switch {
	case local.Addr() != f.host.addr:
		return ErrAddress
	case f.host.ports[local.Port()]:
		return ErrAddrInUse
	}
	f.local = local
	return nil
}

func (f *fake) Connect(remote netip.AddrPort) error {
	if err := f.call("Connect"); err != nil {
		return err
	}
	flow := Flow{f.local, remote}
	if f.host.taken[flow] != nil {
		return ErrAddrInUse
	}
	f.host.taken[flow] = f
	f.remote, f.state = remote, StateEstablished
	f.window = Window{RcvWnd: 29200, RcvWup: f.rcvNxt}
	f.options = Options{MSS: 536}
	return nil
}

func (f *fake) Close() error {
	if err := f.call("Close"); err != nil {
		return err
	}
	f.closed, f.state = true, StateClosed
	if f.host.taken[Flow{f.local, f.remote}] == f {
		delete(f.host.taken, Flow{f.local, f.remote})
	}
	return nil
}

// Write takes at most 700 bytes at a time; it is only ever used outside repair.
func (f *fake) Write(p []byte) (int, error) {
	if err := f.call("Write"); err != nil {
		return 0, err
	}
	if f.mode == On || f.state != StateEstablished {
		return 0, ErrClosed
	}
	f.early = f.early || !f.windowSet
	p = p[:min(len(p), 700)]
	f.send = append(f.send, p...)
	f.unsent += len(p)
	f.writeSeq += uint32(len(p))
	return len(p), nil
}

func (f *fake) CloseWrite() error {
	if err := f.call("CloseWrite"); err != nil {
		return err
	}
	f.fin, f.state = true, StateFinWait1
	f.writeSeq++
	return nil
}
