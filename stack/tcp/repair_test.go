package tcp_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// queueSeqs are the two numbers that a freeze must hold still.
func queueSeqs(t *testing.T, ep *tcp.Endpoint) (rcv, snd uint32) {
	t.Helper()
	rcv, err := ep.QueueSeq(repair.RecvQueue)
	if err != nil {
		t.Fatal(err)
	}
	if snd, err = ep.QueueSeq(repair.SendQueue); err != nil {
		t.Fatal(err)
	}
	return rcv, snd
}

// A frozen connection is silent and still, whatever comes and however long it
// lasts; thawed, it takes what the peer sends again.
func TestFrozen(t *testing.T) {
	w := newWire(t)
	ep, iss := w.open()
	peer := uint32(peerISN + 1)

	// Something is in flight, so that the retransmission timer runs, and
	// keepalive is on.
	ep.SocketOptions().SetKeepAlive(true)
	if _, err := ep.Write(strings.NewReader("unanswered"), tcpip.WriteOptions{}); err != nil {
		t.Fatal(tcpipErr(err))
	}
	if s := w.want(header.TCPFlagAck); s.payload != "unanswered" {
		t.Fatalf("%q was sent", s.payload)
	}
	rcv, snd := queueSeqs(t, ep)
	if rcv != peer || snd != iss+10 {
		t.Fatalf("queue sequence numbers %d, %d, want %d, %d", rcv, snd, peer, iss+10)
	}

	if err := ep.SetRepair(repair.On); err != nil {
		t.Fatal(err)
	}
	if !ep.Frozen() {
		t.Fatal("Frozen is false")
	}
	ack := header.TCPFlagAck
	attempts := []segment{
		{seq: peer, ack: iss, flags: ack, window: 65535, payload: "data"},
		{seq: peer, ack: iss + 10, flags: ack, window: 65535},
		{seq: peer, ack: iss, flags: ack, window: 0},
		{seq: peer, ack: iss, flags: ack | header.TCPFlagFin, window: 65535},
		{seq: peer, flags: header.TCPFlagRst},
		{seq: peer, ack: iss, flags: header.TCPFlagRst | ack},
		{seq: peer, flags: header.TCPFlagSyn, window: 65535},
		{seq: peer - 1, ack: iss, flags: ack, window: 65535}, // a keepalive probe
	}
	for _, s := range attempts {
		w.inject(s, nil)
		w.quiet("after " + s.flags.String() + " while frozen")
	}
	w.clock.Advance(24 * time.Hour)
	w.quiet("after a day frozen")
	if r, s := queueSeqs(t, ep); r != rcv || s != snd {
		t.Errorf("queue sequence numbers moved from %d, %d to %d, %d", rcv, snd, r, s)
	}
	if n := ep.Drops()[conn.DropSocketRepair]; n != uint32(len(attempts)) {
		t.Errorf("SOCKET_REPAIR drops = %d, want %d", n, len(attempts))
	}
	if n := tcp.DropCounts(w.stack)[conn.DropSocketRepair]; n != uint64(len(attempts)) {
		t.Errorf("the stack's SOCKET_REPAIR drops = %d, want %d", n, len(attempts))
	}
	if got := ep.EndpointState(); got != tcp.StateEstablished {
		t.Errorf("state %s, want ESTABLISHED", got)
	}

	if err := ep.SetRepair(repair.Off); err != nil {
		t.Fatal(err)
	}
	probe := w.want(header.TCPFlagAck)
	if probe.payload != "" || probe.ack != peer {
		t.Errorf("after the thaw came %q ack %d, want a window probe with ack %d", probe.payload, probe.ack, peer)
	}
	w.inject(segment{seq: peer, ack: iss + 10, flags: ack, window: 65535, payload: "again"}, nil)
	if s := w.want(header.TCPFlagAck); s.ack != peer+5 {
		t.Errorf("the retransmission was acknowledged up to %d, want %d", s.ack, peer+5)
	}
	var buf bytes.Buffer
	if _, err := ep.Read(&buf, tcpip.ReadOptions{}); err != nil || buf.String() != "again" {
		t.Errorf("Read = %q, %s", buf.String(), tcpipErr(err))
	}
}

// OffNoProbe thaws without a word.
func TestThawWithoutProbe(t *testing.T) {
	w := newWire(t)
	ep, _ := w.open()
	if err := ep.SetRepair(repair.On); err != nil {
		t.Fatal(err)
	}
	if err := ep.SetRepair(repair.OffNoProbe); err != nil {
		t.Fatal(err)
	}
	w.quiet("after OffNoProbe")
	if ep.Frozen() {
		t.Error("still frozen")
	}
}

