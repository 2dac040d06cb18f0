package stack

import "gvisor.dev/gvisor/pkg/tcpip"

// Stats counts what the stack has done since New. NetStack().Stats() has many
// more counters.
type Stats struct {
	TCP TCPStats
	// PacketsReceived and PacketsSent count IP packets of both versions.
	PacketsReceived, PacketsSent uint64
	// PacketsMalformed counts received packets whose headers made no sense.
	PacketsMalformed uint64
}

// TCPStats counts what the stack's TCP has done, in segments or connections.
type TCPStats struct {
	ActiveOpens, PassiveOpens uint64
	// Established is how many connections are in ESTABLISHED or CLOSE-WAIT now.
	Established      uint64
	FailedAttempts   uint64
	SegmentsReceived uint64 // those whose headers and checksum were right
	SegmentsInvalid  uint64 // those whose were not
	SegmentsSent     uint64
	Retransmits      uint64
	Timeouts         uint64 // retransmission timer
	ResetsReceived   uint64
	ResetsSent       uint64
	// ListenOverflows counts SYNs, and last ACKs of handshakes, that found a
	// listener's queue full.
	ListenOverflows uint64
}

// Stats returns the counters.
func (s *Stack) Stats() Stats {
	all := s.net.Stats()
	t := all.TCP
	return Stats{
		TCP: TCPStats{
			ActiveOpens:      t.ActiveConnectionOpenings.Value(),
			PassiveOpens:     t.PassiveConnectionOpenings.Value(),
			Established:      t.CurrentEstablished.Value(),
			FailedAttempts:   t.FailedConnectionAttempts.Value(),
			SegmentsReceived: t.ValidSegmentsReceived.Value(),
			SegmentsInvalid:  sum(t.InvalidSegmentsReceived, t.ChecksumErrors),
			SegmentsSent:     t.SegmentsSent.Value(),
			Retransmits:      t.Retransmits.Value(),
			Timeouts:         t.Timeouts.Value(),
			ResetsReceived:   t.ResetsReceived.Value(),
			ResetsSent:       t.ResetsSent.Value(),
			ListenOverflows:  sum(t.ListenOverflowSynDrop, t.ListenOverflowAckDrop),
		},
		PacketsReceived:  all.IP.PacketsReceived.Value(),
		PacketsSent:      all.IP.PacketsSent.Value(),
		PacketsMalformed: all.IP.MalformedPacketsReceived.Value(),
	}
}

func sum(counters ...*tcpip.StatCounter) (n uint64) {
	for _, c := range counters {
		n += c.Value()
	}
	return n
}
