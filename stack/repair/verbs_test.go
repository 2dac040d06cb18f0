package repair

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	here  = "10.0.0.2:80"
	there = "10.0.0.1:40000"
)

// loaded is a connection in mid-transfer: 2500 bytes unread, 3000 not
// acknowledged, 1200 of them never sent.
func loaded(h *fakeHost) *fake {
	f := h.open(here, there)
	f.recv = bytes.Repeat([]byte("abcde"), 500)
	f.send = bytes.Repeat([]byte("vwxyz"), 600)
	f.unsent = 1200
	return f
}

func join(b Bytes) []byte { return slices.Concat(b...) }

func TestCheckpointReadsAll(t *testing.T) {
	f := loaded(newHost("10.0.0.2"))
	s, err := Checkpoint(f)
	if err != nil {
		t.Fatal(err)
	}
	if f.mode != On {
		t.Error("the connection did not stay frozen")
	}
	want := Core{
		Local: netip.MustParseAddrPort(here), Remote: netip.MustParseAddrPort(there), State: StateEstablished,
		SendSeq: 1<<32 - 2000, Unsent: 1200, RecvSeq: 2000, Timestamp: 5000,
		Options: f.options, Window: f.window,
	}
	if !bytes.Equal(join(s.SendQueue), f.send) || !bytes.Equal(join(s.RecvQueue), f.recv) {
		t.Error("the queues are not what they were")
	}
	got := s.Core
	got.SendQueue, got.RecvQueue = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if err := Resume(f, Off); err != nil || f.mode != Off {
		t.Errorf("not thawed: %v", err)
	}
}

// Whatever fails, the connection goes on, and the error says at what.
func TestCheckpointFailureThaws(t *testing.T) {
	for _, step := range []string{"Addrs", "State", "QueueSeq", "Queued", "Peek", "Options", "Window", "Timestamp"} {
		f := loaded(newHost("10.0.0.2"))
		f.failAt = step
		_, err := Checkpoint(f)
		if !errors.Is(err, errFake) || strings.Count(err.Error(), ": ") < 2 {
			t.Errorf("%s: error %q does not name the step", step, err)
		}
		if f.mode == On {
			t.Errorf("%s: the connection stays frozen", step)
		}
		if last := f.log[len(f.log)-1]; last != "SetRepairoff-no-probe" {
			t.Errorf("%s: the last call is %s", step, last)
		}
	}
}

func TestCheckpointLeavesFrozenFrozen(t *testing.T) {
	f := loaded(newHost("10.0.0.2"))
	f.mode, f.failAt = On, "Window"
	if _, err := Checkpoint(f); err == nil || f.mode != On {
		t.Errorf("error %v, mode %v", err, f.mode)
	}
}

// listening is a listener's Socket: frozen by Snapshot, thawed by SetRepair.
type listening struct {
	fake
	snap *Snapshot
	err  error
}

func (l *listening) SetRepair(m Mode) error {
	if m == On || l.mode != On {
		return ErrPermission
	}
	l.mode = m
	return nil
}

func (l *listening) Snapshot() (*Snapshot, error) {
	if l.err == nil {
		l.mode = On
	}
	return l.snap, l.err
}

func TestCheckpointListener(t *testing.T) {
	l := &listening{fake: fake{state: StateListen}, snap: listener()}
	if s, err := Checkpoint(l); err != nil || s != l.snap || l.mode != On {
		t.Errorf("%p, %v, mode %v", s, err, l.mode)
	}
	if err := Resume(l, Off); err != nil || l.mode != Off {
		t.Errorf("not thawed: %v", err)
	}
	l.err = errFake
	if _, err := Checkpoint(l); !errors.Is(err, errFake) || strings.Contains(err.Error(), "\n") || l.mode == On {
		t.Errorf("%v, mode %v", err, l.mode)
	}
	l.err, l.snap.Children[0] = nil, nil
	if _, err := Checkpoint(l); !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "\n") || l.mode == On {
		t.Errorf("%v, mode %v", err, l.mode)
	}
}

// A kernel without the patch takes data in while it is being read.
func TestCheckpointSeesTheRace(t *testing.T) {
	f := loaded(newHost("10.0.0.2"))
	f.creep = 100
	if _, err := Checkpoint(f); !errors.Is(err, errMoved) || f.mode == On {
		t.Errorf("error %v, mode %v", err, f.mode)
	}
}

