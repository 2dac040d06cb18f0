package tcp_test

import (
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// Every call there is at once on many endpoints, for the race detector; and the
// data is whole whatever else is done.
func TestCallsAtOnce(t *testing.T) {
	loop := alone(t)
	wires := pair(t)
	for _, s := range []*stack.Stack{loop, wires[0], wires[1]} {
		tcp.SetTuning(s, tcp.Tuning{ECN: tcp.ECNOn})
	}
	for round := range 2 {
		host, srv, client := 0, loop, loop
		if round%2 == 1 {
			host, srv, client = 1, wires[1], wires[0]
		}
		l := listen(t, srv, families[round%2], host, uint16(100+round))
		var wg sync.WaitGroup
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { io.Copy(c, c); c.Close() }()
			}
		}()
		stop := make(chan struct{})
		for g := range 3 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(g)))
				for {
					select {
					case <-stop:
						return
					default:
					}
					for _, s := range []*stack.Stack{srv, client} {
						for _, e := range tcp.Endpoints(s) {
							switch r.IntN(12) {
							case 0:
								e.SetRepair(repair.On)
								e.QueueSeq(repair.SendQueue)
								e.SetRepair(repair.Off)
							case 1:
								e.SocketOptions().SetDelayOption(r.IntN(2) == 0)
							case 2:
								e.SocketOptions().SetCorkOption(r.IntN(2) == 0)
								e.SocketOptions().SetCorkOption(false)
							case 3:
								e.SocketOptions().SetReceiveBufferSize(int64(16<<10+r.IntN(1<<20)), true)
							case 4:
								e.SocketOptions().SetSendBufferSize(int64(16<<10+r.IntN(1<<20)), true)
							case 5:
								e.ConnInfo()
								e.Drops()
							case 6:
								var o tcpip.TCPInfoOption
								e.GetSockOpt(&o)
							case 7:
								e.GetLocalAddress()
								e.GetRemoteAddress()
								e.Readiness(waiter.AllEvents)
							case 8:
								e.SetSockOptInt(tcpip.MaxSegOption, 500+r.IntN(900))
							case 9:
								v := tcpip.CongestionControlOption([]string{"reno", "cubic"}[r.IntN(2)])
								e.SetSockOpt(&v)
							case 10:
								e.SocketOptions().SetKeepAlive(r.IntN(2) == 0)
							case 11:
								e.SetSockOptInt(tcpip.TCPWindowClampOption, 20_000+r.IntN(100_000))
							}
						}
					}
				}
			})
		}
		var users sync.WaitGroup
		for range 12 {
			users.Go(func() {
				c := dial(t, client, families[round%2], host, uint16(100+round))
				defer c.Close()
				const size = 300_000
				go func() {
					io.CopyN(c, &pattern{}, size)
				}()
				if err := check(c, size); err != nil {
					t.Error(err)
				}
			})
		}
		done := make(chan struct{})
		go func() { users.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(40 * time.Second):
			for _, s := range []*stack.Stack{srv, client} {
				for _, e := range tcp.Endpoints(s) {
					t.Logf("%s %+v", e.EndpointState(), e.ConnInfo())
				}
			}
			t.Error("hangs")
		}
		close(stop)
		wg.Wait()
		l.Close()
		if t.Failed() {
			return
		}
	}
}
