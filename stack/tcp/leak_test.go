package tcp_test

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/refs"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// leakless runs f with gVisor's reference checking on, and fails if a
// reference is left, or a goroutine.
func leakless(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	before := runtime.NumGoroutine()
	was := refs.GetLeakMode()
	refs.SetLeakMode(refs.LeaksPanic)
	defer refs.SetLeakMode(was)
	t.Run("run", f)
	defer func() {
		if r := recover(); r != nil {
			s := fmt.Sprint(r)
			if len(s) > 600 {
				s = s[:600]
			}
			t.Error(s)
		}
	}()
	var n int
	for range 100 {
		if n = runtime.NumGoroutine(); n <= before {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n > before {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines left\n%s", n-before, buf[:runtime.Stack(buf, true)])
	}
	refs.DoRepeatedLeakCheck()
}

func wireTo(t testing.TB) *wire { return newWire(t) }

func TestLeakPaths(t *testing.T) {
	type tc struct {
		name string
		f    func(t *testing.T)
	}
	pairT := func(t *testing.T) [2]*stack.Stack { return pair(t) }
	for _, c := range []tc{
		{"transfer and close", func(t *testing.T) {
			s := pairT(t)
			a, b := connect(t, s, families[0], 7)
			transfer(t, a, b, 300_000)
			a.Close()
			b.Close()
		}},
		{"unread data at the end", func(t *testing.T) {
			s := pairT(t)
			a, b := connect(t, s, families[0], 7)
			a.Write(make([]byte, 100_000))
			b.Close()
			time.Sleep(20 * time.Millisecond)
			a.Close()
		}},
		{"stack goes with everything open", func(t *testing.T) {
			s := pairT(t)
			a, _ := connect(t, s, families[0], 7)
			go a.Write(make([]byte, 3_000_000))
			time.Sleep(20 * time.Millisecond)
		}},
		{"refused", func(t *testing.T) {
			s := pairT(t)
			tryDial(s[0], families[0], 9, time.Second)
		}},
		{"black hole", func(t *testing.T) {
			w := newWire(t)
			ep := newEndpoint(t, w.stack, families[0], new(waiter.Queue))
			ep.Connect(tcpip.FullAddress{Addr: addr4[1], Port: 80})
			w.clock.Advance(10 * time.Minute)
			w.link.Drain()
			ep.Close()
		}},
		{"frozen", func(t *testing.T) {
			w := newWire(t)
			ep, iss := w.open()
			w.inject(segment{seq: peerISN + 1, ack: iss, flags: header.TCPFlagAck, window: 65535, payload: "hello"}, nil)
			ep.SetRepair(repair.On)
			w.inject(segment{seq: peerISN + 6, ack: iss, flags: header.TCPFlagAck, window: 65535, payload: "hello"}, nil)
			w.link.Drain()
		}},
		{"embryos", func(t *testing.T) {
			w := newWire(t)
			l, _ := listenEndpoint(t, w.stack, families[0], 0, 7, 100)
			for i := range 50 {
				w.ports[1] = uint16(3000 + i)
				w.inject(segment{seq: 1, flags: header.TCPFlagSyn, window: 100, payload: "data"}, nil)
				sa := w.want(header.TCPFlagSyn | header.TCPFlagAck)
				switch i % 5 {
				case 0:
					w.inject(segment{seq: 2, flags: header.TCPFlagRst}, nil)
				case 1:
					w.inject(segment{seq: 2, ack: sa.seq + 1, flags: header.TCPFlagAck, payload: "x", window: 100}, nil)
				case 2:
					w.inject(segment{seq: 2, ack: sa.seq + 1, flags: header.TCPFlagAck, payload: "x", window: 100}, nil)
					w.inject(segment{seq: 3, flags: header.TCPFlagRst}, nil)
				case 3:
					w.inject(segment{seq: 10, ack: sa.seq + 1, flags: header.TCPFlagAck, payload: "out of order", window: 100}, nil)
				}
				w.link.Drain()
			}
			l.Close()
			w.link.Drain()
		}},
		{"embryos die", func(t *testing.T) {
			w := newWire(t)
			l, _ := listenEndpoint(t, w.stack, families[0], 0, 7, 11)
			for round := range 3 {
				for i := range 10 {
					w.ports[1] = uint16(3000 + 100*round + i)
					w.inject(segment{seq: 1, flags: header.TCPFlagSyn, window: 100}, nil)
					w.want(header.TCPFlagSyn | header.TCPFlagAck)
				}
				w.clock.Advance(5 * time.Minute)
				w.link.Drain()
			}
			if n := len(conns(w.stack)); n != 0 {
				t.Errorf("%d embryos left", n)
			}
			_ = l
		}},
		{"forwarder", func(t *testing.T) {
			s := pairT(t)
			fwd := tcp.NewForwarder(s[1], 0, 100, func(r *tcp.ForwarderRequest) {
				switch r.ID().LocalPort % 3 {
				case 0:
					r.Complete(true)
				case 1:
					ep, err := r.CreateEndpoint(new(waiter.Queue))
					r.Complete(false)
					if err == nil {
						ep.Close()
					}
				case 2:
					ep, err := r.CreateEndpoint(new(waiter.Queue))
					r.Complete(false)
					if err == nil {
						ep.Abort()
					}
				}
			})
			s[1].SetTransportProtocolHandler(tcp.ProtocolNumber, fwd.HandlePacket)
			for i := range 30 {
				c, err := tryDial(s[0], families[0], uint16(100+i), time.Second)
				if err == nil {
					c.Write([]byte("xyz"))
					c.Close()
				}
			}
		}},
		{"forwarder, RST right after SYN-ACK", func(t *testing.T) {
			w := newWire(t)
			done := make(chan error, 100)
			fwd := tcp.NewForwarder(w.stack, 0, 100, func(r *tcp.ForwarderRequest) {
				ep, err := r.CreateEndpoint(new(waiter.Queue))
				r.Complete(false)
				if err == nil {
					ep.Close()
					done <- nil
					return
				}
				done <- fmt.Errorf("%s", err)
			})
			w.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, fwd.HandlePacket)
			for i := range 20 {
				w.ports[1] = uint16(4000 + i)
				w.inject(segment{seq: 1, flags: header.TCPFlagSyn, window: 100}, nil)
				var ok bool
				for !ok {
					_, ok = w.next()
					runtime.Gosched()
				}
				w.inject(segment{seq: 2, flags: header.TCPFlagRst}, nil)
				if err := <-done; err == nil {
					t.Error("created")
				}
			}
			if n := len(conns(w.stack)); n != 0 {
				t.Errorf("%d left", n)
			}
		}},
		{"many at once, aborted", func(t *testing.T) {
			s := pairT(t)
			l := listen(t, s[1], families[0], 1, 7)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() { io.Copy(c, c); c.Close() }()
				}
			}()
			var wg sync.WaitGroup
			for i := range 60 {
				c := dial(t, s[0], families[0], 1, 7)
				wg.Go(func() {
					go io.CopyN(c, &pattern{}, 1<<20)
					b := make([]byte, 1000)
					io.ReadAtLeast(c, b, 1000)
					if i%2 == 0 {
						c.Close()
					} else {
						time.Sleep(time.Millisecond)
						c.CloseWrite()
						c.CloseRead()
						c.Close()
					}
				})
			}
			wg.Wait()
			l.Close()
		}},
		{"loopback", func(t *testing.T) {
			s := alone(t)
			l := listen(t, s, families[0], 0, 7)
			for range 20 {
				c := dial(t, s, families[0], 0, 7)
				d, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				c.Write(make([]byte, 10_000))
				var e net.Conn = d
				e.Read(make([]byte, 100))
				c.Close()
				d.Close()
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) { leakless(t, c.f) })
	}
}
