//go:build unix

package tcp_test

import (
	"bytes"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// idleConns is how many connections the figures of a move are the average of.
const idleConns = 10_000

// idle makes connections that have been used and are at rest, by setting a
// snapshot of a real one down again and again. They are on the first of two
// stacks with the same address, whose links go nowhere.
func idle(tb testing.TB, n int) (places [2]*tcp.RepairFactory, list []repair.Socket) {
	tb.Helper()
	s := pair(tb)
	client, server := connect(tb, s, families[0], 80)
	transfer(tb, client, server, 100_000)
	transfer(tb, server, client, 100_000)
	at := endpointOf(tb, s[1], server)
	for at.ConnInfo().Unacked > 0 {
		runtime.Gosched()
	}
	model, err := repair.Checkpoint(at.Repair())
	if err != nil {
		tb.Fatal(err)
	}
	for i := range places {
		target := newStack(tb, channel.New(1, 1500, ""), 1, nil)
		tb.Cleanup(target.Destroy)
		// The connections go to and fro; no tombstone is to wait for them.
		if err := tcp.SetTuning(target, tcp.Tuning{Tombstone: -1}); err != nil {
			tb.Fatal(err)
		}
		places[i] = &tcp.RepairFactory{Stack: target}
	}
	for i := range n {
		model.Remote = netip.AddrPortFrom(model.Remote.Addr(), uint16(2000+i))
		sock, err := places[0].Restore(model)
		if err != nil {
			tb.Fatal(err)
		}
		list = append(list, sock)
	}
	return places, list
}

// BenchmarkMove reads idle connections out, one by one, and sets each down on
// another stack, in memory. Closing the origins, afterwards, is not counted.
func BenchmarkMove(b *testing.B) {
	b.Run("route=looked-up", func(b *testing.B) { benchmarkMove(b, func(*tcp.RepairFactory) {}) })
	b.Run("route=given", func(b *testing.B) {
		benchmarkMove(b, func(f *tcp.RepairFactory) {
			var known *stack.Route
			f.Route = func(local, remote tcpip.Address) (*stack.Route, tcpip.Error) {
				if known == nil {
					r, err := f.Stack.FindRoute(f.NIC, local, remote, header.IPv4ProtocolNumber, false)
					if err != nil {
						return nil, err
					}
					known = r
					b.Cleanup(known.Release)
				}
				known.Acquire()
				return known, nil
			}
		})
	})
}

func benchmarkMove(b *testing.B, prepare func(*tcp.RepairFactory)) {
	places, list := idle(b, idleConns)
	for _, f := range places {
		prepare(f)
	}
	origins := make([]repair.Socket, len(list))
	var cpu time.Duration
	b.ReportAllocs()
	for b.Loop() {
		begun := cpuTime(b)
		for i, s := range list {
			snap, err := repair.Checkpoint(s)
			if err != nil {
				b.Fatal(err)
			}
			if list[i], err = repair.Restore(places[1], snap); err != nil {
				b.Fatal(err)
			}
			origins[i] = s
			snap.Release()
		}
		cpu += cpuTime(b) - begun
		b.StopTimer()
		for i, s := range origins {
			s.Close()
			origins[i] = nil
		}
		places[0], places[1] = places[1], places[0]
		b.StartTimer()
	}
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/idleConns, "cpu-ns/conn")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/idleConns, "ns/conn")
}

// cpuTime is what the process has used so far: on a machine with other work it
// says more than the clock.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A connection at rest takes little room on the wire: each of many.
func TestIdleSnapshotIsSmall(t *testing.T) {
	const most = 400 // bytes
	_, list := idle(t, idleConns)
	total := 0
	for _, s := range list {
		snap, err := repair.Checkpoint(s)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := snap.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		total += b.Len()
		if b.Len() > most {
			t.Fatalf("%d bytes, want at most %d", b.Len(), most)
		}
		back, err := repair.Read(&b, repair.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if back.Extra == nil || back.Extra.ISS != snap.Extra.ISS {
			t.Fatal("not what was written")
		}
	}
	t.Logf("%d bytes on average", total/len(list))
}
