package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// outboxSize is how many packets are made under the lock before it is let go
// to write them: enough to make the lock cheap, few enough that what arrives
// meanwhile is soon acted on.
const outboxSize = 16

// outbox holds packets from the moment they are made, with the endpoint
// locked, until they are written, without.
type outbox struct {
	n      int
	pkts   [outboxSize]*stack.PacketBuffer
	ect    uint32 // one bit a packet: it is ECN-capable
	route  *stack.Route
	params stack.NetworkHeaderParams
}

// pull fills the outbox with what the connection has to send. e.mu is held.
func (e *Endpoint) pull(now conn.Time, out *outbox) {
	if !e.started || e.released {
		return
	}
	h := outHeader{ends: &e.ends, route: e.route, owner: e.packetOwner(), mark: e.options().GetMark()}
	if e.options().GetExperimentOptionValue() != 0 {
		h.extension = experimentLength
	}
	var seg conn.Segment
	for out.n < outboxSize && e.conn.Output(now, &seg) {
		if e.route == nil {
			seg.Release() // the address went away and the endpoint with it
			continue
		}
		if seg.ECT {
			out.ect |= 1 << out.n
		}
		out.pkts[out.n] = h.packet(&seg)
		out.n++
		e.countSent(&seg)
		seg = conn.Segment{}
	}
	if out.n > 0 {
		out.route = e.route
		out.params = e.networkParams()
	}
}

// countSent counts a segment that goes out.
func (e *Endpoint) countSent(seg *conn.Segment) {
	n := uint32(1)
	if seg.GSOSize > 0 {
		if size := uint32(seg.DataLen()); size > uint32(seg.GSOSize) {
			n = (size + uint32(seg.GSOSize) - 1) / uint32(seg.GSOSize)
		}
	}
	e.stats.countSent(n)
	e.proto.countSent(seg.Flags, uint64(n))
}

// countSent counts segments of the stack.
func (p *protocol) countSent(flags header.TCPFlags, n uint64) {
	p.stats.SegmentsSent.IncrementBy(n)
	if flags&header.TCPFlagRst != 0 {
		p.stats.ResetsSent.IncrementBy(n)
	}
}

// write writes the packets, with no lock held.
func (out *outbox) write(e *Endpoint) {
	for i, pkt := range out.pkts[:out.n] {
		params := out.params
		if out.ect&(1<<i) != 0 {
			params.TOS |= ectBit
		}
		syn := header.TCP(pkt.TransportHeader().Slice()).Flags()&header.TCPFlagSyn != 0
		err := out.route.WritePacket(params, pkt)
		pkt.DecRef()
		if err == nil {
			continue
		}
		e.proto.stats.SegmentSendErrors.Increment()
		e.stats.all().SendErrors.SegmentSendToNetworkFailed.Increment()
		if syn {
			e.stats.all().SendErrors.SynSendToNetworkFailed.Increment()
		}
		if _, ok := err.(*tcpip.ErrHostUnreachable); ok {
			e.stats.all().SendErrors.NoRoute.Increment()
		}
	}
}

// ECN's code points in the two low bits of TOS and traffic class.
// https://www.rfc-editor.org/rfc/rfc3168#section-5
const (
	ecnMask = 3
	ectBit  = 2 // ECT(0)
)

// networkParams says how the endpoint's packets are to be sent. e.mu is held.
func (e *Endpoint) networkParams() stack.NetworkHeaderParams {
	p := stack.NetworkHeaderParams{
		Protocol: ProtocolNumber,
		DF:       e.settings.mtuDiscover.df(),
	}
	if e.route.NetProto() == header.IPv4ProtocolNumber {
		p.TTL, p.TOS = e.settings.ttl, e.settings.tos
	} else {
		p.TTL, p.TOS = e.settings.hopLimit, e.settings.trafficClass
	}
	if p.TTL == 0 {
		p.TTL = e.route.DefaultTTL()
	}
	if v := e.options().GetExperimentOptionValue(); v != 0 && passesExperimentOption(e.proto.stack, e.route.NICID()) {
		p.ExperimentOptionValue = v
	}
	return p
}

