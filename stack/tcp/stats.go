package tcp

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// Stats counts what happened to one endpoint.
type Stats struct {
	// SegmentsReceived counts segments that could be parsed, SegmentsSent
	// those that were given to the network layer.
	SegmentsReceived tcpip.StatCounter
	SegmentsSent     tcpip.StatCounter
	// FailedConnectionAttempts counts calls of Connect that came to nothing.
	FailedConnectionAttempts tcpip.StatCounter

	ReceiveErrors ReceiveErrors
	ReadErrors    tcpip.ReadErrors
	SendErrors    SendErrors
	WriteErrors   tcpip.WriteErrors
}

// IsEndpointStats implements tcpip.EndpointStats.
func (*Stats) IsEndpointStats() {}

// ReceiveErrors counts segments that were not received as their sender hoped.
type ReceiveErrors struct {
	tcpip.ReceiveErrors

	// SegmentQueueDropped counts segments that found the inbox full.
	SegmentQueueDropped tcpip.StatCounter
	// ChecksumErrors counts segments with a wrong checksum.
	ChecksumErrors tcpip.StatCounter
	// ListenOverflowSynDrop and ListenOverflowAckDrop count SYNs, and the
	// last ACKs of handshakes, that found a listener's queue full.
	ListenOverflowSynDrop tcpip.StatCounter
	ListenOverflowAckDrop tcpip.StatCounter
	// ZeroRcvWindowState counts how often the advertised window fell to zero.
	ZeroRcvWindowState tcpip.StatCounter
	// WantZeroRcvWindow counts how often it would have, had that not moved
	// the window's right edge back.
	WantZeroRcvWindow tcpip.StatCounter
}

// SendErrors counts what went wrong in sending.
type SendErrors struct {
	tcpip.SendErrors

	// SegmentSendToNetworkFailed counts segments, SynSendToNetworkFailed the
	// SYNs among them, that the network layer refused.
	SegmentSendToNetworkFailed tcpip.StatCounter
	SynSendToNetworkFailed     tcpip.StatCounter
	// Retransmits counts retransmitted segments, FastRetransmit those that no
	// timeout called for, Timeouts how often the retransmission timer fired.
	Retransmits    tcpip.StatCounter
	FastRetransmit tcpip.StatCounter
	Timeouts       tcpip.StatCounter
}

// Stats implements tcpip.Endpoint. The result is a *Stats.
func (e *Endpoint) Stats() tcpip.EndpointStats { return e.stats.all() }

// tally is what is counted of one endpoint. Most never have anything to count
// but segments, and nobody ever asks, so that the account is there only from the
// first error or question on, or when those are many.
type tally struct {
	full           atomic.Pointer[account]
	received, sent atomic.Uint32 // what the account does not have yet
}

// account is all of it.
type account struct {
	Stats
	// refused counts what never reached the connection.
	refused [conn.NumDropReasons]atomic.Uint32
	// passedOn is what the stack's counters have of the connection's. The
	// endpoint's lock guards it.
	passedOn conn.Mishaps
}

// manySegments is how many are counted at most before there is an account.
const manySegments = 1 << 31

// account returns the account, which goes on counting.
func (t *tally) account() *account {
	if a := t.full.Load(); a != nil {
		return a
	}
	t.full.CompareAndSwap(nil, new(account))
	return t.full.Load()
}

// all returns the statistics, complete.
func (t *tally) all() *Stats {
	s := &t.account().Stats
	s.SegmentsReceived.IncrementBy(uint64(t.received.Swap(0)))
	s.SegmentsSent.IncrementBy(uint64(t.sent.Swap(0)))
	return s
}

func (t *tally) countReceived() {
	if s := t.full.Load(); s != nil {
		s.SegmentsReceived.Increment()
		return
	}
	if t.received.Add(1) >= manySegments {
		t.all()
	}
}

// countSent counts segments that were sent as one.
func (t *tally) countSent(n uint32) {
	if s := t.full.Load(); s != nil {
		s.SegmentsSent.IncrementBy(uint64(n))
		return
	}
	if t.sent.Add(n) >= manySegments {
		t.all()
	}
}

// gauges remembers which of the stack's counters an endpoint is part of, so
// that each is left as often as it was entered.
type gauges struct {
	established bool // in CurrentEstablished
	connected   bool // in CurrentConnected
	done        bool // its end has been counted
}

