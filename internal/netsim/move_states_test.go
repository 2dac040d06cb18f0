package netsim_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/internal/netsim"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// party is one end of a conversation, and what its user has done.
type party struct {
	t     *testing.T
	ep    *tcp.Endpoint
	text  []byte // still to be written
	wrote []byte
	got   bytes.Buffer
	read  bool // it reads at all
	done  bool // it writes no more, once text is empty
	shut  bool
	ended bool // it has read the end
}

// act does what the user would, as far as it goes without waiting.
func (p *party) act() {
	for len(p.text) > 0 {
		n, err := p.ep.Write(bytes.NewReader(p.text), tcpip.WriteOptions{})
		p.wrote = append(p.wrote, p.text[:n]...)
		p.text = p.text[n:]
		if err != nil || n == 0 {
			break
		}
	}
	if p.done && !p.shut && len(p.text) == 0 && p.ep.EndpointState() != tcp.StateSynSent && !p.ep.Frozen() {
		p.shut = p.ep.Shutdown(tcpip.ShutdownWrite) == nil
	}
	for p.read && !p.ended {
		_, err := p.ep.Read(&p.got, tcpip.ReadOptions{})
		switch err.(type) {
		case nil:
			continue
		case *tcpip.ErrClosedForReceive:
			p.ended = true
		case *tcpip.ErrWouldBlock:
		default:
			p.t.Fatalf("read: %s", err)
		}
		break
	}
}

// scene is two parties on a link; a is the one that is moved.
type scene struct {
	*arena
	t      *testing.T
	a, b   *party
	resets int
}

func newScene(t *testing.T) *scene {
	t.Helper()
	w, err := newArena(ours, "cubic", path{mbps: 100, rtt: 20 * time.Millisecond, buffer: 1}, cellSeed)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{arena: w, t: t}
	t.Cleanup(func() {
		w.link.Tap = nil
		w.Close()
	})
	w.link.Tap = func(p netsim.Packet) {
		if header.TCP(header.IPv4(p.Bytes).Payload()).Flags()&header.TCPFlagRst != 0 {
			s.resets++
		}
	}
	return s
}

func (s *scene) endpoint(h *netsim.Host) *tcp.Endpoint {
	s.t.Helper()
	ep, err := h.Stack().NewEndpoint(tcp.ProtocolNumber, header.IPv4ProtocolNumber, new(waiter.Queue))
	if err != nil {
		s.t.Fatal(err)
	}
	return ep.(*tcp.Endpoint)
}

// listen makes a listener on a host.
func (s *scene) listen(h *netsim.Host) *tcp.Endpoint {
	s.t.Helper()
	l := s.endpoint(h)
	if err := l.Bind(tcpip.FullAddress{Port: 80}); err != nil {
		s.t.Fatal(err)
	}
	if err := l.Listen(10); err != nil {
		s.t.Fatal(err)
	}
	return l
}

// dial begins a connection.
func (s *scene) dial(from *netsim.Host, to tcpip.Address) *party {
	s.t.Helper()
	p := &party{t: s.t, ep: s.endpoint(from), read: true}
	if err := p.ep.Connect(tcpip.FullAddress{Addr: to, Port: 80}); err != nil {
		if _, ok := err.(*tcpip.ErrConnectStarted); !ok {
			s.t.Fatal(err)
		}
	}
	return p
}

// accept waits for a connection.
func (s *scene) accept(l *tcp.Endpoint) *party {
	s.t.Helper()
	var p *party
	s.RunUntil(time.Minute, func() bool {
		if ep, _, err := l.Accept(nil); err == nil {
			p = &party{t: s.t, ep: ep.(*tcp.Endpoint), read: true}
		}
		return p != nil
	})
	if p == nil {
		s.t.Fatal("nobody came")
	}
	return p
}

// open makes the connection: a has dialled b.
func (s *scene) open() {
	s.t.Helper()
	l := s.listen(s.arena.b)
	s.a = s.dial(s.arena.a, s.link.B())
	s.b = s.accept(l)
}