func TestCheckpointRefuses(t *testing.T) {
	for _, s := range []State{StateListen, StateClosed, StateSynSent, StateSynReceived} {
		f := loaded(newHost("10.0.0.2"))
		f.state = s
		if _, err := Checkpoint(f); !errors.Is(err, ErrState) && !errors.Is(err, ErrInvalid) || f.mode == On {
			t.Errorf("%v: error %v, mode %v", s, err, f.mode)
		}
	}
}

// In every state the sequence numbers count the FINs and the queues do not.
func TestCheckpointFINs(t *testing.T) {
	type fins struct{ queued, acked, received bool }
	for s, want := range map[State]fins{
		StateEstablished: {},
		StateFinWait1:    {queued: true},
		StateFinWait2:    {queued: true, acked: true},
		StateCloseWait:   {received: true},
		StateClosing:     {queued: true, received: true},
		StateLastAck:     {queued: true, received: true},
		StateTimeWait:    {queued: true, acked: true, received: true},
	} {
		f := newHost("10.0.0.2").open(here, there)
		f.state, f.recv = s, []byte("unread")
		f.window.RcvWup = 1990
		if !want.acked {
			f.send = []byte("unacked")
		}
		snap, err := Checkpoint(f)
		if err != nil {
			t.Errorf("%v: %v", s, err)
			continue
		}
		got := fins{snap.FINQueued, snap.FINAcked, snap.FINReceived}
		if got != want || snap.FINSent != want.queued {
			t.Errorf("%v: %+v, want %+v", s, got, want)
		}
		if !bytes.Equal(join(snap.SendQueue), f.send) || !bytes.Equal(join(snap.RecvQueue), f.recv) {
			t.Errorf("%v: %q, %q", s, snap.SendQueue, snap.RecvQueue)
		}
		if snap.WriteSeq() != f.writeSeq || snap.RcvNxt() != f.rcvNxt {
			t.Errorf("%v: ends at %d and %d, not at %d and %d", s, snap.WriteSeq(), snap.RcvNxt(), f.writeSeq, f.rcvNxt)
		}
	}
}

// Where a length counts a FIN and the peek does not give it, a byte of data
// would be missed.
func TestCheckpointRefusesShortPeek(t *testing.T) {
	f := loaded(newHost("10.0.0.2"))
	f.state, f.fin, f.countFIN = StateFinWait1, true, true
	_, err := Checkpoint(f)
	if err == nil || !strings.Contains(err.Error(), "3000 bytes of 3001") || f.mode == On {
		t.Errorf("error %v, mode %v", err, f.mode)
	}
}

func TestMove(t *testing.T) {
	from, to := newHost("10.0.0.2"), newHost("10.0.0.2")
	f := loaded(from)
	before := *f
	s, err := Move(f, to)
	if err != nil {
		t.Fatal(err)
	}
	g := to.made[0]
	if !f.closed || g.mode != Off || g.state != StateEstablished {
		t.Errorf("origin closed %v, target %v in mode %v", f.closed, g.state, g.mode)
	}
	if !bytes.Equal(g.recv, before.recv) || !bytes.Equal(g.send, before.send) || g.unsent != 1200 {
		t.Error("the queues are not what they were")
	}
	if g.writeSeq != before.writeSeq || g.rcvNxt != before.rcvNxt || g.options != before.options || g.window != before.window {
		t.Errorf("got %+v, want %+v", *g, before)
	}
	if local, remote, err := s.Addrs(); local != before.local || remote != before.remote || err != nil {
		t.Errorf("%v, %v, %v", local, remote, err)
	}
}

// A connection that could not be moved goes on where it was.
func TestFailedMoveResumesTheOrigin(t *testing.T) {
	for _, step := range []string{
		"Socket", "SetRepair", "SetQueueSeq", "Bind", "Connect", "SetOptions", "WriteQueue", "SetWindow", "SetTimestamp",
	} {
		from, to := newHost("10.0.0.2"), newHost("10.0.0.2")
		f := loaded(from)
		to.failAt = step
		_, err := Move(f, to)
		if !errors.Is(err, errFake) || f.closed || f.mode != Off {
			t.Errorf("%s: error %v, origin closed %v, mode %v", step, err, f.closed, f.mode)
		}
		if len(to.taken) != 0 || slices.ContainsFunc(to.made, func(g *fake) bool { return !g.closed }) {
			t.Errorf("%s: something is left at the target", step)
		}
	}
}

