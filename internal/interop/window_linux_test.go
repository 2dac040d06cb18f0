package interop

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/internal/netlab/impair"
	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// shut is a connection whose receiver does not read.
type shut struct {
	name     string
	u        *stack.Conn
	k        *net.TCPConn
	from, to net.Conn
	data     []byte
	sent     chan error
}

// begin sends in the background; the sender half closes.
func (z *shut) begin() {
	z.sent = make(chan error, 1)
	go func() {
		_, err := z.from.Write(z.data)
		if err == nil {
			err = z.from.(interface{ CloseWrite() error }).CloseWrite()
		}
		z.sent <- err
	}()
}

// finish reads everything.
func (z *shut) finish() error {
	got, err := io.ReadAll(z.to)
	if err != nil {
		return fmt.Errorf("%s: received %d bytes of %d: %w", z.name, len(got), len(z.data), err)
	}
	if err := <-z.sent; err != nil {
		return fmt.Errorf("%s: send: %w", z.name, err)
	}
	if !bytes.Equal(got, z.data) {
		return fmt.Errorf("%s: received %d bytes of %d, or other ones", z.name, len(got), len(z.data))
	}
	return nil
}

// A receiver whose user reads nothing for 20 seconds: the window stays shut,
// probes are answered all that time, nobody gives up, and all of it arrives
// once the user reads. Both directions, roles and IP versions in one go.
func TestZeroWindowOf20Seconds(t *testing.T) {
	t.Parallel()
	const held = 20 * time.Second
	s := newSite(t, nil)
	s.tune = append(s.tune, receiveBuffer(64<<10))
	var all []*shut
	for _, fam := range families {
		for _, role := range roles {
			k, u := role.open(s, fam.index)
			deadline(held+limit, k, u)
			all = append(all, &shut{name: fam.name + " to the kernel, as " + role.name, u: u, k: k, from: u, to: k, data: noise(2<<20, 1)})
			k, u = role.open(s, fam.index)
			deadline(held+limit, k, u)
			all = append(all, &shut{name: fam.name + " to ustack, as " + role.name, u: u, k: k, from: k, to: u, data: noise(6<<20, 2)})
		}
	}
	capture := s.capture()
	for _, z := range all {
		z.begin()
	}
	for _, z := range all {
		eventually(t, z.name+": the window shut", func() bool {
			i := z.u.Info()
			if z.from == net.Conn(z.u) {
				return i.SndWnd == 0 && i.Unsent > 0 && i.InFlight == 0
			}
			return i.RcvWnd == 0 && kernelProbes(t, z.k) > 0
		})
	}
	since := time.Now()
	pause(held)

	for _, z := range all {
		if got := z.u.Info().State; got != conn.StateEstablished {
			t.Errorf("%s: %v after %v of zero window", z.name, got, held)
		}
		var ours, theirs int // our probes or answers, and the kernel's
		for _, p := range capture.Packets() {
			tcp := p.TCP()
			if tcp == nil || p.Time.Before(since) || !z.concerns(uint16(tcp.SrcPort), uint16(tcp.DstPort)) {
				continue
			}
			if p.Out {
				theirs++
			} else {
				ours++
			}
			if p.PayloadLen() > 1 {
				t.Errorf("%s: %d bytes sent into a shut window", z.name, p.PayloadLen())
			}
		}
		// The interval doubles from 200 ms, so one falls into any 20 s that begin
		// in the first 25.
		if ours == 0 || theirs == 0 {
			t.Errorf("%s: in %v of zero window %d segments of ours and %d of the kernel's, want a probe and its answer", z.name, held, ours, theirs)
		}
	}
	opened := time.Now()
	results := make(chan error, len(all))
	for _, z := range all {
		go func() { results <- z.finish() }()
	}
	for range all {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	// An update must have told the senders: the next probe is 10 s away.
	if took := time.Since(opened); took > 6*time.Second {
		t.Errorf("the streams needed %v after the window had opened", took)
	}
}

// concerns reports whether a segment between the ports is of this connection.
func (z *shut) concerns(src, dst uint16) bool {
	l, r := z.u.LocalAddr().(*net.TCPAddr).Port, z.u.RemoteAddr().(*net.TCPAddr).Port
	return int(src) == l && int(dst) == r || int(src) == r && int(dst) == l
}

// kernelProbes is how many window probes of the kernel are unanswered or have
// found the window shut.
func kernelProbes(t *testing.T, k *net.TCPConn) int {
	t.Helper()
	i, err := netlab.TCPInfo(k)
	must(t, err)
	return int(i.Backoff) + int(i.Probes)
}

// The window opens again whenever the user reads, and what was advertised is
// taken: the receiver reads in bites, with pauses in which the window shuts.
func TestWindowOpensAfterEachDrain(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		for _, way := range []string{"to the kernel", "to ustack"} {
			t.Run(way, func(t *testing.T) {
				s := newSite(t, nil, func(c *stack.Config) {
					c.ReceiveBuffer = stack.BufferSize{Default: 64 << 10, Max: 64 << 10}
				})
				s.tune = append(s.tune, receiveBuffer(32<<10))
				k, u := open(s, family)
				z := &shut{name: way, u: u, k: k, from: u, to: k, data: noise(2<<20, 1)}
				if way == "to ustack" {
					z.from, z.to = k, u
				}
				z.begin()
				got := make([]byte, len(z.data))
				began := time.Now()
				for n := 0; n < len(got)-1; {
					bite := min(70<<10, len(got)-n)
					_, err := io.ReadFull(z.to, got[n:n+bite])
					must(t, err)
					n += bite
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("took %v", took)
				}
				must(t, <-z.sent)
				if !bytes.Equal(got, z.data) {
					t.Error("the stream is not what was sent")
				}
				wantEOF(t, way, z.to)
				// The kernel keeps to what it was told, so nothing may be refused
				// as being too much.
				for _, reason := range []string{"TCP_OVERWINDOW", "TCP_ZEROWINDOW", "SOCKET_RCVBUFF", "PROTO_MEM", "SOCKET_BACKLOG"} {
					if n := u.Info().Drops[reason]; n != 0 {
						t.Errorf("%d segments refused: %s", n, reason)
					}
				}
			})
		}
	})
}

