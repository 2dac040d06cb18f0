//go:build linux

package tap

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// readAll counts the UDP packets to a port that wait in a queue; with 0, to any.
func readAll(t *testing.T, e *Endpoint, q *queue, port uint16) int {
	t.Helper()
	var b rxBuffer
	defer b.release()
	for n := 0; ; {
		size, err := q.readv(b.vector(e.offload.Header))
		if err == unix.EAGAIN {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		frame := b.front(size)
		if e.offload.Header {
			frame = b.front(size - vnetHeaderSize)
		}
		ip := header.IPv4(frame[header.EthernetMinimumSize:])
		if header.Ethernet(frame).Type() != header.IPv4ProtocolNumber || ip.Protocol() != uint8(header.UDPProtocolNumber) {
			continue
		}
		if udp := header.UDP(ip.Payload()); port == 0 || udp.DestinationPort() == port {
			n++
		}
	}
}

// TestQueues checks that the kernel spreads flows over the queues, and sends a
// flow's packets by the queue that its answers come by.
func TestQueues(t *testing.T) {
	enterNamespace(t)
	e := openTAP(t, Config{Name: "tap0", Queues: 2})
	addAddress(t, "tap0", "10.7.0.1/24")
	mac := e.LinkAddress()
	neighbour := &netlink.Neigh{
		LinkIndex: link(t, "tap0").Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: net.IPv4(10, 7, 0, 2), HardwareAddr: net.HardwareAddr(mac),
	}
	if err := netlink.NeighAdd(neighbour); err != nil {
		t.Fatal(err)
	}
	dial := func(port int) *net.UDPConn {
		c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(10, 7, 0, 2), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	send := func(c *net.UDPConn) {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}

	const flows = 64
	for port := range flows {
		send(dial(1000 + port))
	}
	var got [2]int
	for i, q := range e.queues {
		got[i] = readAll(t, e, q, 0)
	}
	if got[0]+got[1] != flows || got[0] == 0 || got[1] == 0 {
		t.Errorf("of %d flows %v came by the queues", flows, got)
	}

	const port = 2000
	c := dial(port)
	for _, by := range []int{1, 0, 1} {
		answer := udpFrame(t, e, uint16(port), uint16(c.LocalAddr().(*net.UDPAddr).Port))
		iov := []unix.Iovec{{Base: &answer[0]}}
		iov[0].SetLen(len(answer))
		if err := e.queues[by].writev(iov); err != nil {
			t.Fatal(err)
		}
		send(c)
		if n := readAll(t, e, e.queues[by], port); n != 1 {
			t.Errorf("%d packets came by queue %d after an answer by it", n, by)
		}
		if n := readAll(t, e, e.queues[1-by], port); n != 0 {
			t.Errorf("%d packets came by the other queue", n)
		}
	}
}

// udpFrame is a packet from us to the kernel as it is written to a queue.
func udpFrame(t *testing.T, e *Endpoint, from, to uint16) []byte {
	t.Helper()
	b := make([]byte, vnetHeaderSize+header.EthernetMinimumSize+header.IPv4MinimumSize+header.UDPMinimumSize)
	frame := b[vnetHeaderSize:]
	header.Ethernet(frame).Encode(&header.EthernetFields{
		SrcAddr: e.LinkAddress(), DstAddr: tcpip.LinkAddress(link(t, e.Name()).Attrs().HardwareAddr), Type: header.IPv4ProtocolNumber,
	})
	ip := header.IPv4(frame[header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(ip)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber),
		SrcAddr: tcpip.AddrFrom4([4]byte{10, 7, 0, 2}), DstAddr: tcpip.AddrFrom4([4]byte{10, 7, 0, 1}),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	header.UDP(ip.Payload()).Encode(&header.UDPFields{SrcPort: from, DstPort: to, Length: header.UDPMinimumSize})
	return b
}

// TestQueuesRefused checks the devices that cannot have several queues.
func TestQueuesRefused(t *testing.T) {
	enterNamespace(t)
	addPersistent(t, "single0", netlink.TUNTAP_MODE_TAP, netlink.TUNTAP_NO_PI|netlink.TUNTAP_VNET_HDR, 0, true)
	if e, err := Open(Config{Name: "single0", Queues: 2}); !errors.Is(err, ErrQueues) {
		t.Errorf("a device for one queue: %v, %v", e, err)
	}
	for _, n := range []int{-1, maxQueues + 1} {
		if e, err := Open(Config{Queues: n}); !errors.Is(err, ErrQueues) {
			t.Errorf("%d queues: %v, %v", n, e, err)
		}
	}
	e := openTAP(t, Config{Name: "tap0", Queues: 1})
	if other, err := Adopt(e.queues[0].fd, Config{Queues: 2}); !errors.Is(err, ErrQueues) {
		t.Errorf("a descriptor as two queues: %v, %v", other, err)
	}
}

// TestQueuesOfAnother checks that an existing device made for several queues is
// attached to with as many as are asked for.
func TestQueuesOfAnother(t *testing.T) {
	enterNamespace(t)
	addPersistent(t, "multi0", netlink.TUNTAP_MODE_TAP, netlink.TUNTAP_MULTI_QUEUE_DEFAULTS|netlink.TUNTAP_VNET_HDR, 2, true)
	for _, n := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			e, err := Open(Config{Name: "multi0", Queues: n})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if len(e.queues) != n {
				t.Errorf("%d queues", len(e.queues))
			}
		})
	}
}