// Data that never left is written when the window is right and repair is off;
// earlier it would count as sent, or hang on a new connection's window.
func TestUnsentDataAfterWindowAndThaw(t *testing.T) {
	from, to := newHost("10.0.0.2"), newHost("10.0.0.2")
	snap, err := Checkpoint(loaded(from))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Restore(to, snap)
	if err != nil {
		t.Fatal(err)
	}
	g := to.made[0]
	if len(g.send) != 1800 || g.unsent != 0 {
		t.Errorf("%d bytes, %d of them unsent, before the thaw", len(g.send), g.unsent)
	}
	if err := Resume(s, Off); err != nil {
		t.Fatal(err)
	}
	order := []string{"SetOptions", "WriteQueuerecv", "WriteQueuesend", "SetWindow", "SetRepairoff", "Write"}
	at := 0
	for _, call := range g.log {
		if at < len(order) && call == order[at] {
			at++
		}
	}
	if at != len(order) || g.early {
		t.Errorf("not in the order %v: %v", order, g.log)
	}
	if len(g.send) != 3000 || g.unsent != 1200 {
		t.Errorf("%d bytes, %d of them unsent", len(g.send), g.unsent)
	}
}

// A restored connection that has not been thawed can be carried on.
func TestCheckpointBeforeResume(t *testing.T) {
	from, to := newHost("10.0.0.2"), newHost("10.0.0.2")
	f := loaded(from)
	f.state, f.fin, f.writeSeq = StateFinWait1, true, f.writeSeq+1
	snap, err := Checkpoint(f)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Restore(to, snap)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Checkpoint(s)
	if err != nil {
		t.Fatal(err)
	}
	if again.State != StateFinWait1 || !again.FINQueued || again.FINSent || again.Unsent != 1200 ||
		!bytes.Equal(join(again.SendQueue), join(snap.SendQueue)) || again.WriteSeq() != snap.WriteSeq() {
		t.Errorf("got %+v", again.Core)
	}
	if err := Resume(s, OffNoProbe); err != nil {
		t.Fatal(err)
	}
	if g := to.made[0]; g.state != StateFinWait1 || g.writeSeq != f.writeSeq {
		t.Errorf("state %v, sequence %d, want %d", g.state, g.writeSeq, f.writeSeq)
	}
}

// The peer may have sent up to the right-most edge it was ever told.
func TestWindowIsNotRetracted(t *testing.T) {
	from, to := newHost("10.0.0.2"), newHost("10.0.0.2")
	snap, err := Checkpoint(loaded(from))
	if err != nil {
		t.Fatal(err)
	}
	edge := snap.Window.RcvWup + snap.Window.RcvWnd
	for _, more := range []uint32{0, 50000, 0xffffffff} {
		snap.Extra = &Extra{Advertised: edge + more}
		s, err := Restore(to, snap)
		if err != nil {
			t.Fatal(err)
		}
		g := to.made[len(to.made)-1]
		if got := g.window.RcvWup + g.window.RcvWnd; before(got, edge+more) || before(got, edge) {
			t.Errorf("edge %d, %d was advertised", got, edge+more)
		}
		s.Close()
	}
}

func TestOptionsStayAsTheyWere(t *testing.T) {
	for i := range 8 {
		o := Options{MSS: 1400, Scaling: i&1 != 0, SACK: i&2 != 0, Timestamps: i&4 != 0}
		if o.Scaling {
			o.SendScale, o.RecvScale = 3, 14
		}
		from, to := newHost("10.0.0.2"), newHost("10.0.0.2")
		f := from.open(here, there)
		f.options = o
		if _, err := Move(f, to); err != nil {
			t.Fatal(err)
		}
		g := to.made[0]
		if g.options != o {
			t.Errorf("got %+v, want %+v", g.options, o)
		}
		if set := slices.Contains(g.log, "SetTimestamp"); set != o.Timestamps {
			t.Errorf("%+v: timestamp set: %v", o, set)
		}
	}
}

