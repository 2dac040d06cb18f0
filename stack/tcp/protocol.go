// Package tcp is a TCP for gVisor's netstack. It stands in for gVisor's own
// package of the same name: where that package exports a name, this one
// exports it with the same meaning, so that the import path is all that
// changes. What it adds is the repair interface (Endpoint.SetRepair and what
// follows from it) and a reason for every segment that is refused.
//
// The protocol itself is in package conn, one sans-I/O Conn per endpoint. This
// package gives it what it lacks: addresses, ports, routes, packets, a clock,
// randomness, locks, and the sockets' ways.
//
// There are no processor goroutines. A packet is processed by the goroutine
// that delivers it, or, if the endpoint is busy, by the one that has it locked;
// see Endpoint.unlock.
package tcp

import (
	"sync/atomic"
	"time"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/header/parse"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/raw"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// ProtocolNumber is TCP's number in the IP header.
const ProtocolNumber = header.TCPProtocolNumber

// Buffer sizes in bytes, as socket options count them.
const (
	// MinBufferSize is the least a send or receive buffer may be set to.
	MinBufferSize = 4 << 10
	// DefaultSendBufferSize is a new endpoint's send buffer.
	DefaultSendBufferSize = 1 << 20
	// DefaultReceiveBufferSize is a new endpoint's receive buffer.
	DefaultReceiveBufferSize = 1 << 20
	// MaxBufferSize is the most a buffer may be set to, or tune itself to.
	MaxBufferSize = 4 << 20
	// SegOverheadFactor is how much larger a receive buffer is than the
	// window it advertises: the rest allows for what holding a segment costs
	// besides its payload.
	SegOverheadFactor = 2
)

// SegOverheadSize is about what a received segment costs in memory besides its
// payload, in bytes.
const SegOverheadSize = int(unsafe.Sizeof(packet{})) + stack.PacketBufferStructSize + header.IPv4MaximumHeaderSize

// Timers and counts that an endpoint starts with.
const (
	// DefaultTCPLingerTimeout is how long a closed endpoint waits in
	// FIN-WAIT-2, MaxTCPLingerTimeout the longest that may be set.
	DefaultTCPLingerTimeout = 60 * time.Second
	MaxTCPLingerTimeout     = 120 * time.Second
	// DefaultTCPTimeWaitTimeout is how long TIME-WAIT lasts.
	DefaultTCPTimeWaitTimeout = 60 * time.Second
	// DefaultSynRetries is how often a SYN is sent again.
	DefaultSynRetries = 6
	// DefaultKeepaliveIdle, DefaultKeepaliveInterval and
	// DefaultKeepaliveCount say when a silent peer is probed, how often, and
	// after how many unanswered probes it is given up.
	DefaultKeepaliveIdle     = 2 * time.Hour
	DefaultKeepaliveInterval = 75 * time.Second
	DefaultKeepaliveCount    = 9
	// InitialRTO is the retransmission timeout before the first RTT sample;
	// MinRTO and MaxRTO bound it afterwards.
	InitialRTO = time.Second
	MinRTO     = 200 * time.Millisecond
	MaxRTO     = 120 * time.Second
	// InitialCwnd is the initial congestion window in segments (RFC 6928).
	InitialCwnd = 10
	// MaxRetries is how often data is retransmitted before the peer is given up.
	MaxRetries = 15
)

// protocol is TCP on one stack: what its endpoints share.
type protocol struct {
	stack    *stack.Stack
	prober   *prober // nil: nobody wants to see
	secrets  secrets
	options  options
	like     likenesses
	places   places
	fastOpen fastOpenState
	batcher  Batcher

	stats          tcpip.TCPStats     // the stack's
	droppedPackets *tcpip.StatCounter // the stack's

	profile atomic.Pointer[conn.Profile] // of the last connection, for others like it

	lastID atomic.Uint64
	drops  [conn.NumDropReasons]atomic.Uint64
}

// Interfaces that gVisor's stack asks of a transport protocol; it asserts the
// second without saying so in a signature.
var (
	_ stack.TransportProtocol = (*protocol)(nil)
	_ stack.SendBufSizeProto  = (*protocol)(nil)
)

// NewProtocol returns a TCP whose connections use Reno congestion control
// unless told otherwise. It is for stack.Options.TransportProtocols.
func NewProtocol(s *stack.Stack) stack.TransportProtocol {
	return newProtocol(s, "reno", nil)
}

// NewProtocolCUBIC is NewProtocol with CUBIC congestion control.
func NewProtocolCUBIC(s *stack.Stack) stack.TransportProtocol {
	return newProtocol(s, "cubic", nil)
}

// NewProtocolProbe returns a factory like NewProtocol that shows probe every
// connection after each segment it has processed; see TCPProbeFunc.
func NewProtocolProbe(probe TCPProbeFunc) func(*stack.Stack) stack.TransportProtocol {
	return func(s *stack.Stack) stack.TransportProtocol {
		return newProtocol(s, "reno", probe)
	}
}

func newProtocol(s *stack.Stack, congestion string, probe TCPProbeFunc) *protocol {
	stats := s.Stats()
	p := &protocol{stack: s, stats: stats.TCP, droppedPackets: stats.DroppedPackets}
	if probe != nil {
		p.prober = &prober{probe: probe}
	}
	p.secrets.init(s.SecureRNG().Reader)
	p.options.init(congestion)
	p.places.clock = s.Clock()
	return p
}

// protocolOf returns the TCP of a stack, or nil if it runs another one.
func protocolOf(s *stack.Stack) *protocol {
	p, _ := s.TransportProtocolInstance(ProtocolNumber).(*protocol)
	return p
}

// now is the present on the stack's monotonic clock. It starts at 1, because
// conn.Segment takes a zero time of arrival for none.
func (p *protocol) now() conn.Time {
	return conn.Time(p.stack.Clock().NowMonotonic().Sub(tcpip.MonotonicTime{})) + 1
}

// drop counts a refused segment.
func (p *protocol) drop(r conn.DropReason) {
	if r != conn.NotDropped {
		p.drops[r].Add(1)
	}
}

// Number implements stack.TransportProtocol.
func (*protocol) Number() tcpip.TransportProtocolNumber { return ProtocolNumber }

// NewEndpoint implements stack.TransportProtocol.
func (p *protocol) NewEndpoint(net tcpip.NetworkProtocolNumber, wq *waiter.Queue) (tcpip.Endpoint, tcpip.Error) {
	return newEndpoint(p, net, wq), nil
}

// NewRawEndpoint implements stack.TransportProtocol.
func (p *protocol) NewRawEndpoint(net tcpip.NetworkProtocolNumber, wq *waiter.Queue) (tcpip.Endpoint, tcpip.Error) {
	return raw.NewEndpoint(p.stack, net, ProtocolNumber, wq)
}

// MinimumPacketSize implements stack.TransportProtocol.
func (*protocol) MinimumPacketSize() int { return header.TCPMinimumSize }

// ParsePorts implements stack.TransportProtocol. The stack also asks it about
// what an ICMP error quotes, which may be the first 8 bytes of a header only.
func (*protocol) ParsePorts(b []byte) (src, dst uint16, err tcpip.Error) {
	const portsSize = 4
	if len(b) < portsSize {
		return 0, 0, &tcpip.ErrMalformedHeader{}
	}
	h := header.TCP(b)
	return h.SourcePort(), h.DestinationPort(), nil
}

// Parse implements stack.TransportProtocol.
func (*protocol) Parse(pkt *stack.PacketBuffer) bool { return parse.TCP(pkt) }

// Close implements stack.TransportProtocol. The stack has aborted the
// endpoints before.
func (p *protocol) Close() { p.places.close() }

// Wait implements stack.TransportProtocol.
func (*protocol) Wait() {}

// Pause implements stack.TransportProtocol. Nothing runs in the background.
func (*protocol) Pause() {}

// Resume implements stack.TransportProtocol.
func (*protocol) Resume() {}

// Restore implements stack.TransportProtocol.
func (*protocol) Restore() {}

// SendBufferSize implements stack.SendBufSizeProto.
func (p *protocol) SendBufferSize() tcpip.TCPSendBufferSizeRangeOption {
	return p.options.snapshot().sndBuf
}
