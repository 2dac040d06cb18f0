package cc

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// event is one call of a Controller, with times relative to the clock.
type event struct {
	ack      *Ack
	signal   *Congestion
	idle     time.Duration
	rto      time.Duration
	undo     bool
	after    int64 // nanoseconds since the event before
	snapshot bool  // carry the controller to another clock first
}

func drawEvent(t *rapid.T, m int) event {
	e := event{after: drawTime(t, "after"), snapshot: rapid.IntRange(0, 7).Draw(t, "snapshot") == 0}
	switch rapid.IntRange(0, 11).Draw(t, "kind") {
	case 0:
		e.signal = &Congestion{
			Signal: rapid.SampledFrom([]Signal{Loss, ECN, Timeout}).Draw(t, "signal"),
			Flight: drawBytes(t, "flight"), MSS: m,
		}
	case 1:
		e.undo = true
	case 2:
		e.idle, e.rto = time.Duration(drawTime(t, "idle")), time.Duration(drawTime(t, "rto"))
	default:
		e.ack = &Ack{
			Acked: drawBytes(t, "acked"), Flight: drawBytes(t, "flight"), MSS: m,
			RTT: time.Duration(drawTime(t, "rtt")), SRTT: time.Duration(drawTime(t, "srtt")),
			NewRound:   rapid.IntRange(0, 9).Draw(t, "round") == 0,
			AppLimited: rapid.IntRange(0, 9).Draw(t, "limited") == 0,
		}
	}
	return e
}

// drawTime favours what a network has but goes to the extremes.
func drawTime(t *rapid.T, label string) int64 {
	return rapid.OneOf(
		rapid.Int64Range(0, int64(time.Second)),
		rapid.SampledFrom([]int64{0, 1, int64(time.Hour), 1 << 52}),
	).Draw(t, label)
}

func drawBytes(t *rapid.T, label string) int64 {
	return rapid.OneOf(
		rapid.Int64Range(0, 100*mss),
		rapid.SampledFrom([]int64{-1 << 63, -1, 0, 1, 1 << 30, 1<<63 - 1}),
	).Draw(t, label)
}

// do makes the call, with now the caller's clock.
func (e event) do(c Controller, now int64, m int) {
	switch {
	case e.ack != nil:
		a := *e.ack
		a.Now = now
		c.OnAck(a)
	case e.signal != nil:
		s := *e.signal
		s.Now = now
		c.OnCongestion(s)
	case e.undo:
		c.Undo(now)
	default:
		c.OnIdle(now, e.idle, e.rto, m)
	}
}

// Whatever happens, in whatever order: the window is within its bounds, an
// acknowledgement does not shrink it and an application-limited one does not
// change it, congestion obeys the contract, and Undo brings back what was.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.SampledFrom([]int{1, 536, mss, 8960, 65535}).Draw(t, "mss")
		c, err := New(rapid.SampledFrom(Names()).Draw(t, "name"), m)
		if err != nil {
			t.Fatal(err)
		}
		now := drawTime(t, "start")
		var before State // what the latest OnCongestion replaced
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			e := drawEvent(t, m)
			now += e.after
			was := c.State()
			e.do(c, now, m)
			checkBounds(t, c, m)
			is := c.State()
			switch {
			case e.ack != nil:
				if is.Window < was.Window || e.ack.AppLimited && is.Window != was.Window {
					t.Fatalf("window %d became %d on %+v", was.Window, is.Window, *e.ack)
				}
			case e.signal != nil:
				before = was
				want := c.Threshold()
				if e.signal.Signal == Timeout {
					want = int64(m)
				}
				if c.Window() != want {
					t.Fatalf("window %d, want %d after signal %d", c.Window(), want, e.signal.Signal)
				}
			case e.undo && before.Name != "":
				if want := max(before.Window, was.Window); is.Window != want || is.Threshold != before.Threshold {
					t.Fatalf("undone to window %d, threshold %d; want %d, %d", is.Window, is.Threshold, want, before.Threshold)
				}
				before = State{}
			case e.undo:
				if is.Window != was.Window || is.Threshold != was.Threshold {
					t.Fatal("undid what was not there")
				}
			default:
				if is.Window > was.Window || is.Window < min(was.Window, InitialWindow(m)) {
					t.Fatalf("idle took the window from %d to %d", was.Window, is.Window)
				}
			}
		}
	})
}

// A controller that is carried to other clocks again and again does exactly
// what one does that stays.
func TestRestoreGoesOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(Names()).Draw(t, "name")
		stays, err := New(name, mss)
		if err != nil {
			t.Fatal(err)
		}
		moves, err := New(name, mss)
		if err != nil {
			t.Fatal(err)
		}
		var here, there int64
		var unseen int64 // time since the last call that did anything
		for i := range rapid.IntRange(1, 60).Draw(t, "events") {
			e := drawEvent(t, mss)
			if e.snapshot {
				there = rapid.Int64Range(-1<<40, 1<<62).Draw(t, "other clock")
				if moves, err = Restore(moves.State(), there-unseen, mss); err != nil {
					t.Fatal(err)
				}
			}
			here += e.after
			there += e.after
			if _, ok := stays.State().Extra[keyUndoWindow]; e.undo && !ok {
				unseen += e.after
			} else {
				unseen = 0
			}
			e.do(stays, here, mss)
			e.do(moves, there, mss)
			if a, b := fmt.Sprint(stays.State()), fmt.Sprint(moves.State()); a != b {
				t.Fatalf("event %d: stayed %s, moved %s", i, a, b)
			}
		}
	})
}