// The clock goes on from where the peer saw it, not from the new host's, and
// keeps its tick.
func TestTimestampGoesOn(t *testing.T) {
	for _, micros := range []bool{false, true} {
		from, to := newHost("10.0.0.2"), newHost("10.0.0.2")
		f := from.open(here, there)
		f.micros = micros
		if _, err := Move(f, to); err != nil {
			t.Fatal(err)
		}
		if g := to.made[0]; g.clock != 5000 || g.micros != micros {
			t.Errorf("clock %d, micros %v", g.clock, g.micros)
		}
	}
}

func TestRestoreRefusals(t *testing.T) {
	from := newHost("10.0.0.2")
	snap, err := Checkpoint(from.open(here, there))
	if err != nil {
		t.Fatal(err)
	}
	listener, taken, elsewhere := newHost("10.0.0.2"), newHost("10.0.0.2"), newHost("10.0.0.3")
	listener.ports[80] = true
	taken.open(here, there)
	for name, tt := range map[string]struct {
		host *fakeHost
		want error
	}{
		"a listener on the port": {listener, ErrAddrInUse},
		"an existing connection": {taken, ErrAddrInUse},
		"another local address":  {elsewhere, ErrAddress},
	} {
		_, err := Restore(tt.host, snap)
		if !errors.Is(err, tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if len(tt.host.made) != 1 || !tt.host.made[0].closed {
			t.Errorf("%s: the socket was not closed", name)
		}
	}
	if len(taken.taken) != 1 {
		t.Error("the connection that was there has gone")
	}
	for _, s := range []State{StateSynSent, StateSynReceived, StateFinWait2, StateTimeWait, StateCloseWait} {
		snap := *snap
		snap.State = s
		snap.FINQueued = s.in(finQueuedStates...)
		snap.FINSent = snap.FINQueued
		snap.FINAcked = s.in(finAckedStates...)
		snap.FINReceived = s.in(finReceivedStates...)
		h := newHost("10.0.0.2")
		if _, err := Restore(h, &snap); !errors.Is(err, ErrState) || len(h.taken) != 0 {
			t.Errorf("%v: %v", s, err)
		}
	}
}

// stepper is a Factory and a Socket that do it in one step.
type stepper struct {
	fakeHost
	snap *Snapshot
	*keeper
}

type keeper struct{ flow Flow }

func (s *stepper) Restore(snap *Snapshot) (Socket, error) { s.snap = snap; return &fake{}, nil }

func (k *keeper) Reserve(f Flow, hold int, lifetime time.Duration) (Reservation, error) {
	k.flow = f
	return nil, nil
}

func (k *keeper) Bury(f Flow, lifetime time.Duration) (Reservation, error) {
	k.flow = f
	return nil, nil
}

func TestRestoreInOneStep(t *testing.T) {
	from := newHost("10.0.0.2")
	snap, err := Checkpoint(loaded(from))
	if err != nil {
		t.Fatal(err)
	}
	var to stepper
	if _, err := Restore(&to, snap); err != nil || to.snap != snap {
		t.Errorf("%v, %p", err, to.snap)
	}
	to.snap = nil
	snap.Unsent = 9999
	if _, err := Restore(&to, snap); !errors.Is(err, ErrInvalid) || to.snap != nil {
		t.Errorf("an impossible snapshot reached the restorer: %v", err)
	}
}

func TestReserveAndBury(t *testing.T) {
	flow := Flow{netip.MustParseAddrPort(here), netip.MustParseAddrPort(there)}
	if _, err := Reserve(newHost("10.0.0.2"), flow, 0, time.Second); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if _, err := Bury(newHost("10.0.0.2"), flow, time.Second); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	to := stepper{keeper: &keeper{}}
	if _, err := Reserve(&to, flow, 0, time.Second); err != nil || to.flow != flow {
		t.Error(err)
	}
	to.flow = Flow{}
	if _, err := Bury(&to, flow, time.Second); err != nil || to.flow != flow {
		t.Error(err)
	}
	to.flow = Flow{}
	for _, err := range []error{
		second(Reserve(&to, flow, -1, time.Second)),
		second(Reserve(&to, flow, 0, 0)),
		second(Reserve(&to, Flow{Local: flow.Local}, 0, time.Second)),
		second(Bury(&to, flow, -time.Second)),
		second(Bury(&to, Flow{Remote: flow.Remote}, time.Second)),
	} {
		if !errors.Is(err, ErrInvalid) || to.flow.Local.IsValid() {
			t.Error(err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