// passesExperimentOption reports whether an interface may send the IP
// experiment option.
func passesExperimentOption(s *stack.Stack, nic tcpip.NICID) bool {
	n, err := s.GetNICByID(nic)
	return err == nil && n.GetExperimentIPOptionEnabled()
}

// outHeader is what a packet needs besides the segment.
type outHeader struct {
	ends  *ends
	route *stack.Route
	owner tcpip.PacketOwner
	mark  uint32
	// extension is room for what the network layer may put into a header
	// beyond MaxHeaderLength.
	extension int
}

// experimentLength is the size of the IPv6 extension header that carries the
// experiment option; in IPv4 the option fits into the header's maximum.
const experimentLength = 8

// packet makes a packet of a segment, whose payload it takes over without
// copying.
func (o *outHeader) packet(seg *conn.Segment) *stack.PacketBuffer {
	hdrLen := header.TCPMinimumSize + seg.Options.Len()
	size := seg.Payload.Size()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: hdrLen + int(o.route.MaxHeaderLength()) + o.extension,
		Payload:            seg.Payload,
		Mark:               o.mark,
	})
	pkt.TransportProtocolNumber = ProtocolNumber
	pkt.Owner = o.owner
	pkt.Hash = o.ends.flowHash()
	h := header.TCP(pkt.TransportHeader().Push(hdrLen))
	h.Encode(&header.TCPFields{
		SrcPort:       o.ends.localPort,
		DstPort:       o.ends.remotePort,
		SeqNum:        uint32(seg.Seq),
		AckNum:        uint32(seg.Ack),
		DataOffset:    uint8(hdrLen),
		Flags:         seg.Flags,
		WindowSize:    seg.Window,
		UrgentPointer: seg.Urgent,
	})
	seg.Options.Encode(h[header.TCPMinimumSize:])
	o.setChecksum(h, pkt, size, seg.GSOSize)
	return pkt
}

// setChecksum fills in the checksum, or leaves it to the link where the link
// offers to, and the size of the pieces the link shall cut the payload into.
func (o *outHeader) setChecksum(h header.TCP, pkt *stack.PacketBuffer, size int64, gsoSize uint16) {
	r := o.route
	xsum := r.PseudoHeaderChecksum(ProtocolNumber, uint16(pkt.Size()))
	if size > 0 && r.HasHostGSOCapability() && r.Loop()&stack.PacketLoop == 0 {
		// The link finishes the sum, whether it cuts the packet up or not; the
		// field holds the pseudo-header's part. Without payload the sum is
		// quicker made than asked for.
		h.SetChecksum(xsum)
		pkt.GSOOptions = gsoFor(r, gsoSize)
		return
	}
	if r.RequiresTXTransportChecksum() {
		if size > 0 {
			xsum = checksum.Combine(xsum, pkt.Data().Checksum())
		}
		h.SetChecksum(^h.CalculateChecksum(xsum))
	}
}

// tcpChecksumOffset is where in a TCP header the checksum lies.
const tcpChecksumOffset = 16

// gsoFor describes a packet to a link with segmentation offload. size is how
// large the pieces shall be; 0: the packet is one piece.
func gsoFor(r *stack.Route, size uint16) stack.GSO {
	g := stack.GSO{
		Type:       stack.GSOTCPv4,
		NeedsCsum:  true,
		CsumOffset: tcpChecksumOffset,
		MSS:        size,
		L3HdrLen:   header.IPv4MinimumSize,
		MaxSize:    r.GSOMaxSize(),
	}
	if r.NetProto() == header.IPv6ProtocolNumber {
		g.Type, g.L3HdrLen = stack.GSOTCPv6, header.IPv6MinimumSize
	}
	if g.MSS == 0 {
		g.MSS = routeMSS(r)
	}
	return g
}

// routeMSS is the most payload a packet of the route's MTU can carry beside a
// TCP header without options.
func routeMSS(r *stack.Route) uint16 {
	mtu := min(int(r.MTU()), 0xffff)
	return uint16(max(mtu-header.TCPMinimumSize, 1))
}