// countState keeps the stack's counters in step with the connection, which has
// gone from one state to another. e.mu is held.
func (e *Endpoint) countState(ev conn.Event, from, to conn.State) {
	s := &e.proto.stats
	g := &e.gauges
	if ev&conn.EventEstablished != 0 && !g.connected {
		g.established, g.connected = true, true
		s.CurrentEstablished.Increment()
		s.CurrentConnected.Increment()
		if e.passive {
			s.PassiveConnectionOpenings.Increment()
		} else {
			s.ActiveConnectionOpenings.Increment()
		}
	}
	if g.established && to != conn.StateEstablished {
		g.established = false
		s.CurrentEstablished.Decrement()
	}
	if to == conn.StateClosed && !g.done {
		g.done = true
		e.countEnd(from)
	}
}

// countEnd counts the end of a connection that was last seen in state from.
func (e *Endpoint) countEnd(from conn.State) {
	s := &e.proto.stats
	if !e.gauges.connected {
		e.failedAttempt()
		return
	}
	e.gauges.connected = false
	s.CurrentConnected.Decrement()
	s.EstablishedClosed.Increment()
	switch e.conn.Err() {
	case conn.ErrReset:
		if from == conn.StateEstablished || from == conn.StateCloseWait {
			s.EstablishedResets.Increment()
		}
	case conn.ErrTimeout:
		s.EstablishedTimedout.Increment()
	}
}

// countEvents adds to the stack's counters what the connection's have grown by
// since the last time. e.mu is held.
func (e *Endpoint) countEvents() {
	now := e.conn.Mishaps()
	if now == nil {
		return
	}
	if was := &e.stats.account().passedOn; *now != *was {
		e.countNews(now, was)
	}
}

// skipEvents takes what there is already for counted. e.mu is held.
func (e *Endpoint) skipEvents() {
	if now := e.conn.Mishaps(); now != nil {
		e.stats.account().passedOn = *now
	}
}

// countNews is countEvents when there are any.
func (e *Endpoint) countNews(now, was *conn.Mishaps) {
	s := &e.proto.stats
	add := func(n, w uint64, to ...*tcpip.StatCounter) {
		if n == w {
			return
		}
		for _, c := range to {
			c.IncrementBy(n - w)
		}
	}
	add(now.Retransmits, was.Retransmits, s.Retransmits, &e.stats.all().SendErrors.Retransmits)
	add(now.FastRetransmits, was.FastRetransmits, s.FastRetransmit, &e.stats.all().SendErrors.FastRetransmit)
	add(now.Timeouts, was.Timeouts, s.Timeouts, &e.stats.all().SendErrors.Timeouts)
	add(now.SlowStartRetransmit, was.SlowStartRetransmit, s.SlowStartRetransmits)
	add(now.FastRecoveries, was.FastRecoveries, s.FastRecovery)
	add(now.SACKRecoveries, was.SACKRecoveries, s.SACKRecovery)
	add(now.TailLossRecoveries, was.TailLossRecoveries, s.TLPRecovery)
	add(now.SpuriousRecoveries+now.SpuriousTimeouts, was.SpuriousRecoveries+was.SpuriousTimeouts, s.SpuriousRecovery)
	add(now.SpuriousTimeouts, was.SpuriousTimeouts, s.SpuriousRTORecovery)
	add(now.DSACKs, was.DSACKs, s.SegmentsAckedWithDSACK)
	add(now.ZeroWindows, was.ZeroWindows, &e.stats.all().ReceiveErrors.ZeroRcvWindowState)
	*was = *now
}

// failedAttempt counts a connection that did not come to be.
func (e *Endpoint) failedAttempt() {
	e.proto.stats.FailedConnectionAttempts.Increment()
	e.stats.all().FailedConnectionAttempts.Increment()
}

// DropCounts returns how many segments the TCP of a stack has refused, by
// reason, those for which there was no endpoint included. It is all zero for a
// stack whose TCP is not this package's.
func DropCounts(s *stack.Stack) (counts [conn.NumDropReasons]uint64) {
	if p := protocolOf(s); p != nil {
		for i := range counts {
			counts[i] = p.drops[i].Load()
		}
	}
	return counts
}
