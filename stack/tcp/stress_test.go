package tcp_test

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp"
)

// Fault 16: connections beyond twenty or so at once hang. Within one stack and
// between two, all are whole.
func TestManyConnections(t *testing.T) {
	const n, size = 100, 64 << 10
	loop := alone(t)
	wire := pair(t)
	worlds := []struct {
		name         string
		client, host *stack.Stack
		peer         int
	}{
		{"loopback", loop, loop, 0},
		{"wire", wire[0], wire[1], 1},
	}
	for _, w := range worlds {
		t.Run(w.name, func(t *testing.T) {
			l := listen(t, w.host, families[0], w.peer, 7)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						io.Copy(c, c)
					}()
				}
			}()
			var wg sync.WaitGroup
			errs := make(chan error, n)
			for range n {
				c := dial(t, w.client, families[0], w.peer, 7)
				wg.Go(func() {
					go func() {
						io.CopyN(c, &pattern{}, size)
						c.CloseWrite()
					}()
					errs <- check(c, size)
				})
			}
			wg.Wait()
			l.Close()
			close(errs)
			for err := range errs {
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Fault 17: a read deadline that fires while data arrives loses some of it.
func TestDeadlineLosesNothing(t *testing.T) {
	s := pair(t)
	client, server := connect(t, s, families[0], 7)
	const size = 1 << 20
	go io.CopyN(client, &pattern{}, size)
	buf := make([]byte, 4<<10)
	for at := 0; at < size; {
		server.SetReadDeadline(time.Now().Add(20 * time.Microsecond))
		n, err := server.Read(buf)
		for i, b := range buf[:n] {
			if b != patternByte(at+i) {
				t.Fatalf("byte %d is %#x, want %#x", at+i, b, patternByte(at+i))
			}
		}
		at += n
		if ne, ok := err.(interface{ Timeout() bool }); err != nil && !(ok && ne.Timeout()) {
			t.Fatal(err)
		}
	}
}

// Segments that make no sense are counted, and neither crash the stack nor
// disturb a connection.
func TestNonsense(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, seed))
	w := newWire(t)
	ep, iss := w.open()
	stats := w.stack.Stats().TCP

	invalid := stats.InvalidSegmentsReceived.Value()
	short := ipPacket(make([]byte, header.TCPMinimumSize))
	short[header.IPv4MinimumSize+12] = 1 << 4 // a data offset of 4 bytes
	binary.BigEndian.PutUint16(short[header.IPv4MinimumSize+2:], w.ports[0])
	w.injectRaw(short)
	if got := stats.InvalidSegmentsReceived.Value(); got != invalid+1 {
		t.Errorf("a data offset of 4 was not counted as invalid")
	}
	w.injectAs(segment{seq: peerISN + 1, ack: iss, flags: header.TCPFlagAck, window: 1000, payload: "x"}, nil, true)
	if got := stats.ChecksumErrors.Value(); got != 1 {
		t.Errorf("ChecksumErrors = %d, want 1", got)
	}

	for range 5000 {
		s := segment{
			seq:     peerISN + 1 + 1<<20 + r.Uint32N(1<<30), // far beyond the window
			ack:     r.Uint32(),
			flags:   header.TCPFlags(r.UintN(256)),
			window:  uint16(r.Uint32()),
			payload: string(make([]byte, r.IntN(50))),
		}
		options := make([]byte, 4*r.IntN(11))
		for i := range options {
			options[i] = byte(r.Uint32())
		}
		w.inject(s, options)
	}
	w.link.Drain()
	w.clock.Advance(time.Second)
	w.link.Drain()
	w.inject(segment{seq: peerISN + 1, ack: iss, flags: header.TCPFlagAck, window: 65535, payload: "still here"}, nil)
	if s := w.want(header.TCPFlagAck); s.ack != peerISN+1+10 {
		t.Errorf("data is acknowledged up to %d, want %d", s.ack, peerISN+11)
	}
	if got := ep.EndpointState(); got != tcp.StateEstablished {
		t.Errorf("state %s, want ESTABLISHED", got)
	}
}

// ipPacket puts an IPv4 header before a TCP segment.
func ipPacket(seg []byte) []byte {
	b := make([]byte, header.IPv4MinimumSize+len(seg))
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(b)),
		TTL:         64,
		Protocol:    uint8(tcp.ProtocolNumber),
		SrcAddr:     addr4[1],
		DstAddr:     addr4[0],
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	copy(b[header.IPv4MinimumSize:], seg)
	return b
}

// An endpoint may be used by anyone at any time: reads, writes, options,
// freezes and closes at once.
func TestConcurrentUse(t *testing.T) {
	s := pair(t)
	for i := range 20 {
		client, server := connect(t, s, families[i%2], uint16(100+i))
		ep := conns(s[0])[0]
		var wg sync.WaitGroup
		for _, f := range []func(){
			func() { io.Copy(io.Discard, client) },
			func() { client.Write(make([]byte, 100<<10)) },
			func() { io.Copy(server, server) },
			func() {
				for range 100 {
					ep.SocketOptions().SetDelayOption(true)
					ep.SocketOptions().SetReceiveBufferSize(8<<10, true)
					ep.ConnInfo()
					ep.Drops()
					tcp.Endpoints(s[0])
					ep.GetRemoteAddress()
				}
				client.Close()
			},
		} {
			wg.Go(f)
		}
		wg.Go(func() {
			for range 50 {
				ep.Readiness(waiter.AllEvents)
				ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
			}
		})
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("round %d hangs: client %s", i, ep.EndpointState())
		}
		server.Close()
	}
}
