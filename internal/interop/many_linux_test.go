package interop

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/tcp"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// pair opens connections in one role, over both IP versions in turn, from as
// many goroutines as like.
type pair struct {
	s      *site
	kernel [2]*net.TCPListener // each accepts in a goroutine of its caller
	ustack [2]*stack.Listener
}

func (s *site) listeners() *pair {
	s.t.Helper()
	p := &pair{s: s}
	for i := range families {
		var err error
		p.kernel[i], err = s.kernel.ListenTCP(netip.AddrPortFrom(s.near[i].Addr(), 0))
		must(s.t, err)
		p.ustack[i], err = s.ustack.Listen("tcp", netip.AddrPortFrom(netlab.PeerAddresses[i].Addr(), 0).String())
		must(s.t, err)
	}
	return p
}

func (p *pair) close() {
	for i := range families {
		p.kernel[i].Close()
		p.ustack[i].Close()
	}
}

// serve accepts and answers on all four listeners until they close.
func (p *pair) serve(wg *sync.WaitGroup, answer func(net.Conn)) {
	for i := range families {
		for _, l := range []net.Listener{p.kernel[i], p.ustack[i]} {
			wg.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					wg.Go(func() { answer(c) })
				}
			})
		}
	}
}

// dial opens connection number n, whose parity picks the IP version.
func (p *pair) dial(ctx context.Context, asClient bool, n int) (net.Conn, error) {
	if asClient {
		return p.s.ustack.Dial(ctx, "tcp", p.kernel[n%2].Addr().String())
	}
	return p.s.kernel.DialTCP(ctx, p.ustack[n%2].Addr().(*net.TCPAddr).AddrPort())
}

// 5,000 connections in each role are opened, used and closed in each of the
// ways there are, 64 at a time. Afterwards everything is as it was before:
// goroutines, connections, ports. It runs alone, for it counts goroutines.
func TestFiveThousandConnections(t *testing.T) {
	const count, atOnce = 5000, 64
	s := newSite(t, nil)
	setTimeWait(t, s, 500*time.Millisecond)
	exchangeNeighbours(s)
	eventually(t, "quiet", func() bool { return len(s.ustack.Conns()) == 0 })
	before := runtime.NumGoroutine()

	p := s.listeners()
	var servers sync.WaitGroup
	p.serve(&servers, func(c net.Conn) { endAs(c, echoOnce(c)) })
	for _, role := range roles {
		began := time.Now()
		numbers, errs := make(chan int), make(chan error, count)
		var clients sync.WaitGroup
		for range atOnce {
			clients.Go(func() {
				for n := range numbers {
					if err := p.once(role.name == "client", n); err != nil {
						errs <- fmt.Errorf("connection %d as %s: %w", n, role.name, err)
					}
				}
			})
		}
		for n := range count {
			numbers <- n
		}
		close(numbers)
		clients.Wait()
		close(errs)
		failed := 0
		for err := range errs {
			if failed++; failed <= 5 {
				t.Error(err)
			}
		}
		if failed > 0 {
			t.Errorf("%d of %d failed", failed, count)
		}
		t.Logf("%d connections as %s in %v", count, role.name, time.Since(began).Round(time.Millisecond))
	}
	p.close()
	servers.Wait()

	s.gone()
	if n := s.ustack.Stats().TCP.Established; n != 0 {
		t.Errorf("%d connections are counted as established", n)
	}
	var after int
	eventually(t, "as many goroutines as before", func() bool {
		after = runtime.NumGoroutine()
		return after <= before
	})
	for _, proto := range []tcpip.NetworkProtocolNumber{ipv4.ProtocolNumber, ipv6.ProtocolNumber} {
		if used := portsInUse(s, proto); used != 0 {
			t.Errorf("%d ports of protocol %#x are still reserved", used, proto)
		}
	}
}

// How a connection ends is decided by the byte that the client sends first.
const (
	clientCloses = iota // first
	serverCloses        // first
	clientResets        // with SO_LINGER 0
	serverResets        // likewise
	unreadByBoth        // both close with data unread: resets
	waysToEnd
)