// play has the parties act until cond, or for a while.
func (s *scene) play(d time.Duration, cond func() bool) bool {
	return s.RunUntil(d, func() bool {
		for _, p := range []*party{s.a, s.b} {
			if p != nil {
				p.act()
			}
		}
		return cond != nil && cond()
	})
}

// until is play, to a state of a's.
func (s *scene) until(state tcp.EndpointState) {
	s.t.Helper()
	if !s.play(time.Minute, func() bool { return s.a.ep.EndpointState() == state }) {
		s.t.Fatalf("a is in %s, want %s", s.a.ep.EndpointState(), state)
	}
}

// move carries what sock shows to another host, and thaws it there.
func (s *scene) move(sock *tcp.RepairSocket, core bool) *tcp.RepairSocket {
	s.t.Helper()
	var snap *repair.Snapshot
	var err error
	if st, _ := sock.State(); st == repair.StateListen {
		snap, err = sock.Snapshot()
	} else {
		snap, err = repair.Checkpoint(sock)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	target := s.NewHost(ours.factory)
	if err := s.link.Takeover(target); err != nil {
		s.t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := snap.WriteTo(&file); err != nil {
		s.t.Fatal(err)
	}
	if snap, err = repair.Read(&file, repair.Limits{}); err != nil {
		s.t.Fatal(err)
	}
	if core {
		snap.Extra = nil
	}
	sock.Close()
	moved, err := repair.Restore(&tcp.RepairFactory{Stack: target.Stack()}, snap)
	if err != nil {
		s.t.Fatal(err)
	}
	a := s.a
	s.a = nil                         // its user waits
	s.play(100*time.Millisecond, nil) // what comes meanwhile is dropped
	s.a = a
	if err := repair.Resume(moved, repair.Off); err != nil {
		s.t.Fatal(err)
	}
	return moved.(*tcp.RepairSocket)
}

// noise is text whose every part is its own.
func noise(n int, who byte) []byte {
	b := make([]byte, n)
	x := uint32(who)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// states are the ways to bring a into a state, with data in every place that the
// state has. What is on its way when scene ends is lost.
var sceneStates = []struct {
	state tcp.EndpointState
	set   func(s *scene)
}{
	{tcp.StateSynSent, func(s *scene) {
		s.link.Blackout(2 * time.Second)
		s.a = s.dial(s.arena.a, s.link.B())
	}},
	{tcp.StateEstablished, func(s *scene) {
		s.open()
		s.a.text, s.b.text = noise(3<<20, 'a'), noise(2<<20, 'b')
		s.a.read = false
		s.play(90*time.Millisecond, nil)
	}},
	{tcp.StateEstablished, func(s *scene) { // both windows are closed
		s.open()
		s.a.read, s.b.read = false, false
		s.a.text, s.b.text = noise(12<<20, 'a'), noise(12<<20, 'b')
		s.play(3*time.Second, nil)
	}},
	{tcp.StateEstablished, func(s *scene) { // corked
		s.open()
		s.a.ep.SocketOptions().SetCorkOption(true)
		s.a.text = noise(2000, 'a')
		s.play(50*time.Millisecond, nil)
	}},
	{tcp.StateFinWait1, func(s *scene) {
		s.open()
		s.b.text = noise(100_000, 'b')
		s.a.read = false
		s.play(200*time.Millisecond, nil)
		s.link.Blackout(2 * time.Second)
		s.a.text, s.a.done = noise(300_000, 'a'), true
		s.play(20*time.Millisecond, nil)
	}},
	{tcp.StateFinWait2, func(s *scene) {
		s.open()
		s.a.text, s.a.done = noise(100_000, 'a'), true
		s.until(tcp.StateFinWait2)
		s.a.read = false
		s.b.text = noise(100_000, 'b')
		s.play(25*time.Millisecond, nil)
	}},
	{tcp.StateCloseWait, func(s *scene) {
		s.open()
		s.a.read = false
		s.b.text, s.b.done = noise(100_000, 'b'), true
		s.until(tcp.StateCloseWait)
		s.link.Blackout(2 * time.Second)
		s.a.text = noise(1<<20, 'a')
		s.play(20*time.Millisecond, nil)
	}},
	{tcp.StateClosing, func(s *scene) {
		s.open()
		s.a.read = false
		s.a.done, s.b.done = true, true
		s.b.text = noise(1000, 'b')
		s.until(tcp.StateClosing)
	}},
	{tcp.StateLastAck, func(s *scene) {
		s.open()
		s.a.read = false
		s.b.text, s.b.done = noise(100_000, 'b'), true
		s.until(tcp.StateCloseWait)
		s.link.Blackout(2 * time.Second)
		s.a.text, s.a.done = noise(100_000, 'a'), true
		s.play(20*time.Millisecond, nil)
	}},
	{tcp.StateTimeWait, func(s *scene) {
		s.open()
		s.a.read = false
		s.a.text, s.a.done = noise(1000, 'a'), true
		s.until(tcp.StateFinWait2)
		s.b.text, s.b.done = noise(1000, 'b'), true
		s.until(tcp.StateTimeWait)
	}},
}

// A connection in any state is moved to another host; then each side says and
// reads the rest, both close, and nobody is reset.
func TestMoveInEveryState(t *testing.T) {
	for i, tc := range sceneStates {
		for _, core := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %d/core only %t", tc.state, i, core), func(t *testing.T) {
				s := newScene(t)
				tc.set(s)
				if st := s.a.ep.EndpointState(); st != tc.state {
					t.Fatalf("a is in %s", st)
				}
				s.a.ep = s.move(s.a.ep.Repair(), core).Endpoint()
				if tc.state == tcp.StateSynSent {
					s.b = s.accept(s.listen(s.arena.b))
				}
				s.finish()
			})
		}
	}
}

