package cc

import (
	"maps"
	"math"
	"testing"
	"time"
	"unsafe"
)

func TestNew(t *testing.T) {
	if _, err := New("vegas", mss); err == nil || err.Error() != `unknown congestion control "vegas"` {
		t.Errorf("error %v", err)
	}
	if _, err := Restore(State{Name: "vegas"}, 0, mss); err == nil {
		t.Error("Restore took an unknown name")
	}
	for _, name := range Names() {
		c, err := New(name, mss)
		if err != nil || c.Name() != name {
			t.Errorf("New(%q): %v, %v", name, c, err)
		}
	}
	c, err := New("", mss)
	if err != nil || c.Name() != Default {
		t.Errorf("New(\"\"): %v, %v", c, err)
	}
}

func TestInitialWindow(t *testing.T) {
	for _, tt := range []struct {
		mss  int
		want int64
	}{{1460, 14600}, {536, 5360}, {1500, 14600}, {4000, 14600}, {8960, 17920}} {
		if got := InitialWindow(tt.mss); got != tt.want {
			t.Errorf("InitialWindow(%d) = %d, want %d", tt.mss, got, tt.want)
		}
	}
}

// Thousands of connections hold one each.
func TestSize(t *testing.T) {
	if n := unsafe.Sizeof(cubic{}); n > 48 {
		t.Errorf("a CUBIC controller takes %d bytes", n)
	}
	if n := unsafe.Sizeof(reno{}); n > 64 {
		t.Errorf("a Reno controller takes %d bytes", n)
	}
}

// What a state lacks is what a new connection has.
func TestRestoreNothing(t *testing.T) {
	for _, name := range Names() {
		c, err := Restore(State{Name: name}, 5, mss)
		if err != nil {
			t.Fatal(err)
		}
		if c.Window() != InitialWindow(mss) || c.Threshold() != Unlimited {
			t.Errorf("%s: window %d, threshold %d", name, c.Window(), c.Threshold())
		}
		before := c.Window()
		c.Undo(6)
		if c.Window() != before {
			t.Errorf("%s: took back what never happened", name)
		}
	}
}

// Only what there is to say is said.
func TestStateIsSmall(t *testing.T) {
	for _, name := range Names() {
		c, err := New(name, mss)
		if err != nil {
			t.Fatal(err)
		}
		s := c.State()
		if s.Name != name || s.Window != 10*mss || s.Threshold != 0 || len(s.Extra) != 0 {
			t.Errorf("a new controller's state: %+v", s)
		}
	}
}

// Every value that a state can hold may be nonsense.
func TestRestoreNonsense(t *testing.T) {
	values := []int64{math.MinInt64, -1, 0, 1, 1 << 31, maxWindow + 1, math.MaxInt64}
	for _, name := range Names() {
		keys := allKeys(t, name)
		for _, v := range values {
			for _, m := range []int{math.MinInt, 0, 1, mss, math.MaxInt} {
				s := State{Name: name, Window: v, Threshold: v, Extra: map[string]int64{"unknown": v}}
				for k := range keys {
					s.Extra[k] = v
				}
				c, err := Restore(s, v, m)
				if err != nil {
					t.Fatal(err)
				}
				exercise(t, c, v, m)
			}
		}
	}
}

// allKeys is a state of a controller that has something to say of everything.
func allKeys(t *testing.T, name string) map[string]int64 {
	t.Helper()
	keys := map[string]int64{}
	f := newFlow(t, name, 50*time.Millisecond, 10)
	rounds(2)(f)
	f.rtt = 80 * time.Millisecond
	f.round()
	maps.Copy(keys, f.State().Extra) // In CSS.
	f.signal(Loss)
	rounds(5)(f)
	f.signal(Loss)
	rounds(5)(f)
	f.ack(1, false)
	maps.Copy(keys, f.State().Extra)
	want := map[string]int{"reno": 3, "cubic": 19}[name]
	if len(keys) != want {
		t.Fatalf("%s: %d keys, want %d: %v", name, len(keys), want, keys)
	}
	return keys
}

// exercise calls everything and checks the bounds.
func exercise(t *testing.T, c Controller, now int64, m int) {
	t.Helper()
	checkBounds(t, c, m)
	for i := range 5 {
		for _, n := range []int64{math.MinInt64, 0, 1, mss, math.MaxInt64} {
			for _, d := range []time.Duration{math.MinInt64, 0, 1, math.MaxInt64} {
				c.OnAck(Ack{Now: now + n, Acked: n, Flight: n, MSS: m, RTT: d, SRTT: d, NewRound: i == 0})
				checkBounds(t, c, m)
			}
		}
		c.OnIdle(now, math.MaxInt64, 1, m)
		checkBounds(t, c, m)
		c.Undo(now)
		checkBounds(t, c, m)
		c.OnCongestion(Congestion{Now: now, Signal: Signal(i), Flight: now, MSS: m})
		checkBounds(t, c, m)
	}
}

// checkBounds takes rapid's T too.
func checkBounds(t interface {
	Helper()
	Fatalf(string, ...any)
}, c Controller, m int) {
	t.Helper()
	least := int64(min(max(m, 1), 65535))
	if w := c.Window(); w < least || w > 1<<30 {
		t.Fatalf("window %d, MSS %d", w, m)
	}
	if th := c.Threshold(); th != Unlimited && (th < 2*least || th > 1<<30) {
		t.Fatalf("threshold %d, MSS %d", th, m)
	}
}

// Fault 13 of other stacks: the window overflows. Near the largest nothing does, and
// growth stops at the bound.
func TestLargestWindow(t *testing.T) {
	for _, name := range Names() {
		for _, threshold := range []int64{0, maxWindow - 100*mss} {
			c, err := Restore(State{Name: name, Window: maxWindow - mss, Threshold: threshold}, 0, mss)
			if err != nil {
				t.Fatal(err)
			}
			f := &flow{Controller: c, rtt: time.Millisecond, mss: 65535, acks: 3}
			for range 100 {
				f.round()
				checkBounds(t, c, f.mss)
			}
			if c.Window() != maxWindow {
				t.Errorf("%s, threshold %d: window %d, want the bound", name, threshold, c.Window())
			}
			f.signal(Loss)
			if w := c.Window(); w < maxWindow/2 || w > maxWindow*7/10 {
				t.Errorf("%s: window %d after a loss at the bound", name, w)
			}
		}
	}
}
