package conn

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/repair"
)

// inState returns a world in which a is in the state, with data unread, unsent
// and unacknowledged where the state allows it.
func inState(t *testing.T, s State) *world {
	t.Helper()
	if s == StateSynSent || s == StateSynReceived {
		w := newWorld(t)
		ca := testConfig(1000)
		if s == StateSynSent {
			w.a.c.Connect(w.now, &ca)
		} else {
			w.a.c.Accept(w.now, &ca, &Segment{Seq: 7000, Flags: header.TCPFlagSyn, Window: 65535, Options: Options{MSS: 1460}})
		}
		var out Segment
		w.a.c.Output(w.now, &out)
		return w
	}
	w := established(t)
	w.b.write(w, []byte("for a to read"))
	w.run(time.Second, nil)
	deaf := func() { w.fate = func(from *host, _ *Segment) (time.Duration, int) { return 0, 0 } }
	switch s {
	case StateEstablished:
		deaf()
		w.a.write(w, noise(100_000, 1))
	case StateFinWait1:
		deaf()
		w.a.c.Shutdown(w.now, false, true)
	case StateFinWait2:
		w.a.c.Shutdown(w.now, false, true)
		w.run(time.Second, nil)
		deaf()
	case StateCloseWait:
		w.b.c.Shutdown(w.now, false, true)
		w.run(time.Second, nil)
		deaf()
		w.a.write(w, noise(100_000, 1))
	case StateClosing:
		w.a.c.Shutdown(w.now, false, true)
		w.b.c.Shutdown(w.now, false, true)
		w.settle(w.a)
		w.settle(w.b)
		w.a.c.Input(w.now, &Segment{Seq: w.a.c.rcv.nxt, Ack: w.a.c.snd.una, Flags: header.TCPFlagAck | header.TCPFlagFin, Window: 1000})
		deaf()
	case StateLastAck:
		w.b.c.Shutdown(w.now, false, true)
		w.run(time.Second, nil)
		deaf()
		w.a.c.Shutdown(w.now, false, true)
	case StateTimeWait:
		w.a.c.Shutdown(w.now, false, true)
		w.run(time.Second, nil)
		w.b.c.Shutdown(w.now, false, true)
		w.run(time.Second, nil)
		deaf()
	}
	w.settle(w.a)
	if got := w.a.c.State(); got != s {
		t.Fatalf("arranged %s, want %s", got, s)
	}
	w.path = nil
	return w
}

var liveStates = []State{
	StateSynSent, StateSynReceived, StateEstablished, StateFinWait1, StateFinWait2,
	StateCloseWait, StateClosing, StateLastAck, StateTimeWait,
}

