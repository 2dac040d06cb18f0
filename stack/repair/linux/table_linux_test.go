package linux_test

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/internal/repairtest"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/linux"
)

// The table of Linux's rules holds for Linux.
func TestTable(t *testing.T) {
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			w := newWorld(t)
			local := netlab.PeerAddresses[fam.index].Addr()
			own := func(t *testing.T, s repair.Socket) repair.Socket {
				t.Cleanup(func() { s.Close() })
				return s
			}
			repairtest.Run(t, &repairtest.Lab{
				Socket: func(t *testing.T) repair.Socket {
					s, err := w.factory(0).Socket(netip.AddrPortFrom(local, 0))
					must(t, err)
					return own(t, s)
				},
				Connected: func(t *testing.T) (repair.Socket, net.Conn) {
					peer, host := w.connect(fam.index)
					s, err := w.factory(0).FromConn(host)
					must(t, err)
					must(t, host.Close())
					return own(t, s), peer
				},
				Listener: func(t *testing.T) repair.Socket {
					l, err := w.Hosts[0].Kernel.ListenTCP(netip.AddrPortFrom(local, 0))
					must(t, err)
					defer l.Close()
					s, err := w.factory(0).FromConn(l)
					must(t, err)
					return own(t, s)
				},
				SetReuseAddress: func(t *testing.T, s repair.Socket, on bool) {
					v := 0
					if on {
						v = 1
					}
					must(t, unix.SetsockoptInt(s.(*linux.Socket).FD(), unix.SOL_SOCKET, unix.SO_REUSEADDR, v))
				},
				ReuseAddress: func(t *testing.T, s repair.Socket) bool {
					v, err := unix.GetsockoptInt(s.(*linux.Socket).FD(), unix.SOL_SOCKET, unix.SO_REUSEADDR)
					must(t, err)
					return v != 0
				},
				Write: func(t *testing.T, s repair.Socket, p []byte) {
					_, err := unix.Write(s.(*linux.Socket).FD(), p)
					must(t, err)
				},
				Local:  netip.AddrPortFrom(local, 4711),
				Remote: netip.AddrPortFrom(netlab.KernelAddresses[fam.index].Addr(), 4712),
			})
		})
	}
}
