package stack

import "gvisor.dev/gvisor/pkg/tcpip"

// Stats counts what the stack has done since New. NetStack().Stats() has many
// more counters.
type Stats struct {
	TCP TCPStats `json:"tcp"`
	// PacketsReceived and PacketsSent count IP packets of both versions.
	PacketsReceived uint64 `json:"packets_received"`
	PacketsSent     uint64 `json:"packets_sent"`
	// PacketsMalformed counts received packets whose headers made no sense.
	PacketsMalformed uint64 `json:"packets_malformed"`
}

// TCPStats counts what the stack's TCP has done, in segments or connections.
type TCPStats struct {
	ActiveOpens  uint64 `json:"active_opens"`
	PassiveOpens uint64 `json:"passive_opens"`
	// Established is how many connections are in ESTABLISHED or CLOSE-WAIT now.
	Established      uint64 `json:"established"`
	FailedAttempts   uint64 `json:"failed_attempts"`
	SegmentsReceived uint64 `json:"segments_received"` // those whose headers and checksum were right
	SegmentsInvalid  uint64 `json:"segments_invalid"`  // those whose were not
	SegmentsSent     uint64 `json:"segments_sent"`
	Retransmits      uint64 `json:"retransmits"`
	Timeouts         uint64 `json:"timeouts"` // retransmission timer
	ResetsReceived   uint64 `json:"resets_received"`
	ResetsSent       uint64 `json:"resets_sent"`
	// ListenOverflows counts SYNs, and last ACKs of handshakes, that found a
	// listener's queue full.
	ListenOverflows uint64 `json:"listen_overflows"`
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