// A frozen connection is silent and still, in every state: whatever comes is
// refused with SOCKET_REPAIR, no timer acts, nothing is sent, and neither
// queue changes.
func TestFrozenIsSilentAndStill(t *testing.T) {
	for _, s := range liveStates {
		t.Run(s.String(), func(t *testing.T) {
			w := inState(t, s)
			c := &w.a.c
			if err := c.SetRepair(w.now, repair.On); err != nil {
				t.Fatal(err)
			}
			before := fmt.Sprintf("%+v %v %v", c.snd, c.rcv, c.Info(w.now))
			dropped := c.Drops()[DropSocketRepair]
			inputs := []Segment{
				{Flags: header.TCPFlagAck, Payload: payload([]byte("data"))},
				{Flags: header.TCPFlagAck},
				{Flags: header.TCPFlagAck | header.TCPFlagFin},
				{Flags: header.TCPFlagRst},
				{Flags: header.TCPFlagRst | header.TCPFlagAck},
				{Flags: header.TCPFlagSyn},
				{Flags: header.TCPFlagSyn | header.TCPFlagAck},
			}
			for i := range inputs {
				in := &inputs[i]
				in.Seq, in.Ack, in.Window = c.rcv.nxt, c.snd.nxt, 5000
				if c.tstamp.on {
					in.Options.HasTS, in.Options.TSVal = true, c.tstamp.recent+1
				}
				if v := c.Input(w.now, in); v != DropSocketRepair {
					t.Errorf("%s: verdict %s", in.Flags, v)
				}
			}
			if v := c.PathError(w.now, c.snd.una, ErrHostUnreachable); v != DropSocketRepair {
				t.Errorf("ICMP error: verdict %s", v)
			}
			if v := c.PathMTU(w.now, c.snd.una, 500); v != DropSocketRepair {
				t.Errorf("ICMP too big: verdict %s", v)
			}
			if n := c.Drops()[DropSocketRepair] - dropped; n != uint32(len(inputs)) {
				t.Errorf("%d segments counted, want %d", n, len(inputs))
			}
			if d := c.Deadline(); d != Never {
				t.Errorf("frozen with a deadline at %d", d)
			}
			later := w.now.Add(30 * time.Minute)
			c.Tick(later)
			var out Segment
			if c.Output(later, &out) {
				t.Errorf("frozen and sent %s", out.String())
			}
			if _, err := c.Write(later, bytes.NewReader([]byte("x")), 1, false); s != StateSynSent && canSend.has(s) && err != ErrWouldBlock {
				t.Errorf("write: %v", err)
			}
			var sink bytes.Buffer
			if n, err := c.Read(later, &sink, 100, false); n != 0 || err != ErrWouldBlock {
				t.Errorf("read: %d, %v", n, err)
			}
			c.stats.SegsIn -= uint64(len(inputs))
			if after := fmt.Sprintf("%+v %v %v", c.snd, c.rcv, c.Info(w.now)); after != before {
				t.Errorf("changed while frozen:\n%s\n%s", before, after)
			}
			if err := c.check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What the peer pushed meanwhile was never acknowledged, so after the thaw it
// comes again and the stream is whole, both ways.
func TestThawedStreamIsWhole(t *testing.T) {
	for _, mode := range []repair.Mode{repair.Off, repair.OffNoProbe} {
		t.Run(mode.String(), func(t *testing.T) {
			w := established(t)
			out, back := noise(3<<20, 1), noise(3<<20, 2)
			push := func() {
				out = out[w.b.write(w, out):]
				back = back[w.a.write(w, back):]
				w.a.read(w)
				w.b.read(w)
				w.settle(w.a)
				w.settle(w.b)
			}
			w.run(120*time.Millisecond, func() bool { push(); return false })
			w.a.c.SetRepair(w.now, repair.On)
			rcv, _ := w.a.c.QueueSeq(repair.RecvQueue)
			snd, _ := w.a.c.QueueSeq(repair.SendQueue)
			acked := w.b.c.Counters().BytesAcked
			inFlight := w.a.sent
			w.run(3*time.Second, func() bool { push(); return false })
			if now, _ := w.a.c.QueueSeq(repair.RecvQueue); now != rcv {
				t.Errorf("receive sequence moved by %d", now-rcv)
			}
			if now, _ := w.a.c.QueueSeq(repair.SendQueue); now != snd {
				t.Errorf("send sequence moved by %d", now-snd)
			}
			if n := w.a.sent - inFlight; n != 0 {
				t.Errorf("%d packets sent while frozen", n)
			}
			if w.a.c.Drops()[DropSocketRepair] == 0 {
				t.Error("nothing was dropped: the test did not test")
			}
			// Acknowledgements on their way when it froze may still have come.
			if n := w.b.c.Counters().BytesAcked - acked; n > 100_000 {
				t.Errorf("the peer's acknowledged bytes grew by %d", n)
			}
			w.a.c.SetRepair(w.now, mode)
			if !w.run(time.Minute, func() bool {
				push()
				return len(out)+len(back) == 0 && w.a.c.Unacked()+w.b.c.Unacked() == 0
			}) {
				t.Fatalf("not done: %+v\n%+v", w.a.c.Info(w.now), w.b.c.Info(w.now))
			}
			push()
			w.same(w.a)
			w.same(w.b)
		})
	}
}

func TestThawProbes(t *testing.T) {
	for _, tc := range []struct {
		mode repair.Mode
		want int
	}{{repair.Off, 1}, {repair.OffNoProbe, 0}} {
		w := established(t)
		w.run(time.Second, nil)
		w.a.c.SetRepair(w.now, repair.On)
		w.a.c.SetRepair(w.now, tc.mode)
		var got []Segment
		w.wiretap = func(from *host, s *Segment) {
			if from == w.a {
				got = append(got, *s)
			}
		}
		w.run(time.Second, nil)
		if len(got) != tc.want {
			t.Fatalf("%s: %d segments, want %d", tc.mode, len(got), tc.want)
		}
		for _, s := range got {
			if s.Seq != w.a.c.snd.una-1 || s.Flags != header.TCPFlagAck || s.Len() != 0 {
				t.Errorf("probe is %s; want a bare ACK from SND.UNA-1 = %d", s.String(), w.a.c.snd.una-1)
			}
		}
	}
}

// Timers that were pending keep what they had left.
func TestThawedTimersKeepTheirTime(t *testing.T) {
	w := established(t)
	w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
	w.a.write(w, []byte("lost"))
	w.settle(w.a)
	w.run(100*time.Millisecond, nil)
	left := w.a.c.timers.at(timerRTO).Sub(w.now)
	w.a.c.SetRepair(w.now, repair.On)
	w.run(time.Hour, nil)
	w.a.c.SetRepair(w.now, repair.OffNoProbe)
	if got := w.a.c.timers.at(timerRTO).Sub(w.now); got != left || left <= 0 {
		t.Errorf("the retransmission timer has %v left, had %v when frozen", got, left)
	}
	w.fate = nil
	w.run(time.Second, nil)
	w.b.read(w)
	w.same(w.a)
	if rtt := w.a.c.Info(w.now).RTT; rtt > 100*time.Millisecond {
		t.Errorf("round trip %v: the freeze was measured", rtt)
	}
}

func TestRepairModeErrors(t *testing.T) {
	w := established(t)
	if err := w.a.c.SetRepair(w.now, repair.Mode(7)); err != ErrInvalid {
		t.Errorf("mode 7: %v", err)
	}
	if _, err := w.a.c.QueueSeq(repair.NoQueue); err != ErrInvalid {
		t.Errorf("no queue: %v", err)
	}
	w.a.c.SetRepair(w.now, repair.On)
	if err := w.a.c.Shutdown(w.now, true, true); err != ErrFrozen {
		t.Errorf("shutdown while frozen: %v", err)
	}
	// Closing a frozen connection drops it without a word to the peer.
	sent := w.a.sent
	w.a.c.Close(w.now)
	w.run(time.Second, nil)
	if w.a.c.State() != StateClosed || w.a.sent != sent || w.a.c.Err() != ErrAborted {
		t.Errorf("closed frozen: %s, %d packets, %v", w.a.c.State(), w.a.sent-sent, w.a.c.Err())
	}
}

// The fast path is not taken while frozen, and is again after.
func TestPredictionWord(t *testing.T) {
	w := established(t)
	w.pump(w.b, noise(100_000, 1), time.Minute)
	c := &w.a.c
	if c.predicted == 0 {
		t.Fatal("no prediction on a connection in full flow")
	}
	word := c.predicted
	c.SetRepair(w.now, repair.On)
	if c.predicted != 0 {
		t.Errorf("prediction word %#x while frozen", c.predicted)
	}
	c.SetRepair(w.now, repair.OffNoProbe)
	if c.predicted != word {
		t.Errorf("prediction word %#x after the thaw, was %#x", c.predicted, word)
	}
	hole := Segment{Seq: c.rcv.nxt.Add(100), Ack: c.snd.una, Flags: header.TCPFlagAck, Window: c.snd.raw, Payload: payload(noise(50, 2))}
	c.Input(w.now, &hole)
	if c.predicted != 0 {
		t.Error("a hole in the received data does not clear the prediction word")
	}
	var none Segment
	if none.word() == 0 || (&Segment{Seq: seqnum.Value(1)}).word() == 0 {
		t.Error("a segment's word can be zero")
	}
}

// The acknowledgement of what was sent before a freeze tells nothing about the
// round trip: part of it went by while time stood still.
func TestThawTakesNoSample(t *testing.T) {
	w := established(t, func(a, b *Config) { a.Timestamps = false })
	w.pump(w.a, noise(100_000, 1), time.Minute)
	least := w.a.c.rtt.min
	w.a.write(w, noise(10_000, 2))
	w.settle(w.a)
	w.a.c.SetRepair(w.now, repair.On)
	w.run(w.delay*2-time.Millisecond, nil) // the data arrives, and its acknowledgement almost
	w.a.c.SetRepair(w.now, repair.OffNoProbe)
	w.run(time.Second, func() bool { w.b.read(w); return w.a.c.Unacked() == 0 })
	if w.a.c.Unacked() != 0 {
		t.Fatal("not acknowledged")
	}
	if w.a.c.rtt.min != least {
		t.Errorf("least round trip %v, was %v", w.a.c.rtt.min, least)
	}
}
