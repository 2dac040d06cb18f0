//go:build linux

package tap

import (
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
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
