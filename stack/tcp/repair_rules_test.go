package tcp_test

import (
	"net"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/internal/repairtest"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// Linux's rules, which a kernel's socket is held to as well.
func TestRepairRules(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			s := pair(t)
			port := uint16(80)
			factory := &tcp.RepairFactory{Stack: s[0]}
			at := func(host int, port uint16) netip.AddrPort {
				ip, _ := netip.AddrFromSlice(f.addrs[host].AsSlice())
				return netip.AddrPortFrom(ip, port)
			}
			lab := &repairtest.Lab{
				Local:  at(0, 40000),
				Remote: at(1, 9),
				Socket: func(t *testing.T) repair.Socket {
					sock, err := factory.Socket(at(0, 0))
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { sock.Close() })
					return sock
				},
				Connected: func(t *testing.T) (repair.Socket, net.Conn) {
					port++
					client, server := connect(t, s, f, port)
					return endpointOf(t, s[0], client).Repair(), server
				},
				Listener: func(t *testing.T) repair.Socket {
					ep, err := s[0].NewEndpoint(tcp.ProtocolNumber, f.proto, new(waiter.Queue))
					if err != nil {
						t.Fatal(tcpipErr(err))
					}
					t.Cleanup(ep.Close)
					if err := ep.Bind(tcpip.FullAddress{Port: 7}); err != nil {
						t.Fatal(tcpipErr(err))
					}
					if err := ep.Listen(1); err != nil {
						t.Fatal(tcpipErr(err))
					}
					return ep.(*tcp.Endpoint).Repair()
				},
				SetReuseAddress: func(t *testing.T, sock repair.Socket, on bool) {
					sock.(*tcp.RepairSocket).Endpoint().SocketOptions().SetReuseAddress(on)
				},
				ReuseAddress: func(t *testing.T, sock repair.Socket) bool {
					return sock.(*tcp.RepairSocket).Endpoint().SocketOptions().GetReuseAddress()
				},
				Write: func(t *testing.T, sock repair.Socket, p []byte) {
					if n, err := sock.(repair.Sender).Write(p); err != nil || n != len(p) {
						t.Fatal(n, err)
					}
				},
			}
			repairtest.Run(t, lab)
		})
	}
}
