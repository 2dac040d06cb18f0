package conn

// Counters count events of one connection since it began. They only grow.
type Counters struct {
	SegsIn, SegsOut     uint64 // segments taken in, and put out
	BytesAcked          uint64 // what the peer acknowledged
	BytesReceived       uint64 // what was received in order
	Reordered           uint64 // acknowledgements that told of an original that had been overtaken
	Delivered           uint64 // segments that the peer is known to have, our SYN included
	BytesDelivered      uint64 // what the peer is known to have, acknowledged or SACKed
	BytesSent           uint64 // data sent, repetitions included
	BytesRetransmitted  uint64 // of it, repetitions
	OutOfOrder          uint64 // segments that came before their turn
	Retransmits         uint64 // segments sent again
	Timeouts            uint64 // times the retransmission timer expired
	SlowStartRetransmit uint64 // segments sent again after a timeout
	FastRetransmits     uint64 // segments sent again in fast recovery; with SACK, the first of each
	FastRecoveries      uint64 // recoveries begun without SACK
	SACKRecoveries      uint64 // recoveries with SACK, those that a probe was enough for included
	TailLossProbes      uint64 // RFC 8985 probes sent
	TailLossRecoveries  uint64 // recoveries begun by what such a probe revealed
	SpuriousRecoveries  uint64 // recoveries taken back
	SpuriousTimeouts    uint64 // timeouts taken back
	DSACKs              uint64 // acknowledgements that reported a duplicate
	KeepaliveProbes     uint64
	ZeroWindows         uint64 // acknowledgements sent with a closed window
	ChallengeACKs       uint64
}

// Counters returns the connection's event counters. They belong to it.
func (c *Conn) Counters() *Counters { return &c.stats }

// list returns the counters in the order in which a snapshot has them, which
// only grows.
func (k *Counters) list() [numCounters]*uint64 {
	return [numCounters]*uint64{
		&k.SegsIn, &k.SegsOut, &k.BytesAcked, &k.BytesReceived, &k.BytesDelivered, &k.BytesSent,
		&k.BytesRetransmitted, &k.OutOfOrder, &k.Retransmits, &k.Timeouts, &k.SlowStartRetransmit,
		&k.FastRetransmits, &k.FastRecoveries, &k.SACKRecoveries, &k.TailLossProbes, &k.TailLossRecoveries,
		&k.SpuriousRecoveries, &k.SpuriousTimeouts, &k.DSACKs, &k.KeepaliveProbes, &k.ZeroWindows,
		&k.ChallengeACKs, &k.Delivered, &k.Reordered,
	}
}

const numCounters = 24

// Events is a number that changes with each of the rare events: not those that
// every segment is.
func (k *Counters) Events() (sum uint64) {
	const first, end = 6, 22 // in the list: from BytesRetransmitted to ChallengeACKs
	list := k.list()
	for _, n := range list[first:end] {
		sum += *n
	}
	return sum
}
