package tcp

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// TCPProbeFunc is shown what a connection is like after a segment, once the
// handshake is complete. It is called for one segment after the other, in
// order, on a goroutine of its own, and may take its time.
type TCPProbeFunc func(s *TCPEndpointState)

// prober calls a probe function. Its goroutine lives while there is something
// to show.
type prober struct {
	probe TCPProbeFunc

	mu    sync.Mutex
	queue []*TCPEndpointState
	busy  bool // the goroutine runs
}

// show queues a picture for the probe.
func (p *prober) show(s *TCPEndpointState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, s)
	if !p.busy {
		p.busy = true
		go p.run()
	}
}

func (p *prober) run() {
	for {
		p.mu.Lock()
		if len(p.queue) == 0 {
			p.busy = false
			p.mu.Unlock()
			return
		}
		s := p.queue[0]
		p.queue = p.queue[1:]
		p.mu.Unlock()
		p.probe(s)
	}
}

// TCPEndpointState is a picture of an endpoint's connection.
type TCPEndpointState struct {
	// ID names the connection.
	ID TCPEndpointID
	// SegTime is when the segment was processed.
	SegTime  tcpip.MonotonicTime
	Receiver TCPReceiverState
	Sender   TCPSenderState
}

// TCPEndpointID is a connection's addresses and ports.
type TCPEndpointID struct {
	LocalPort     uint16
	LocalAddress  tcpip.Address
	RemotePort    uint16
	RemoteAddress tcpip.Address
}

// TCPReceiverState is the receiving half.
type TCPReceiverState struct {
	// RcvNxt is RCV.NXT, RcvAcc the right edge of the window.
	RcvNxt, RcvAcc seqnum.Value
	RcvWndScale    uint8
	// PendingBufUsed is how many bytes wait out of order.
	PendingBufUsed int
}

// TCPSenderState is the sending half. Windows are in segments where gVisor
// counts them so.
type TCPSenderState struct {
	SndCwnd, Ssthresh      int
	Outstanding, SackedOut int
	SndWnd                 seqnum.Size // bytes
	SndUna, SndNxt         seqnum.Value
	RTO                    time.Duration
	RTTState               TCPRTTState
	MaxPayloadSize         int // bytes
	SndWndScale            uint8
	FastRecovery           TCPFastRecoveryState
	RACKState              TCPRACKState
	// RetransmitTS is the timestamp of the first retransmission of the latest
	// recovery (RFC 3522); SpuriousRecovery, that it proved unnecessary.
	RetransmitTS     uint32
	SpuriousRecovery bool
}

// TCPRTTState is RFC 6298's estimate of the round trip.
type TCPRTTState struct {
	SRTT, RTTVar time.Duration
	SRTTInited   bool
}

// TCPFastRecoveryState says whether loss recovery is under way.
type TCPFastRecoveryState struct {
	Active bool
}

// TCPRACKState is RFC 8985's state.
type TCPRACKState struct {
	// XmitTime and EndSequence are of the most recently sent segment that was
	// delivered, RTT is its round trip, FACK the highest sequence number
	// delivered.
	XmitTime    tcpip.MonotonicTime
	EndSequence seqnum.Value
	FACK        seqnum.Value
	RTT         time.Duration
	// Reord: reordering was seen; DSACKSeen: a duplicate was reported.
	Reord     bool
	DSACKSeen bool
	// ReoWnd is the reordering window, ReoWndIncr its multiplier,
	// ReoWndPersist for how many recoveries that stands.
	ReoWnd        time.Duration
	ReoWndIncr    uint8
	ReoWndPersist int8
}

// probeState is a picture of the connection. e.mu is held.
func (e *Endpoint) probeState(now conn.Time) *TCPEndpointState {
	i := e.conn.Info(now)
	id := e.ends.id()
	return &TCPEndpointState{
		ID: TCPEndpointID{
			LocalPort:     id.LocalPort,
			LocalAddress:  id.LocalAddress,
			RemotePort:    id.RemotePort,
			RemoteAddress: id.RemoteAddress,
		},
		SegTime: e.proto.stack.Clock().NowMonotonic(),
		Receiver: TCPReceiverState{
			RcvNxt:         i.RcvNxt,
			RcvAcc:         i.RcvNxt.Add(seqnum.Size(i.RcvWnd)),
			RcvWndScale:    i.RcvWScale,
			PendingBufUsed: int(i.OutOfOrder),
		},
		Sender: probeSender(&i),
	}
}

func probeSender(i *conn.Info) TCPSenderState {
	const recovery = 3 // Linux TCP_CA_Recovery
	return TCPSenderState{
		SndCwnd:        int(segments(i.Cwnd, i.SndMSS)),
		Ssthresh:       int(segments(i.Ssthresh, i.SndMSS)),
		Outstanding:    i.Unacked,
		SackedOut:      i.Sacked,
		SndWnd:         seqnum.Size(i.SndWnd),
		SndUna:         i.SndUna,
		SndNxt:         i.SndNxt,
		RTO:            i.RTO,
		RTTState:       TCPRTTState{SRTT: i.RTT, RTTVar: i.RTTVar, SRTTInited: i.RTT != 0},
		MaxPayloadSize: i.SndMSS,
		SndWndScale:    i.SndWScale,
		FastRecovery:   TCPFastRecoveryState{Active: i.CongestionState == recovery},
		RACKState: TCPRACKState{
			XmitTime:      monotonic(i.RACK.Sent),
			EndSequence:   i.RACK.End,
			FACK:          i.RACK.FACK,
			RTT:           i.RACK.RTT,
			Reord:         i.Reordering,
			DSACKSeen:     i.Counters.DSACKs > 0,
			ReoWnd:        i.RACK.Window,
			ReoWndIncr:    i.RACK.Steps,
			ReoWndPersist: int8(i.RACK.Persist),
		},
		RetransmitTS:     i.ResentTS,
		SpuriousRecovery: i.Spurious,
	}
}

// monotonic is the stack's own expression of a connection's time; see
// protocol.now.
func monotonic(t conn.Time) tcpip.MonotonicTime {
	return tcpip.MonotonicTime{}.Add(time.Duration(t - 1))
}
