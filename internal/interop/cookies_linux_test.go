package interop

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/tcp"
)

// Bits of the kernel's tcpi_options (TCPI_OPT_* of linux/tcp.h).
const (
	tcpiTimestamps = 1
	tcpiSACK       = 2
	tcpiWScale     = 4
)

// A server that answers a SYN with a cookie remembers nothing of it. What the
// SYN offered comes back in the echo of the timestamp, so the connection has
// window scaling and SACK all the same; without timestamps it works without
// them. https://www.rfc-editor.org/rfc/rfc4987#section-3.6
func TestSYNCookies(t *testing.T) {
	const all = tcpiTimestamps | tcpiSACK | tcpiWScale
	each(t, func(t *testing.T, family int, open opener) {
		for _, tc := range []struct {
			name         string
			always       bool   // our option; else the backlog is too small to remember anything
			timestamps   string // net.ipv4.tcp_timestamps
			ours, theirs uint8  // options in use by whose cookie it was
		}{
			{"with timestamps", false, "1", all, all},
			{"without timestamps", false, "0", 0, 0},
			// The option asks for cookies as gVisor makes them: bare.
			{"by option, with timestamps", true, "1", tcpiTimestamps, all},
			{"by option, without timestamps", true, "0", 0, 0},
		} {
			t.Run(tc.name, func(t *testing.T) {
				s := newSite(t, nil, func(c *stack.Config) {
					if !tc.always {
						c.Backlog = 1
					}
				})
				s.sysctl("net.ipv4.tcp_syncookies", "2")
				s.sysctl("net.ipv4.tcp_timestamps", tc.timestamps)
				always := tcpip.TCPAlwaysUseSynCookies(tc.always)
				if err := s.ustack.NetStack().SetTransportProtocolOption(tcp.ProtocolNumber, &always); err != nil {
					t.Fatal(err)
				}
				k, u := open(s, family)
				ours := s.ustack.NetStack().Stats().TCP.ListenOverflowSynCookieRcvd.Value()
				theirs := s.kernelCount("SyncookiesRecv")
				if ours+uint64(theirs) != 1 {
					t.Fatalf("%d cookies came back to ustack and %d to the kernel, want one", ours, theirs)
				}
				want := tc.ours
				if theirs == 1 {
					want = tc.theirs
				}
				info, err := netlab.TCPInfo(k)
				must(t, err)
				if got := info.Options & all; got != want {
					t.Errorf("the kernel's options are %#x, want %#x", got, want)
				}
				i := u.Info()
				for _, o := range []struct {
					name string
					bit  uint8
					on   bool
				}{{"timestamps", tcpiTimestamps, i.Timestamps}, {"SACK", tcpiSACK, i.SACK}, {"window scaling", tcpiWScale, i.WindowScaling}} {
					if o.on != (want&o.bit != 0) {
						t.Errorf("we have %s: %v, want %v", o.name, o.on, !o.on)
					}
				}
				if snd, rcv := scales(info); i.WindowScaling && (i.SndWScale != rcv || i.RcvWScale != snd) {
					t.Errorf("scales: ours %d and %d, the kernel's %d and %d", i.SndWScale, i.RcvWScale, snd, rcv)
				}
				if i.SndMSS < 1300 {
					t.Errorf("the segment size is %d, as if the MSS was forgotten", i.SndMSS)
				}
				exchange(t, k, u)
				ways := make(chan error, 2)
				go func() { ways <- carry(k, u, 4<<20, 1) }()
				go func() { ways <- carry(u, k, 4<<20, 2) }()
				for range 2 {
					if err := <-ways; err != nil {
						t.Error(err)
					}
				}
			})
		}
	})
}

// scales are the window scales that the kernel sends and receives with: the
// two bit fields of its struct tcp_info, which unix.TCPInfo leaves out.
func scales(info *unix.TCPInfo) (snd, rcv uint8) {
	b := *(*byte)(unsafe.Add(unsafe.Pointer(info), unsafe.Offsetof(info.Options)+1))
	return b & 15, b >> 4
}