// once opens a connection, uses it and ends it.
func (p *pair) once(asClient bool, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c, err := p.dial(ctx, asClient, n)
	if err != nil {
		return err
	}
	c.SetDeadline(time.Now().Add(limit))
	way := n / 2 % waysToEnd
	msg := binary.BigEndian.AppendUint32([]byte{byte(way)}, uint32(n))
	if _, err := c.Write(msg); err != nil {
		c.Close()
		return err
	}
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, msg) {
		c.Close()
		return fmt.Errorf("the echo of %x is %x: %w", msg, got, err)
	}
	switch way {
	case serverCloses, serverResets:
		// The server waits for this: a reset may overtake its echo.
		if _, err := c.Write([]byte{1}); err != nil {
			c.Close()
			return err
		}
		if _, err := c.Read(got); err == nil || (err == io.EOF) != (way == serverCloses) {
			c.Close()
			return fmt.Errorf("at the end: %w", err)
		}
	case clientResets:
		must(p.s.t, c.(interface{ SetLinger(int) error }).SetLinger(0))
	case unreadByBoth:
		c.Write(msg)
	}
	return c.Close()
}

// echoOnce answers once, and returns how the connection is to end.
func echoOnce(c net.Conn) (way int) {
	c.SetDeadline(time.Now().Add(limit))
	msg := make([]byte, 5)
	if _, err := io.ReadFull(c, msg); err != nil {
		return clientCloses // the client's end reports it
	}
	c.Write(msg)
	return int(msg[0])
}

// endAs ends the server's side of a connection.
func endAs(c net.Conn, way int) {
	switch way {
	case clientCloses, clientResets:
		io.Copy(io.Discard, c)
	case serverCloses, serverResets:
		io.ReadFull(c, make([]byte, 1))
		if way == serverResets {
			c.(interface{ SetLinger(int) error }).SetLinger(0)
		}
	case unreadByBoth:
		c.Write([]byte("never read"))
	}
	c.Close()
}

// setTimeWait changes how long our TIME-WAIT lasts.
func setTimeWait(t *testing.T, s *site, d time.Duration) {
	t.Helper()
	o := tcpip.TCPTimeWaitTimeoutOption(d)
	if err := s.ustack.NetStack().SetTransportProtocolOption(tcp.ProtocolNumber, &o); err != nil {
		t.Fatal(err)
	}
}

// exchangeNeighbours makes the two ends know each other's link addresses, with
// what goroutines that takes.
func exchangeNeighbours(s *site) {
	s.t.Helper()
	for _, fam := range families {
		for _, role := range roles {
			k, u := role.open(s, fam.index)
			exchange(s.t, k, u)
			must(s.t, u.SetLinger(0))
			must(s.t, u.Close())
			must(s.t, k.Close())
		}
	}
}

// portsInUse is how many local TCP ports of the ustack are not free.
func portsInUse(s *site, proto tcpip.NetworkProtocolNumber) (used int) {
	var wq waiter.Queue
	for port := 1; port <= 65535; port++ {
		ep, err := s.ustack.NetStack().NewEndpoint(tcp.ProtocolNumber, proto, &wq)
		if err != nil {
			s.t.Fatal(err)
		}
		if err := ep.Bind(tcpip.FullAddress{Port: uint16(port)}); err != nil {
			used++
		}
		ep.Close()
	}
	return used
}

// 200 connections are open at the same time and all carry data both ways at
// once, through net.Conn.
func TestManyConnectionsAtOnce(t *testing.T) {
	t.Parallel()
	const count, size = 200, 50_000
	for _, role := range roles {
		t.Run(role.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil)
			// All their initial windows at once: a full queue would lose a quarter.
			must(t, setQueue(s.kernel, s.device, 20_000))
			p := s.listeners()
			var servers sync.WaitGroup
			p.serve(&servers, func(c net.Conn) {
				defer c.Close()
				c.SetDeadline(time.Now().Add(limit))
				io.Copy(c, c)
			})
			all := make([]net.Conn, count)
			for n := range all {
				c, err := p.dial(s.ctx(), role.name == "client", n)
				must(t, err)
				c.SetDeadline(time.Now().Add(limit))
				all[n] = c
			}
			results := make(chan error, count)
			for n, c := range all {
				go func() {
					defer c.Close()
					data := noise(size, uint64(n))
					go func() {
						c.Write(data)
						c.(interface{ CloseWrite() error }).CloseWrite()
					}()
					got, err := io.ReadAll(c)
					if err == nil && !bytes.Equal(got, data) {
						err = fmt.Errorf("connection %d: %d bytes came back of %d, or other ones", n, len(got), size)
					}
					results <- err
				}()
			}
			for range all {
				if err := <-results; err != nil {
					t.Error(err)
				}
			}
			p.close()
			servers.Wait()
		})
	}
}

