package netsim_test

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/tcprepair/ustack/internal/netlab/impair"
	"github.com/tcprepair/ustack/internal/netsim"
	"github.com/tcprepair/ustack/stack/tcp"
)

const ms = time.Millisecond

// transfer sends limit bytes over a link and returns a digest of every packet,
// when it was sent and when it arrived, and how long it took.
func transfer(t *testing.T, seed uint64, cfg netsim.Config, limit int64) (digest string, took time.Duration) {
	t.Helper()
	n := netsim.New(seed)
	defer n.Close()
	a, b := n.NewHost(tcp.NewProtocolCUBIC), n.NewHost(tcp.NewProtocolCUBIC)
	l, err := n.Connect(a, b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	l.Tap = func(p netsim.Packet) {
		fmt.Fprintln(h, p.Sent, p.AB, p.Cause, p.Arrives)
		h.Write(p.Bytes)
	}
	f, err := n.StartBulk(l, a, b, 5001, limit)
	if err != nil {
		t.Fatal(err)
	}
	if !n.RunUntil(time.Hour, func() bool { return f.Done() || f.Err() != nil }) || f.Err() != nil {
		t.Fatalf("seed %d: %d bytes of %d after %v: %v", seed, f.Received(), limit, n.Now(), f.Err())
	}
	return fmt.Sprintf("%x", h.Sum(nil)), n.Now()
}

func TestQuick(t *testing.T) {
	start := time.Now()
	_, took := transfer(t, 1, netsim.Both(impair.Config{Rate: 10e6, Delay: 10 * ms, Queue: 25000}), 10e6/8*58)
	t.Log(took, time.Since(start))
}
