package interop

import (
	"sync/atomic"
	"testing"

	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/internal/netlab/impair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// tcpiECN is the bit of the kernel's tcpi_options for ECN in use
// (TCPI_OPT_ECN of linux/tcp.h).
const tcpiECN = 8

// kernelECN reports whether the kernel uses ECN on a connection.
func kernelECN(info *unix.TCPInfo) bool { return info.Options&tcpiECN != 0 }

// Who asks for ECN and who agrees to it: all pairs of settings.
// https://www.rfc-editor.org/rfc/rfc3168#section-6.1.1
func TestECNNegotiation(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		for _, tc := range []struct {
			name               string
			ours               tcp.ECNMode
			theirs             string // net.ipv4.tcp_ecn
			asServer, asClient bool   // in use?
		}{
			{"off, kernel on", tcp.ECNOff, "1", false, false},
			{"on, kernel off", tcp.ECNOn, "0", false, false},
			{"on, kernel on", tcp.ECNOn, "1", true, true},
			{"on, kernel passive", tcp.ECNOn, "2", false, true},
			{"passive, kernel on", tcp.ECNPassive, "1", true, false},
			{"passive, kernel passive", tcp.ECNPassive, "2", false, false},
		} {
			t.Run(tc.name, func(t *testing.T) {
				s := newSite(t, nil)
				s.sysctl("net.ipv4.tcp_ecn", tc.theirs)
				must(t, tcp.SetTuning(s.ustack.NetStack(), tcp.Tuning{ECN: tc.ours}))
				capture := s.capture()
				k, u := open(s, family)
				exchange(t, k, u)
				want := tc.asClient
				if capture.Count(func(p netlab.Captured) bool { return p.Out && isSYN(p) }) > 0 {
					want = tc.asServer // the kernel asked
				}
				info, err := netlab.TCPInfo(k)
				must(t, err)
				if got := u.Info().ECN; got != want {
					t.Errorf("ustack uses ECN: %v, want %v", got, want)
				}
				if got := kernelECN(info); got != want {
					t.Errorf("the kernel uses ECN: %v, want %v", got, want)
				}
			})
		}
	})
}

// ecnBits is the ECN field of a frame's IP header, 0 without one.
func ecnBits(frame []byte) byte {
	switch tos := trafficClass(frame); {
	case tos == nil:
		return 0
	case frame[12] == 0x08:
		return *tos & 3
	default:
		return *tos >> 4 & 3
	}
}

// trafficClass is the byte of a frame that has the ECN field: in IPv4 its low
// bits, in IPv6, where the traffic class begins mid-byte, bits 4 and 5.
func trafficClass(frame []byte) *byte {
	if len(frame) < 34 {
		return nil
	}
	switch [2]byte(frame[12:14]) {
	case [2]byte{0x08, 0x00}, [2]byte{0x86, 0xdd}:
		return &frame[15]
	}
	return nil
}