// A half-open connection moves with its listener.
func TestMoveHalfOpen(t *testing.T) {
	for _, core := range []bool{false, true} {
		t.Run(fmt.Sprintf("core only %t", core), func(t *testing.T) {
			s := newScene(t)
			l := s.listen(s.arena.a)
			s.b = s.dial(s.arena.b, s.link.A())
			s.RunUntil(time.Second, func() bool { return len(tcp.Endpoints(s.arena.a.Stack())) == 2 })
			s.link.Blackout(500 * time.Millisecond) // the last ACK is lost
			s.Run(300 * time.Millisecond)
			snap, err := l.Repair().Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			if len(snap.Children) != 1 || snap.Children[0].State != repair.StateSynReceived {
				t.Fatalf("%d children", len(snap.Children))
			}
			snap.Release()
			moved := s.move(l.Repair(), core)
			s.a = s.accept(moved.Endpoint())
			s.finish()
		})
	}
}

// finish has both parties say goodbye, and checks that all is well.
func (s *scene) finish() {
	s.t.Helper()
	for who, p := range map[byte]*party{'a': s.a, 'b': s.b} {
		p.read = true
		if !p.done {
			p.text, p.done = append(p.text, noise(5000, who)...), true
		}
	}
	over := func() bool {
		return s.a.ended && s.b.ended && s.a.shut && s.b.shut
	}
	if !s.play(5*time.Minute, over) {
		s.t.Fatalf("not at the end: a %s, read %d, end %t; b %s, read %d, end %t", s.a.ep.EndpointState(), s.a.got.Len(), s.a.ended,
			s.b.ep.EndpointState(), s.b.got.Len(), s.b.ended)
	}
	s.play(5*time.Second, nil)
	if !bytes.Equal(s.a.wrote, s.b.got.Bytes()) {
		s.t.Errorf("b read %d bytes, a wrote %d, or they differ", s.b.got.Len(), len(s.a.wrote))
	}
	if !bytes.Equal(s.b.wrote, s.a.got.Bytes()) {
		s.t.Errorf("a read %d bytes, b wrote %d, or they differ", s.a.got.Len(), len(s.b.wrote))
	}
	for name, p := range map[string]*party{"a": s.a, "b": s.b} {
		if st := p.ep.EndpointState(); st != tcp.StateTimeWait && st != tcp.StateClose {
			s.t.Errorf("%s is in %s", name, st)
		}
	}
	if s.resets > 0 {
		s.t.Errorf("%d resets", s.resets)
	}
}