// What waited in the inbox when the connection was frozen is dropped too.
func TestFreezeDropsInbox(t *testing.T) {
	w := newWire(t)
	ep, iss := w.open()
	ep.StopWork()
	w.inject(segment{seq: peerISN + 1, ack: iss, flags: header.TCPFlagAck, window: 65535, payload: "queued"}, nil)
	// SetRepair waits for the lock that the test holds; it must be the next to
	// get it. The other order, input first, would be no failure of the freeze,
	// so it is told apart by the drop counter.
	done := make(chan error, 1)
	go func() { done <- ep.SetRepair(repair.On) }()
	ep.ResumeWork()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	rcv, _ := queueSeqs(t, ep)
	dropped := ep.Drops()[conn.DropSocketRepair] == 1
	if dropped != (rcv == peerISN+1) {
		t.Errorf("dropped %t, but RCV.NXT moved by %d", dropped, rcv-peerISN-1)
	}
}

// Readers and writers of a frozen connection wait, and are told of the thaw.
func TestFrozenUser(t *testing.T) {
	w := newWire(t)
	ep, iss := w.open()
	w.inject(segment{seq: peerISN + 1, ack: iss, flags: header.TCPFlagAck, window: 65535, payload: "early"}, nil)
	if err := ep.SetRepair(repair.On); err != nil {
		t.Fatal(err)
	}
	if _, err := ep.Read(io.Discard, tcpip.ReadOptions{}); !wouldBlock(err) {
		t.Errorf("Read = %s, want ErrWouldBlock", tcpipErr(err))
	}
	if _, err := ep.Write(strings.NewReader("x"), tcpip.WriteOptions{}); !wouldBlock(err) {
		t.Errorf("Write = %s, want ErrWouldBlock", tcpipErr(err))
	}
	if m := ep.Readiness(waiter.ReadableEvents | waiter.WritableEvents); m != 0 {
		t.Errorf("Readiness = %#x while frozen", m)
	}
	if err := ep.SetRepair(repair.OffNoProbe); err != nil {
		t.Fatal(err)
	}
	if m := ep.Readiness(waiter.ReadableEvents | waiter.WritableEvents); m != waiter.ReadableEvents|waiter.WritableEvents {
		t.Errorf("Readiness = %#x after the thaw", m)
	}
	var buf bytes.Buffer
	if _, err := ep.Read(&buf, tcpip.ReadOptions{}); err != nil || buf.String() != "early" {
		t.Errorf("Read after the thaw = %q, %s", buf.String(), tcpipErr(err))
	}
}

func wouldBlock(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrWouldBlock)
	return ok
}

// There is nothing to freeze about a listener or a new endpoint.
func TestRepairNeedsConnection(t *testing.T) {
	w := newWire(t)
	l, _ := listenEndpoint(t, w.stack, families[0], 0, 7, 1)
	if err := l.SetRepair(repair.On); err != conn.ErrInvalid {
		t.Errorf("listener: %v, want ErrInvalid", err)
	}
	ep := newEndpoint(t, w.stack, families[0], new(waiter.Queue))
	defer ep.Close()
	if err := ep.SetRepair(repair.On); err != conn.ErrNotConnected {
		t.Errorf("new endpoint: %v, want ErrNotConnected", err)
	}
	if _, err := ep.QueueSeq(repair.SendQueue); err != conn.ErrNotConnected {
		t.Errorf("QueueSeq of a new endpoint: %v, want ErrNotConnected", err)
	}
	if ep.Frozen() {
		t.Error("a new endpoint is frozen")
	}
}

// A transfer that is frozen in the middle, at either end, is whole afterwards.
func TestFreezeMidTransfer(t *testing.T) {
	for _, f := range families {
		for side := range 2 {
			t.Run(f.name+[]string{"/sender", "/receiver"}[side], func(t *testing.T) {
				s := pair(t)
				client, server := connect(t, s, f, 7)
				ep := conns(s[side])[0]
				stop := make(chan struct{})
				frozen := make(chan struct{})
				go func() {
					defer close(frozen)
					for {
						select {
						case <-stop:
							return
						default:
						}
						if ep.SetRepair(repair.On) != nil || ep.SetRepair(repair.Off) != nil {
							return
						}
					}
				}()
				transfer(t, client, server, 1<<20)
				close(stop)
				<-frozen
			})
		}
	}
}