// 1 MB written at once into a window of less than 64 KB, without window
// scaling: it goes through at speed.
func TestLargeWriteIntoASmallWindow(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		s := newSite(t, nil)
		s.sysctl("net.ipv4.tcp_window_scaling", "0")
		k, u := open(s, family)
		if u.Info().WindowScaling {
			t.Fatal("the window is scaled")
		}
		began := time.Now()
		must(t, carry(u, k, 1<<20, 1))
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("took %v", took)
		}
		// It takes 16 windows at least. Were each opened by a timer, there
		// would be as many timeouts; a busy machine may cause one.
		if n := u.Info().Counters.Timeouts; n > 3 {
			t.Errorf("%d timeouts on a perfect link", n)
		}
	})
}

// A window smaller than a segment: what is sent is cut to the window, whose
// right edge nothing of ours passes.
func TestWindowSmallerThanASegment(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		s := newSite(t, nil)
		s.tune = append(s.tune, receiveBuffer(0)) // becomes the kernel's least
		capture := s.capture()
		k, u := open(s, family)
		must(t, carry(u, k, 100_000, 1))
		i := u.Info()
		var (
			edge     uint32 // the furthest right edge that the kernel has named
			smallest = i.SndMSS
			checked  int
		)
		for _, p := range capture.Packets() {
			tcp := p.TCP()
			switch {
			case tcp == nil || tcp.SYN:
			case p.Out:
				wnd := int(tcp.Window) << i.SndWScale
				if e := tcp.Ack + uint32(wnd); edge == 0 || int32(e-edge) > 0 {
					edge = e
				}
				if wnd > 0 {
					smallest = min(smallest, wnd)
				}
			case edge != 0 && p.PayloadLen() > 0:
				checked++
				if end := tcp.Seq + uint32(p.PayloadLen()); int32(end-edge) > 0 {
					t.Errorf("a segment of %d bytes ends %d past the window", p.PayloadLen(), int32(end-edge))
				}
			}
		}
		if smallest >= i.SndMSS || checked == 0 {
			t.Errorf("no window was smaller than a segment of %d bytes, in %d segments", i.SndMSS, checked)
		}
	})
}

