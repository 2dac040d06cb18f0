//go:build linux

package tap

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// BenchmarkFrameEcho is the link alone: a frame from the kernel that is
// answered where it is delivered.
func BenchmarkFrameEcho(b *testing.B) {
	enterNamespace(b)
	e := openTAP(b, Config{Name: "tap0", Address: ourMAC})
	mac := tcpip.LinkAddress(link(b, "tap0").Attrs().HardwareAddr)
	e.Attach(dispatcher(func(pkt *stack.PacketBuffer) {
		if pkt.NetworkProtocolNumber == testProto {
			send(e, outbound(e, mac, []byte("answer"), 10))
		}
	}))
	raw := newPacketSocket(b, "tap0")
	frame := ethernetFrame(ourMAC, testProto, 60)
	buf := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		raw.send(b, frame)
		raw.receive(b, buf)
	}
}

// tcpPair is a connection between the kernel's TCP and gVisor's.
func tcpPair(b *testing.B) (kernel, ours net.Conn) {
	s, _ := newStack(b, Config{Name: "tap0"})
	l, err := gonet.ListenTCP(s, tcpip.FullAddress{Port: 80}, header.IPv4ProtocolNumber)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	kernel, err = net.Dial("tcp", netip.AddrPortFrom(families[0].stack, 80).String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { kernel.Close() })
	ours, err = l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ours.Close() })
	return kernel, ours
}

// BenchmarkTCPRoundTrip is one byte to and fro, through gVisor's TCP and two
// goroutines.
func BenchmarkTCPRoundTrip(b *testing.B) {
	kernel, ours := tcpPair(b)
	go io.Copy(ours, ours)
	buf := []byte{1}
	for b.Loop() {
		if _, err := kernel.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(kernel, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTCP is bulk data through gVisor's TCP, a mebibyte at a time.
func BenchmarkTCP(b *testing.B) {
	bulk := func(b *testing.B, from, to net.Conn) {
		go io.Copy(io.Discard, to)
		buf := make([]byte, 1<<20)
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			if _, err := from.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("receive", func(b *testing.B) {
		kernel, ours := tcpPair(b)
		bulk(b, kernel, ours)
	})
	b.Run("send", func(b *testing.B) {
		kernel, ours := tcpPair(b)
		bulk(b, ours, kernel)
	})
}