// SYNs from addresses where nobody is: however many come, a listener keeps no
// more than its backlog of half-open connections, serves who is real all the
// while, and forgets them all when it closes. It runs alone, for it measures
// memory.
func TestSYNFlood(t *testing.T) {
	const (
		backlog = 32
		rounds  = 20
		each    = 1000 // SYNs a round
	)
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			s := newSite(t, nil, func(c *stack.Config) { c.Backlog = backlog })
			l, err := s.ustack.Listen("tcp", netip.AddrPortFrom(netlab.PeerAddresses[fam.index].Addr(), 0).String())
			must(t, err)
			defer l.Close()
			to := l.Addr().(*net.TCPAddr).AddrPort()
			// Or else our answers would wait for the link addresses.
			for host := range floodHosts {
				a := floodAddr(fam.index, host)
				err := s.ustack.NetStack().AddStaticNeighbor(1, []tcpip.NetworkProtocolNumber{ipv4.ProtocolNumber, ipv6.ProtocolNumber}[fam.index],
					tcpip.AddrFromSlice(a), "\x02\x00\x00\x00\x00\x99")
				if err != nil {
					t.Fatal(err)
				}
			}
			var most int
			var early uint64
			for round := range rounds {
				must(t, s.flood(fam.index, to, each))
				n := 0
				for _, c := range s.ustack.Conns() {
					if c.State == conn.StateSynReceived {
						n++
					}
				}
				most = max(most, n)
				k, err := s.kernel.DialTCP(s.ctx(), to)
				must(t, err)
				u, err := l.AcceptConn()
				must(t, err)
				exchange(t, k, u)
				must(t, u.SetLinger(0))
				must(t, u.Close())
				must(t, k.Close())
				if round == 1 {
					early = heap()
				}
			}
			if most == 0 || most > backlog {
				t.Errorf("%d half-open connections at most, want some, and no more than %d", most, backlog)
			}
			// A hundred bytes for each would be 1.8 MB.
			if late := heap(); late > early+1<<20 {
				t.Errorf("%d SYNs have left %d KB", (rounds-2)*each, (late-early)>>10)
			}
			must(t, l.Close())
			s.gone()
		})
	}
}

// heap is how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools let go of
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// floodHosts is how many addresses a flood seems to come from.
const floodHosts = 100

// floodAddr is one of them.
func floodAddr(family, host int) []byte {
	a := netlab.KernelAddresses[family].Addr().AsSlice()
	a[len(a)-1] = byte(100 + host)
	return a
}

// flood sends SYNs to a listener of ours from addresses of the kernel's network
// that nobody has.
func (s *site) flood(family int, to netip.AddrPort, n int) error {
	return s.kernel.Do(func() error {
		f, err := newForger(family)
		if err != nil {
			return err
		}
		defer f.close()
		for range n {
			from, _ := netip.AddrFromSlice(floodAddr(family, rand.IntN(floodHosts)))
			err := f.send(netip.AddrPortFrom(from, uint16(1024+rand.IntN(60000))), to, &layers.TCP{
				Seq: rand.Uint32(), SYN: true, Window: 65535,
				Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 0xb4}}},
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// A client that resets as soon as it is connected, thousands of times: nothing
// of it stays, whether it was accepted or not.
func TestResetRightAfterTheHandshake(t *testing.T) {
	eachFamily(t, func(t *testing.T, family int) {
		const count = 1000
		s := newSite(t, nil, func(c *stack.Config) { c.Backlog = 64 })
		l, err := s.ustack.Listen("tcp", netip.AddrPortFrom(netlab.PeerAddresses[family].Addr(), 0).String())
		must(t, err)
		defer l.Close()
		to := l.Addr().(*net.TCPAddr).AddrPort()
		accepted := make(chan int, 1)
		go func() {
			n := 0
			for {
				c, err := l.Accept()
				if err != nil {
					accepted <- n
					return
				}
				n++
				c.Close()
			}
		}()
		for range count {
			k, err := s.kernel.DialTCP(s.ctx(), to)
			must(t, err)
			must(t, k.SetLinger(0))
			must(t, k.Close())
		}
		s.gone()
		must(t, l.Close())
		if n := <-accepted; n == 0 {
			t.Error("none was accepted")
		}
	})
}
