package interop

import (
	"crypto/sha256"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/tap"
)

// farAddresses are the kernel's where a router lies between, and middle are the
// router's on that side. Towards the ustack the router has
// netlab.KernelAddresses.
var (
	farAddresses = []netip.Prefix{netip.MustParsePrefix("10.78.0.2/24"), netip.MustParsePrefix("fd78::2/64")}
	middle       = []netip.Prefix{netip.MustParsePrefix("10.78.0.1/24"), netip.MustParsePrefix("fd78::1/64")}
)

// path is a site whose ends have a router between them.
type path struct {
	*site
	router *netlab.Namespace
	near   string // the router's device towards the ustack
	far    string // and towards the kernel
}

// newPath makes ustack -- router -- kernel.
func newPath(t *testing.T) *path {
	t.Helper()
	lab := netlab.New(t)
	direct, err := lab.Direct(netlab.Link{})
	must(t, err)
	router := direct.Kernel
	end, err := lab.Namespace("end")
	must(t, err)
	_, _, err = lab.Veth(
		netlab.End{Namespace: router, Name: "far0", Addresses: middle},
		netlab.End{Namespace: end, Name: "veth0", Addresses: farAddresses}, 0)
	must(t, err)
	must(t, router.SetSysctl("net.ipv4.ip_forward", "1"))
	must(t, router.SetSysctl("net.ipv6.conf.all.forwarding", "1"))
	routes := make([]stack.Route, len(families))
	for i := range families {
		must(t, end.AddRoute(netlab.PeerAddresses[i].Masked(), middle[i].Addr()))
		routes[i] = stack.Route{Network: farAddresses[i].Masked(), Gateway: netlab.KernelAddresses[i].Addr()}
	}
	fd, err := direct.TAP.TakeFD()
	must(t, err)
	link, err := tap.Adopt(fd, tap.Config{})
	must(t, err)
	u, err := stack.New(stack.Config{Link: link, Addresses: netlab.PeerAddresses, Routes: routes})
	must(t, err)
	t.Cleanup(func() { u.Close() })
	return &path{
		site:   &site{t: t, kernel: end, device: "veth0", near: farAddresses, ustack: u},
		router: router, near: direct.Device.Name, far: "far0",
	}
}

// setMTU changes a device's MTU.
func setMTU(ns *netlab.Namespace, device string, mtu int) error {
	return setDevice(ns, device, "SIOCSIFMTU", unix.SIOCSIFMTU, mtu)
}

// setQueue changes how many frames may wait at a device.
func setQueue(ns *netlab.Namespace, device string, frames int) error {
	return setDevice(ns, device, "SIOCSIFTXQLEN", unix.SIOCSIFTXQLEN, frames)
}

// setDevice changes a number that a device has.
func setDevice(ns *netlab.Namespace, device, name string, request uint, value int) error {
	return ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		ifr, err := unix.NewIfreq(device)
		if err != nil {
			return err
		}
		ifr.SetUint32(uint32(value))
		return os.NewSyscallError(name, unix.IoctlIfreq(fd, request, ifr))
	})
}

// The path narrows in the middle of a transfer, beyond the first hop. The
// router says so by ICMP (fragmentation needed, packet too big), the sender
// cuts what it sends, and nothing is missing.
// https://www.rfc-editor.org/rfc/rfc1191#section-6.4 , rfc8201#section-5.4
func TestPathNarrows(t *testing.T) {
	const size = 9 << 20
	each(t, func(t *testing.T, family int, open opener) {
		mtu := []int{1000, 1280}[family]
		mss := mtu - []int{20, 40}[family] - 20 - 12 // timestamps
		for _, way := range []string{"to the kernel", "to ustack"} {
			t.Run(way, func(t *testing.T) {
				p := newPath(t)
				k, u := open(p.site, family)
				exchange(t, k, u)
				var from, to net.Conn = u, k
				narrow := p.far
				if way == "to ustack" {
					from, to, narrow = k, u, p.near
				}
				data := noise(size, 1)
				sent, narrowed := make(chan error, 1), make(chan struct{})
				go func() {
					_, err := from.Write(data[:size/2])
					<-narrowed // what buffers hold does not see the narrow path
					if err == nil {
						_, err = from.Write(data[size/2:])
					}
					if err == nil {
						err = from.(interface{ CloseWrite() error }).CloseWrite()
					}
					sent <- err
				}()
				h := sha256.New()
				_, err := io.CopyN(h, to, size/3)
				must(t, err)
				capture, err := p.router.Capture(p.near, netlab.CaptureConfig{})
				must(t, err)
				must(t, setMTU(p.router, narrow, mtu))
				close(narrowed)
				n, err := io.Copy(h, to)
				if err != nil {
					t.Fatalf("after %d bytes of %d: %v", n+size/3, size, err)
				}
				must(t, <-sent)
				if [32]byte(h.Sum(nil)) != sha256.Sum256(data) {
					t.Errorf("received %d bytes of %d, or other ones", n+size/3, size)
				}
				if way == "to the kernel" {
					if got := u.Info().SndMSS; got != mss {
						t.Errorf("our segments carry %d bytes, want %d", got, mss)
					}
					if capture.Count(isTooBig) == 0 {
						t.Error("the router sent no ICMP error: nothing was learnt from it")
					}
					return
				}
				info, err := netlab.TCPInfo(k)
				must(t, err)
				if got := int(info.Snd_mss); got != mss {
					t.Errorf("the kernel's segments carry %d bytes, want %d", got, mss)
				}
			})
		}
	})
}

