package tcp

import (
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Whatever is known of the two ends comes back as it was.
func TestEndsKeepWhatIsKnown(t *testing.T) {
	var (
		none tcpip.Address
		four = tcpip.AddrFrom4([4]byte{192, 0, 2, 1})
		any4 = tcpip.AddrFrom4([4]byte{})
		six  = tcpip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: 1})
	)
	for _, local := range []tcpip.Address{none, four, any4, six} {
		for _, remote := range []tcpip.Address{none, four, any4, six} {
			id := stack.TransportEndpointID{LocalPort: 7, LocalAddress: local, RemotePort: 0xffff, RemoteAddress: remote}
			x := endsOf(id)
			if got := x.id(); got != id {
				t.Errorf("%v became %v", id, got)
			}
			if x.flowHash() == 0 {
				t.Errorf("%v has no hash", id)
			}
		}
	}
}

// Segments are counted beyond what a tally without an account can hold.
func TestTallyOfManySegments(t *testing.T) {
	var k tally
	k.received.Store(manySegments - 1)
	k.sent.Store(manySegments - 1)
	for range 3 {
		k.countReceived()
		k.countSent(2)
	}
	s := k.all()
	if got := s.SegmentsReceived.Value(); got != manySegments+2 {
		t.Errorf("%d segments were received, want %d", got, uint64(manySegments+2))
	}
	if got := s.SegmentsSent.Value(); got != manySegments+5 {
		t.Errorf("%d segments were sent, want %d", got, uint64(manySegments+5))
	}
}