// 100 ms of round trip: windows must scale and tune themselves, or a transfer
// crawls at 64 KB a round trip.
func TestLongFatPipe(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		const (
			rtt   = 100 * time.Millisecond
			size  = 8 << 20
			crawl = size / (64 << 10) * rtt
		)
		for _, way := range []string{"to the kernel", "to ustack"} {
			t.Run(way, func(t *testing.T) {
				s := newSite(t, &impair.Config{Delay: rtt / 2})
				// Reno's slow start has no eye for delays, which a busy machine
				// makes: it is windows that this is about.
				s.tune = append(s.tune, netlab.SetString(unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno"))
				k, u := open(s, family)
				began := time.Now()
				carried := make(chan error, 1)
				flight := func() int { return int(u.Info().InFlight) }
				if way == "to the kernel" {
					reno := tcpip.CongestionControlOption("reno")
					if err := u.Endpoint().SetSockOpt(&reno); err != nil {
						t.Fatal(err)
					}
					go func() { carried <- carry(u, k, size, 1) }()
				} else {
					go func() { carried <- carry(k, u, size, 1) }()
					flight = func() int {
						info, err := netlab.TCPInfo(k)
						must(t, err)
						return int(info.Unacked * info.Snd_mss)
					}
				}
				eventually(t, "512 KB in flight", func() bool { return flight() > 512<<10 })
				must(t, <-carried)
				if took := time.Since(began); took > crawl {
					t.Errorf("took %v; 64 KB a round trip would be %v", took, crawl)
				}
			})
		}
	})
}

// An ACK that rides on a segment of many times the MTU counts. The kernel
// answers each message with 60 KB, and its acknowledgement has no other ride.
func TestAckOnASuperSegment(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		s := newSite(t, nil)
		k, u := open(s, family)
		must(t, k.SetNoDelay(true))
		capture := s.capture()
		request, answer := noise(100, 1), noise(60_000, 2)
		buf := make([]byte, len(answer))
		for range 80 {
			_, err := u.Write(request)
			must(t, err)
			_, err = io.ReadFull(k, buf[:len(request)])
			must(t, err)
			_, err = k.Write(answer)
			must(t, err)
			_, err = io.ReadFull(u, buf)
			must(t, err)
			if !bytes.Equal(buf, answer) {
				t.Fatal("the answer is not what was sent")
			}
			if i := u.Info(); i.InFlight != 0 {
				t.Fatalf("%d bytes in flight though the answer acknowledged them", i.InFlight)
			}
		}
		var known uint32 // what the kernel has acknowledged
		riders := 0
		for _, p := range capture.Packets() {
			tcp := p.TCP()
			if tcp == nil || !p.Out {
				continue
			}
			if p.PayloadLen() > 1500 && known != 0 && tcp.Ack != known {
				riders++
			}
			known = tcp.Ack
		}
		if riders < 40 {
			t.Errorf("%d acknowledgements of 80 came on segments above the MTU, want half at least", riders)
		}
		if n := u.Info().Counters.Timeouts; n > 3 { // of 80 rounds; a busy machine may cause one
			t.Errorf("%d timeouts on a perfect link", n)
		}
	})
}

// Urgent data: a byte that the kernel sends with MSG_OOB stays where it was in
// the stream, and the urgent pointer is ignored, also where it points beyond
// what the window lets through.
func TestUrgentDataStaysInTheStream(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		s := newSite(t, nil)
		k, u := open(s, family)
		must(t, k.SetNoDelay(true))
		exchange(t, k, u)
		capture := s.capture()
		var want []byte
		send := func(p []byte, flags int) {
			raw, err := k.SyscallConn()
			must(t, err)
			for rest := p; len(rest) > 0; {
				var n int
				err2 := raw.Write(func(fd uintptr) bool {
					n, err = unix.SendmsgN(int(fd), rest, nil, nil, flags)
					return err != unix.EAGAIN
				})
				must(t, err2)
				must(t, err)
				rest = rest[n:]
			}
			want = append(want, p...)
		}
		read := make(chan []byte, 1)
		go func() {
			// Only when told that all is sent: the window shuts meanwhile.
			pause(300 * time.Millisecond)
			got, _ := io.ReadAll(u)
			read <- got
		}()
		send([]byte("plain"), 0)
		send([]byte("!"), unix.MSG_OOB)
		send([]byte("several, the last of them urgent"), unix.MSG_OOB)
		for i := range 20 {
			send(noise(150_000, uint64(i)), 0)
			send([]byte{byte(i)}, unix.MSG_OOB)
		}
		must(t, k.CloseWrite())
		if got := <-read; !bytes.Equal(got, want) {
			t.Errorf("received %d bytes of %d, or other ones", len(got), len(want))
		}
		if capture.Count(func(p netlab.Captured) bool { tcp := p.TCP(); return tcp != nil && p.Out && tcp.URG }) == 0 {
			t.Error("the kernel sent nothing urgent")
		}
		if got := u.Info().State; got != conn.StateCloseWait {
			t.Errorf("%v, want CLOSE-WAIT", got)
		}
	})
}