// isTooBig reports whether a frame is an ICMP error about a packet's size, out
// of the capturing device.
func isTooBig(c netlab.Captured) bool {
	d := c.Data
	if !c.Out || len(d) < 58 {
		return false
	}
	switch [2]byte(d[12:14]) {
	case [2]byte{0x08, 0x00}:
		return d[23] == unix.IPPROTO_ICMP && d[34] == 3 && d[35] == 4
	case [2]byte{0x86, 0xdd}:
		return d[20] == unix.IPPROTO_ICMPV6 && d[54] == 2
	}
	return false
}

// stream sends noise until it is told to stop, and then half closes. The digest
// of what was sent comes when all of it is in the queue.
func stream(to net.Conn, stop <-chan struct{}, sent chan<- [32]byte) {
	h, chunk := sha256.New(), noise(64<<10, 1)
	for {
		select {
		case <-stop:
			to.(interface{ CloseWrite() error }).CloseWrite()
			sent <- [32]byte(h.Sum(nil))
			return
		default:
		}
		chunk[0]++
		n, err := to.Write(chunk)
		h.Write(chunk[:n])
		if err != nil {
			sent <- [32]byte{} // the receiver's deadline tells
			return
		}
	}
}

// The device that the two share shrinks in the middle of a transfer. The kernel
// cuts its segments at once, and an ICMP error makes ours fit, as a router's
// would; they carry on, both ways.
func TestLinkNarrows(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		mtu := []int{900, 1280}[family]
		mss := mtu - []int{20, 40}[family] - 20 - 12
		s := newSite(t, nil)
		k, u := open(s, family)
		exchange(t, k, u)
		stop, sent, received := make(chan struct{}), make([]chan [32]byte, 2), make([]chan [32]byte, 2)
		for i, way := range []struct{ from, to net.Conn }{{k, u}, {u, k}} {
			sent[i], received[i] = make(chan [32]byte, 1), make(chan [32]byte, 1)
			go stream(way.from, stop, sent[i])
			go func() {
				h := sha256.New()
				if _, err := io.Copy(h, way.to); err != nil {
					t.Error(err)
				}
				received[i] <- [32]byte(h.Sum(nil))
			}()
		}
		eventually(t, "the streams flow", func() bool {
			i := u.Info()
			return i.Counters.BytesReceived > 1<<20 && i.Counters.BytesAcked > 1<<20
		})
		must(t, setMTU(s.kernel, s.device, mtu))
		eventually(t, "our segments fit", func() bool {
			s.tooBig(family, k, u, uint16(mtu)) // until one quotes what is in flight
			return u.Info().SndMSS == mss
		})
		eventually(t, "the kernel's segments fit", func() bool {
			info, err := netlab.TCPInfo(k)
			return err == nil && int(info.Snd_mss) <= mss
		})
		close(stop)
		for i, who := range []string{"ustack", "the kernel"} {
			if <-sent[i] != <-received[i] {
				t.Errorf("%s received something else", who)
			}
		}
	})
}

// The ustack's own link is smaller than the kernel's: the kernel learns it from
// the MSS option and sends nothing larger.
func TestKernelLearnsOurMSS(t *testing.T) {
	each(t, func(t *testing.T, family int, open opener) {
		const mtu = 1300
		want := mtu - []int{20, 40}[family] - 20
		s := newSiteOn(t, tap.Config{MTU: mtu}, nil)
		k, u := open(s, family)
		must(t, carry(k, u, 1<<20, 1))
		must(t, carry(u, k, 1<<20, 2))
		info, err := netlab.TCPInfo(k)
		must(t, err)
		if got := int(info.Advmss); got <= want {
			t.Fatalf("the kernel's own MSS is %d: nothing to learn", got)
		}
		if got := int(info.Snd_mss); got != want-12 {
			t.Errorf("the kernel's segments carry %d bytes, want %d", got, want-12)
		}
		if i := u.Info(); i.SndMSS != want-12 || i.AdvMSS != want {
			t.Errorf("our segments carry %d bytes and we told %d, want %d and %d", i.SndMSS, i.AdvMSS, want-12, want)
		}
	})
}