// markCE does to a frame what a congested router does. It reports whether the
// frame said that it may be marked.
func markCE(frame []byte) bool {
	if b := ecnBits(frame); b == 0 || b == 3 {
		return false
	}
	if frame[12] == 0x86 {
		frame[15] |= 0x30
		return true
	}
	frame[15] |= 3
	header := frame[14 : 14+int(frame[14]&15)*4]
	header[10], header[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < len(header); i += 2 {
		sum += uint32(header[i])<<8 | uint32(header[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	header[10], header[11] = byte(^sum>>8), byte(^sum)
	return true
}

// marker is a wire's filter that marks one data segment when armed.
type marker struct {
	armed, marked atomic.Bool
}

func (m *marker) pass(frame []byte) bool {
	if m.armed.Load() && (netlab.Captured{Data: frame}).PayloadLen() > 0 && markCE(frame) {
		m.armed.Store(false)
		m.marked.Store(true)
	}
	return true
}

// A router marks a segment: the receiver echoes it until the sender says that
// it has reduced its window, and nothing is lost or sent again.
// https://www.rfc-editor.org/rfc/rfc3168#section-6.1
func TestECNMarkIsEchoedAndHeeded(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		for _, way := range []string{"to the kernel", "to ustack"} {
			t.Run(way, func(t *testing.T) {
				s := newSite(t, &impair.Config{})
				s.sysctl("net.ipv4.tcp_ecn", "1")
				must(t, tcp.SetTuning(s.ustack.NetStack(), tcp.Tuning{ECN: tcp.ECNOn}))
				k, u := open(s, family)
				exchange(t, k, u)
				capture, err := s.kernel.Capture(s.device, netlab.CaptureConfig{Snap: 128})
				must(t, err)
				var m marker
				m.armed.Store(true)
				fromUs := way == "to the kernel"
				if fromUs {
					s.wire.Filter(nil, m.pass)
					must(t, carry(u, k, 1<<20, 1))
				} else {
					s.wire.Filter(m.pass, nil)
					must(t, carry(k, u, 1<<20, 1))
				}
				if !m.marked.Load() {
					t.Fatal("no segment was capable of ECN")
				}
				sender := func(p netlab.Captured) bool { return p.Out != fromUs }
				data := func(p netlab.Captured) bool { return sender(p) && p.PayloadLen() > 0 }
				has := func(f func(*layers.TCP) bool) func(netlab.Captured) bool {
					return func(p netlab.Captured) bool { tcp := p.TCP(); return tcp != nil && !tcp.SYN && f(tcp) }
				}
				ece := has(func(h *layers.TCP) bool { return h.ECE })
				cwr := has(func(h *layers.TCP) bool { return h.CWR })
				if n := capture.Count(func(p netlab.Captured) bool { return !sender(p) && ece(p) }); n == 0 {
					t.Error("the receiver did not echo the mark")
				}
				// A busy machine may add a loss or a timeout, and those reduce too.
				losses := s.kernelCount("TCPTimeouts") + s.kernelCount("TCPSackRecovery")
				if fromUs {
					c := u.Info().Counters
					losses = int(c.Timeouts + c.SACKRecoveries)
				}
				if n := capture.Count(func(p netlab.Captured) bool { return data(p) && cwr(p) }); n < 1 || n > 1+losses {
					t.Errorf("the sender said %d times that it reduced its window, want once, and %d for losses", n, losses)
				}
				if n := capture.Count(func(p netlab.Captured) bool { return data(p) && ecnBits(p.Data) == 0 }); n > capture.Count(data)/10 {
					t.Errorf("%d data segments of %d were not capable of ECN", n, capture.Count(data))
				}
				if n := capture.Count(func(p netlab.Captured) bool {
					return p.TCP() != nil && p.PayloadLen() == 0 && ecnBits(p.Data) != 0
				}); n != 0 {
					t.Errorf("%d segments without data were capable of ECN", n)
				}
				// The echo ends with the sender's word.
				said, echoed := false, 0
				for _, p := range capture.Packets() {
					said = said || data(p) && cwr(p)
					if said && !sender(p) && ece(p) {
						echoed++
					}
				}
				if total := capture.Count(func(p netlab.Captured) bool { return !sender(p) && ece(p) }); echoed > 0 && echoed == total {
					t.Errorf("all %d echoes came after the sender's word", echoed)
				}
				if last := lastOf(capture, func(p netlab.Captured) bool { return !sender(p) && p.TCP() != nil }); ece(last) {
					t.Error("the receiver still echoes at the end")
				}
				if fromUs && u.Info().Ssthresh >= 1<<30 {
					t.Error("the window was not reduced")
				}
			})
		}
	})
}

// lastOf is the last frame that fulfils a condition, or none.
func lastOf(c *netlab.Capture, condition func(netlab.Captured) bool) (last netlab.Captured) {
	for _, p := range c.Packets() {
		if condition(p) {
			last = p
		}
	}
	return last
}
