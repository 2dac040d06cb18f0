package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// HandleUnknownDestinationPacket implements stack.TransportProtocol: a segment
// for which there is no connection is answered with a reset.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.1
func (p *protocol) HandleUnknownDestinationPacket(id stack.TransportEndpointID, pkt *stack.PacketBuffer) stack.UnknownDestinationPacketDisposition {
	var s packet
	if p.receive(id, pkt, &s) != conn.NotDropped {
		return stack.UnknownDestinationPacketMalformed
	}
	if !p.places.swallowStray(&s) && !p.arrived(&s) {
		p.answerStray(&s)
	}
	return stack.UnknownDestinationPacketHandled
}

// arrived gives a segment to the connection that has come while it was on its
// way: there was none when it was looked for, and when its place was, the place
// had been filled.
func (p *protocol) arrived(s *packet) bool {
	e, ok := p.stack.FindTransportEndpoint(s.net, ProtocolNumber, s.id, s.nic).(*Endpoint)
	if !ok || e.listening.Load() != nil {
		return false
	}
	e.handle(s)
	return true
}

// answerStray answers a segment that belongs to no connection, and releases it.
// One that belongs to a connection which is elsewhere has no answer.
func (p *protocol) answerStray(s *packet) {
	if p.places.swallowStray(s) {
		return
	}
	p.drop(conn.DropNoSocket)
	p.answerReset(s)
}

// answerReset sends the reset that s calls for, if any, and releases s.
func (p *protocol) answerReset(s *packet) {
	defer s.release()
	if s.icmp != nil {
		return
	}
	if rst, ok := conn.Reset(&s.seg); ok {
		p.reply(s, &rst, replyParams{})
	}
}

// replyParams are how a segment that belongs to no endpoint is to be sent.
type replyParams struct {
	ttl, hopLimit     uint8 // 0: the network's default
	tos, trafficClass uint8
	owner             tcpip.PacketOwner
	mark              uint32
}

// replyParams are how the endpoint's answers to strangers are to be sent. e.mu
// is held.
func (e *Endpoint) replyParams() replyParams {
	return replyParams{
		ttl:          e.settings.ttl,
		hopLimit:     e.settings.hopLimit,
		tos:          e.settings.tos,
		trafficClass: e.settings.trafficClass,
		owner:        e.packetOwner(),
		mark:         e.options().GetMark(),
	}
}

// reply sends seg where s came from, from the address that s was sent to.
func (p *protocol) reply(s *packet, seg *conn.Segment, how replyParams) tcpip.Error {
	route, err := p.replyRoute(s)
	if err != nil {
		seg.Release()
		p.stats.SegmentSendErrors.Increment()
		return err
	}
	defer route.Release()
	ends := endsOf(s.id)
	h := outHeader{ends: &ends, route: route, owner: how.owner, mark: how.mark}
	pkt := h.packet(seg)
	defer pkt.DecRef()
	params := stack.NetworkHeaderParams{Protocol: ProtocolNumber, TTL: how.ttl, TOS: how.tos}
	if s.net == header.IPv6ProtocolNumber {
		params.TTL, params.TOS = how.hopLimit, how.trafficClass
	}
	if params.TTL == 0 {
		params.TTL = route.DefaultTTL()
	}
	p.countSent(seg.Flags, 1)
	if err := route.WritePacket(params, pkt); err != nil {
		p.stats.SegmentSendErrors.Increment()
		return err
	}
	return nil
}

// replyRoute finds the way back to the sender of s: by the interface it came
// in by, or if that leads nowhere by any.
func (p *protocol) replyRoute(s *packet) (*stack.Route, tcpip.Error) {
	r, err := p.stack.FindRoute(s.nic, s.id.LocalAddress, s.id.RemoteAddress, s.net, false)
	if err == nil {
		return r, nil
	}
	return p.stack.FindRoute(0, s.id.LocalAddress, s.id.RemoteAddress, s.net, false)
}
