package tcp

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// icmpQuoteSize is how much of the offending transport header an ICMP error
// carries at least (RFC 792).
const icmpQuoteSize = 8

// HandleError implements stack.TransportEndpoint: an ICMP error about one of
// our packets. pkt's data begins with the offending TCP header, of which
// icmpQuoteSize bytes are certain: the ports and the sequence number.
func (e *Endpoint) HandleError(err stack.TransportError, pkt *stack.PacketBuffer) {
	b, ok := pkt.Data().PullUp(icmpQuoteSize)
	if !ok {
		return
	}
	p := packet{icmp: err, net: pkt.NetworkProtocolNumber}
	p.seg.Seq = seqnum.Value(binary.BigEndian.Uint32(b[4:]))
	e.handle(&p)
}

// inputICMP tells the connection of an ICMP error. e.mu is held.
func (e *Endpoint) inputICMP(now conn.Time, p *packet) {
	if !e.started || e.conn.State() == conn.StateClosed {
		return
	}
	if p.icmp.Kind() == stack.PacketTooBigTransportError {
		// Without DF routers fragment, and it is no concern of ours.
		if e.settings.mtuDiscover.df() && credible(p) {
			e.proto.drop(e.conn.PathMTU(now, p.seg.Seq, mssFor(p.icmp.Info())))
		}
		return
	}
	if err, ok := pathErrors[p.icmp.Kind()]; ok {
		e.queueErr(p, err)
		e.proto.drop(e.conn.PathError(now, p.seg.Seq, err))
	}
}

// credible reports whether a path can have the MTU that an error tells of. What
// asks for less than every IPv6 link must carry is discarded.
// https://www.rfc-editor.org/rfc/rfc8201#section-4
func credible(p *packet) bool {
	return p.net != header.IPv6ProtocolNumber || p.icmp.Info() >= header.IPv6MinimumMTU-header.IPv6MinimumSize
}

// mssFor is the payload that a packet of a path MTU can carry. The stack
// reports an MTU without the IP header.
func mssFor(mtu uint32) uint16 {
	const least = header.TCPMinimumSize + 1
	return uint16(min(max(mtu, least), 0xffff) - header.TCPMinimumSize)
}

// queueErr records an ICMP error for a user that asked for it by IP_RECVERR or
// IPV6_RECVERR. e.mu is held.
func (e *Endpoint) queueErr(p *packet, err error) {
	wanted := e.options().GetIPv4RecvError()
	if e.route != nil && e.route.NetProto() == header.IPv6ProtocolNumber {
		wanted = e.options().GetIPv6RecvError()
	}
	if !wanted {
		return
	}
	e.ownOptions().QueueErr(&tcpip.SockError{
		Err:      tcpipError(err),
		Cause:    p.icmp,
		Dst:      e.remote(),
		Offender: e.local(),
		NetProto: p.net,
	})
}

// pathErrors says what an ICMP error means to a connection.
var pathErrors = map[stack.TransportErrorKind]error{
	stack.DestinationHostUnreachableTransportError:    conn.ErrHostUnreachable,
	stack.DestinationHostDownTransportError:           conn.ErrHostUnreachable,
	stack.SourceHostIsolatedTransportError:            conn.ErrHostUnreachable,
	stack.SourceRouteFailedTransportError:             conn.ErrHostUnreachable,
	stack.DestinationNetworkUnreachableTransportError: conn.ErrNetUnreachable,
	stack.DestinationPortUnreachableTransportError:    conn.ErrRefused,
	stack.DestinationProtoUnreachableTransportError:   conn.ErrRefused,
}
