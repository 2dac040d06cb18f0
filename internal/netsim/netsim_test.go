package netsim_test

import (
	"crypto/sha256"
	"fmt"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/tcprepair/ustack/internal/netlab/impair"
	"github.com/tcprepair/ustack/internal/netsim"
	"github.com/tcprepair/ustack/stack/tcp"
)

const ms = time.Millisecond

// pair makes two hosts with our TCP on a link.
func pair(t *testing.T, seed uint64, cfg netsim.Config) (n *netsim.Net, l *netsim.Link, a, b *netsim.Host) {
	t.Helper()
	n = netsim.New(seed)
	t.Cleanup(n.Close)
	a, b = n.NewHost(tcp.NewProtocolCUBIC), n.NewHost(tcp.NewProtocolCUBIC)
	l, err := n.Connect(a, b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n, l, a, b
}

// transfer sends limit bytes from a to b and returns how long it took.
func transfer(t *testing.T, n *netsim.Net, l *netsim.Link, a, b *netsim.Host, limit int64) time.Duration {
	t.Helper()
	begun := n.Now()
	f, err := n.StartBulk(l, a, b, 5001, limit)
	if err != nil {
		t.Fatal(err)
	}
	if !n.RunUntil(time.Hour, func() bool { return f.Done() || f.Err() != nil }) || f.Err() != nil {
		t.Fatalf("%d bytes of %d after %v: %v", f.Received(), limit, n.Now()-begun, f.Err())
	}
	if f.Received() != limit {
		t.Fatalf("%d bytes received, %d sent", f.Received(), limit)
	}
	return n.Now() - begun
}

// awful is a link that has everything.
var awful = netsim.Both(impair.Config{
	Rate: 20e6, Queue: 40_000, Delay: 15 * ms, Jitter: 2 * ms, Loss: 0.02, BurstLength: 3,
	Reorder: 0.02, ReorderBy: 3 * ms, Duplicate: 0.02, Corrupt: 0.01,
})

// The same seed gives the same packets, byte for byte, at the same times.
func TestSameSeedSameBytes(t *testing.T) {
	run := func(seed uint64) string {
		n, l, a, b := pair(t, seed, awful)
		h := sha256.New()
		l.Tap = func(p netsim.Packet) {
			fmt.Fprintln(h, p.Sent, p.AB, p.Cause, p.Arrives)
			h.Write(p.Bytes)
		}
		transfer(t, n, l, a, b, 2<<20)
		return fmt.Sprintf("%x", h.Sum(nil))
	}
	want := run(1)
	for range 5 {
		if got := run(1); got != want {
			t.Fatalf("another run with seed 1 differs: %s, %s", got, want)
		}
	}
	if run(2) == want {
		t.Error("another seed gave the same packets")
	}
}

// Whatever the link does, the stream arrives whole; the Bulk compares it.
func TestStreamSurvives(t *testing.T) {
	for seed := range uint64(20) {
		n, l, a, b := pair(t, seed, awful)
		took := transfer(t, n, l, a, b, 1<<20)
		if seed == 0 {
			t.Logf("seed 0: %v", took)
		}
	}
}

func TestRateAndDelay(t *testing.T) {
	n, l, a, b := pair(t, 1, netsim.Both(impair.Config{Rate: 10e6, Delay: 10 * ms, Queue: 1 << 20}))
	var first time.Duration
	l.Tap = func(p netsim.Packet) {
		if first == 0 {
			first = p.Arrives[0].At
		}
	}
	const size = 5 << 20
	took := transfer(t, n, l, a, b, size)
	// A SYN of 60 bytes takes 48 us at this rate.
	if want := 10*ms + 48*time.Microsecond; first != want {
		t.Errorf("the SYN arrives at %v, want %v", first, want)
	}
	least := time.Duration(size * 1500 / 1448 * 8 / 10e6 * float64(time.Second))
	if took < least || took > least+200*ms {
		t.Errorf("took %v, want %v and some round trips", took, least)
	}
}

func TestLossIsCounted(t *testing.T) {
	n, l, a, b := pair(t, 1, netsim.Both(impair.Config{Rate: 50e6, Delay: ms, Loss: 0.05, Queue: 1 << 20}))
	sent, lost, full := 0, 0, 0
	l.Tap = func(p netsim.Packet) {
		sent++
		switch p.Cause {
		case impair.Lost:
			lost++
		case impair.QueueFull:
			full++
		}
	}
	transfer(t, n, l, a, b, 10<<20)
	if share := float64(lost) / float64(sent); math.Abs(share-0.05) > 0.01 {
		t.Errorf("%d of %d packets lost, want 5%%", lost, sent)
	}
	if full > 0 {
		t.Errorf("%d packets found a queue of a megabyte full", full)
	}
}

func TestBlackout(t *testing.T) {
	n, l, a, b := pair(t, 1, netsim.Both(impair.Config{Rate: 10e6, Delay: 10 * ms, Queue: 25_000}))
	f, err := n.StartBulk(l, a, b, 5001, netsim.Endless)
	if err != nil {
		t.Fatal(err)
	}
	n.Run(2 * time.Second)
	l.Blackout(time.Second)
	n.Run(100 * ms) // what is under way arrives
	had := f.Received()
	n.Run(900*ms - 1)
	if f.Received() != had {
		t.Errorf("%d bytes got through the blackout", f.Received()-had)
	}
	n.Run(2 * time.Second)
	if f.Received() == had || f.Err() != nil {
		t.Errorf("nothing came after the blackout: %v", f.Err())
	}
}

func TestMTU(t *testing.T) {
	cfg := netsim.Both(impair.Config{Rate: 10e6, Delay: ms})
	cfg.MTU = 600
	n, l, a, b := pair(t, 1, cfg)
	largest := 0
	l.Tap = func(p netsim.Packet) { largest = max(largest, len(p.Bytes)) }
	transfer(t, n, l, a, b, 100_000)
	if largest != 600 {
		t.Errorf("the largest packet is %d bytes, want 600", largest)
	}
	if err := l.SetMTU(40); err == nil {
		t.Error("an MTU of 40 was taken")
	}
	lost := false
	l.Tap = func(p netsim.Packet) { lost = lost || len(p.Bytes) > 500 && p.Cause == impair.Lost }
	if err := l.SetMTU(500); err != nil {
		t.Fatal(err)
	}
	if _, err := n.StartBulk(l, a, b, 5002, 100_000); err != nil {
		t.Fatal(err)
	}
	n.Run(time.Second)
	if !lost {
		t.Error("a packet larger than the link's MTU passed, or none was sent")
	}
}

func TestConfigIsChecked(t *testing.T) {
	n := netsim.New(1)
	defer n.Close()
	a, b := n.NewHost(tcp.NewProtocol), n.NewHost(tcp.NewProtocol)
	for _, cfg := range []netsim.Config{
		{MTU: 67},
		{MTU: 1 << 16},
		{AB: impair.Config{Loss: 2}},
		{BA: impair.Config{Rate: -1}},
	} {
		if _, err := n.Connect(a, b, cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
	l, err := n.Connect(a, b, netsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Set(impair.Config{}, impair.Config{Jitter: -1}); err == nil {
		t.Error("a negative jitter was taken")
	}
}

// Several links at a host are told apart by their addresses.
func TestThreeHosts(t *testing.T) {
	n := netsim.New(1)
	defer n.Close()
	mid := n.NewHost(tcp.NewProtocol)
	for range 2 {
		h := n.NewHost(tcp.NewProtocol)
		l, err := n.Connect(h, mid, netsim.Both(impair.Config{Rate: 10e6, Delay: ms}))
		if err != nil {
			t.Fatal(err)
		}
		transfer(t, n, l, h, mid, 100_000)
	}
}

// Nothing is left running: neither our stacks nor the simulation have
// goroutines.
func TestNothingIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	for seed := range uint64(10) {
		n, l, a, b := pair(t, seed, netsim.Both(impair.Config{Rate: 10e6, Delay: ms}))
		if _, err := n.StartBulk(l, a, b, 5001, netsim.Endless); err != nil {
			t.Fatal(err)
		}
		n.Run(100 * ms)
		n.Close()
	}
	// One that is on its way out needs a turn to get there.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); runtime.Gosched() {
		if runtime.NumGoroutine() <= before {
			return
		}
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}
