package tcp

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// receive reads a segment out of a packet and counts it. The payload is
// referenced, not copied. A reason other than NotDropped means that there is no
// segment; it has been counted for the stack.
func (p *protocol) receive(id stack.TransportEndpointID, pkt *stack.PacketBuffer, to *packet) conn.DropReason {
	h := header.TCP(pkt.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize || int(h.DataOffset()) < header.TCPMinimumSize || int(h.DataOffset()) > len(h) {
		p.stats.InvalidSegmentsReceived.Increment()
		p.drop(conn.DropTCPFlags)
		return conn.DropTCPFlags
	}
	if !checksumOK(h, id, pkt) {
		p.stats.ChecksumErrors.Increment()
		p.drop(conn.DropTCPChecksum)
		return conn.DropTCPChecksum
	}
	p.stats.ValidSegmentsReceived.Increment()
	to.id, to.net, to.nic = id, pkt.NetworkProtocolNumber, pkt.NICID
	s := &to.seg
	s.Seq = seqnum.Value(h.SequenceNumber())
	s.Ack = seqnum.Value(h.AckNumber())
	s.Flags = h.Flags()
	s.Window = h.WindowSize()
	s.Urgent = h.UrgentPointer()
	s.CE = congestionExperienced(pkt)
	s.Arrived = p.now()
	s.GSOSize = pkt.GSOOptions.MSS
	conn.ParseOptions(h[header.TCPMinimumSize:h.DataOffset()], s.Has(header.TCPFlagSyn), &s.Options)
	if s.Has(header.TCPFlagRst) {
		p.stats.ResetsReceived.Increment()
	}
	if pkt.Data().Size() > 0 {
		s.Payload = pkt.Data().ToBuffer()
	}
	return conn.NotDropped
}

// checksumOK verifies the TCP checksum, unless the link has.
func checksumOK(h header.TCP, id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	if pkt.RXChecksumValidated {
		return true
	}
	data := pkt.Data()
	return h.IsChecksumValid(id.RemoteAddress, id.LocalAddress, data.Checksum(), uint16(data.Size()))
}

// congestionExperienced reports whether a router marked the packet.
// https://www.rfc-editor.org/rfc/rfc3168#section-5
func congestionExperienced(pkt *stack.PacketBuffer) bool {
	const ce = 3
	var tos uint8
	switch h := pkt.NetworkHeader().Slice(); pkt.NetworkProtocolNumber {
	case header.IPv4ProtocolNumber:
		tos, _ = header.IPv4(h).TOS()
	case header.IPv6ProtocolNumber:
		tos, _ = header.IPv6(h).TOS()
	}
	return tos&ce == ce
}

// HandlePacket implements stack.TransportEndpoint. It never waits for the
// endpoint: if another goroutine has it locked, that one processes the packet
// before it lets go. So it may be called from within this endpoint's own
// sending, as happens on a loopback.
func (e *Endpoint) HandlePacket(id stack.TransportEndpointID, pkt *stack.PacketBuffer) {
	var p packet
	if reason := e.proto.receive(id, pkt, &p); reason != conn.NotDropped {
		e.countMalformed(reason)
		return
	}
	e.stats.countReceived()
	e.handle(&p)
}

// countMalformed counts a segment that could not be read.
func (e *Endpoint) countMalformed(reason conn.DropReason) {
	if reason == conn.DropTCPChecksum {
		e.stats.all().ReceiveErrors.ChecksumErrors.Increment()
		return
	}
	e.stats.all().ReceiveErrors.MalformedPacketsReceived.Increment()
}

// handle takes a packet that was delivered to the endpoint, and owns it.
func (e *Endpoint) handle(p *packet) {
	if l := e.listening.Load(); l != nil {
		if p.icmp == nil {
			l.input(p)
		}
		return
	}
	if e.mu.TryLock() {
		now := e.proto.now()
		e.drain(now)
		e.input(now, p)
		e.unlock()
		return
	}
	if !e.inbox.push(p) {
		e.refuse(p, conn.DropSocketBacklog)
		e.stats.all().ReceiveErrors.SegmentQueueDropped.Increment()
		e.proto.droppedPackets.Increment()
		return
	}
	// Whoever had the lock may have looked into the inbox before the push and
	// let go after our attempt. Then nobody else comes for the packet.
	if e.mu.TryLock() {
		e.unlock()
	}
}

// refuse drops a packet that the connection never saw.
func (e *Endpoint) refuse(p *packet, reason conn.DropReason) {
	p.release()
	e.proto.drop(reason)
	e.countRefused(reason)
}

// countRefused counts a segment that the connection never saw.
func (e *Endpoint) countRefused(reason conn.DropReason) {
	e.stats.account().refused[reason].Add(1)
}

// drain processes the inbox. e.mu is held.
func (e *Endpoint) drain(now conn.Time) {
	for !e.inbox.empty() {
		queue := e.inbox.take()
		if queue == nil {
			return
		}
		for i := range queue.packets {
			e.input(now, &queue.packets[i])
		}
		giveBack(queue)
	}
}

// input processes one packet, and owns it. e.mu is held.
func (e *Endpoint) input(now conn.Time, p *packet) {
	switch {
	case p.icmp != nil:
		e.inputICMP(now, p)
	case !e.started || !e.place.registered || e.conn.State() == conn.StateClosed || e.waitedOut(now):
		// It found the endpoint while there was a connection, which has ended
		// since. Its tuple may mean something to another endpoint.
		o := e.forOthers()
		o.strays = append(o.strays, *p)
	case e.kept != nil && e.kept.hold(p):
	case e.isEmbryo():
		e.inputEmbryo(now, p)
	default:
		e.inputConn(now, p)
	}
}

// confirmInterval is how often a connection tells the neighbour cache at most
// that its next hop is there. The cache wants to know every few seconds, and
// sets a timer each time.
const confirmInterval = time.Second

// waitedOut reports whether TIME-WAIT is over, though the timer that ends it has
// yet to be heard: then it ends now. Any other timer comes second to a packet,
// which may be what it waits for. e.mu is held.
func (e *Endpoint) waitedOut(now conn.Time) bool {
	if e.conn.State() != conn.StateTimeWait || e.conn.Deadline() > now {
		return false
	}
	e.conn.Tick(now)
	return e.conn.State() == conn.StateClosed
}

// inputConn gives a segment to the connection. e.mu is held.
func (e *Endpoint) inputConn(now conn.Time, p *packet) {
	if e.conn.State() == conn.StateTimeWait && e.conn.Reusable(&p.seg) {
		// The tuple's next connection begins.
		e.yieldTuple()
		if e.userGone {
			e.conn.Abort(now)
		}
		o := e.forOthers()
		o.strays = append(o.strays, *p)
		return
	}
	synchronized := e.conn.State().Synchronized()
	reason := e.conn.Input(now, &p.seg)
	if e.opening != nil && e.conn.State().Synchronized() {
		e.learnFastOpen(&p.seg.Options)
	}
	e.proto.drop(reason)
	if reason == conn.NotDropped && e.route != nil && now >= e.confirmAt {
		e.confirmAt = now.Add(confirmInterval)
		e.route.ConfirmReachable()
	}
	if e.proto.prober != nil && synchronized {
		e.proto.prober.show(e.probeState(now))
	}
}

// redeliver hands on segments that found no connection any more, as if they
// came from the network now: to a listener, or for a reset in answer. No lock
// is held.
func (p *protocol) redeliver(from *Endpoint, strays []packet) {
	for i := range strays {
		s := &strays[i]
		ep, _ := p.stack.FindTransportEndpoint(s.net, ProtocolNumber, s.id, s.nic).(*Endpoint)
		if ep == nil || ep == from {
			p.answerStray(s)
			continue
		}
		ep.handle(s)
	}
}
