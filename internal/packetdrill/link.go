package packetdrill

import (
	"errors"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// link is the interface of the stack under test: what the stack sends is kept
// for the runner, what the runner injects goes in at once.
type link struct {
	clock func() time.Duration

	mu         sync.Mutex
	mtu        uint32
	dispatcher stack.NetworkDispatcher
	sent       []*segment
	fault      error // the first packet that could not be read
	choked     bool  // sends nothing, and says so
	gso        bool
}

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
)

// MTU implements stack.LinkEndpoint.
func (l *link) MTU() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mtu
}

// SetMTU implements stack.LinkEndpoint.
func (l *link) SetMTU(mtu uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mtu = mtu
}

// Attach implements stack.LinkEndpoint.
func (l *link) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = d
}

// IsAttached implements stack.LinkEndpoint.
func (l *link) IsAttached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dispatcher != nil
}

// MaxHeaderLength implements stack.LinkEndpoint.
func (*link) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements stack.LinkEndpoint.
func (*link) LinkAddress() tcpip.LinkAddress { return "" }

// SetLinkAddress implements stack.LinkEndpoint.
func (*link) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities implements stack.LinkEndpoint.
func (*link) Capabilities() stack.LinkEndpointCapabilities { return stack.CapabilityNone }

// Wait implements stack.LinkEndpoint.
func (*link) Wait() {}

// ARPHardwareType implements stack.LinkEndpoint.
func (*link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader implements stack.LinkEndpoint.
func (*link) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements stack.LinkEndpoint.
func (*link) ParseHeader(*stack.PacketBuffer) bool { return true }

// Close implements stack.LinkEndpoint.
func (*link) Close() {}

// SetOnCloseAction implements stack.LinkEndpoint.
func (*link) SetOnCloseAction(func()) {}

// GSOMaxSize implements stack.GSOEndpoint.
func (*link) GSOMaxSize() uint32 { return 1 << 16 }

// SupportedGSO implements stack.GSOEndpoint.
func (l *link) SupportedGSO() stack.SupportedGSO {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gso {
		return stack.HostGSOSupported
	}
	return stack.GSONotSupported
}

// WritePackets implements stack.LinkEndpoint.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	now := l.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, pkt := range pkts.AsSlice() {
		if l.choked {
			return n, &tcpip.ErrNoBufferSpace{}
		}
		n++
		b := pkt.ToView()
		s, err := decodeSegment(b.AsSlice(), now, !pkt.GSOOptions.NeedsCsum)
		if err == nil && b.Size() > int(l.mtu) && pkt.GSOOptions.Type == stack.GSONone {
			err = errors.New("the stack sent a packet larger than the MTU")
		}
		b.Release()
		switch {
		case err == errNotTCP:
		case err != nil && l.fault == nil:
			l.fault = err
		case err == nil && pkt.GSOOptions.Type != stack.GSONone:
			l.sent = append(l.sent, cut(s, int(pkt.GSOOptions.MSS))...)
		case err == nil:
			l.sent = append(l.sent, s)
		}
	}
	return n, nil
}

// cut does what a network card does with a segment that is too large.
func cut(s *segment, mss int) (pieces []*segment) {
	if mss <= 0 {
		return []*segment{s}
	}
	for len(s.payload) > mss {
		head := *s
		head.payload = s.payload[:mss]
		head.tcp.Flags &^= FIN | PSH
		head.tcp.Len, head.tcp.End = mss, s.tcp.Seq+uint32(mss)
		s.payload = s.payload[mss:]
		s.tcp.Seq, s.tcp.Len = head.tcp.End, len(s.payload)
		s.tcp.Flags &^= CWR
		pieces = append(pieces, &head)
	}
	return append(pieces, s)
}

// take returns what has been sent since the last call.
func (l *link) take() ([]*segment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sent
	l.sent = nil
	return s, l.fault
}

// choke makes the interface refuse packets, or take them again.
func (l *link) choke(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.choked = on
}

// inject hands an IP packet to the stack. mss, if not 0, says that it was merged
// from segments of that size.
func (l *link) inject(b []byte, mss int) {
	l.mu.Lock()
	d := l.dispatcher
	l.mu.Unlock()
	if d == nil {
		return
	}
	proto := header.IPv4ProtocolNumber
	if b[0]>>4 == 6 {
		proto = header.IPv6ProtocolNumber
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	defer pkt.DecRef()
	pkt.GSOOptions.MSS = uint16(mss)
	d.DeliverNetworkPacket(proto, pkt)
}
