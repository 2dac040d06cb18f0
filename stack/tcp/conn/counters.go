package conn

// Counters count events of one connection since it began. They only grow.
type Counters struct {
	Traffic
	Mishaps
}

// Traffic counts what every connection has.
type Traffic struct {
	SegsIn, SegsOut uint64 // segments taken in, and put out
	BytesAcked      uint64 // what the peer acknowledged
	BytesReceived   uint64 // what was received in order
	Delivered       uint64 // segments that the peer is known to have, our SYN included
	BytesDelivered  uint64 // what the peer is known to have, acknowledged or SACKed
	BytesSent       uint64 // data sent, repetitions included
}

// Mishaps count what most connections never have.
type Mishaps struct {
	Reordered           uint64 // acknowledgements that told of an original that had been overtaken
	BytesRetransmitted  uint64 // of BytesSent, repetitions
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

// counters are a connection's Counters, in as little memory as they need.
type counters struct {
	Traffic
	*Mishaps
}

// noMishaps are those of all connections that have none. They are never written to.
var noMishaps Mishaps

// count returns the mishaps to be written to.
func (k *counters) count() *Mishaps {
	if k.Mishaps == &noMishaps {
		k.Mishaps = new(Mishaps)
	}
	return k.Mishaps
}

// Counters returns a copy of the connection's event counters.
func (c *Conn) Counters() Counters {
	c.begun()
	return Counters{c.stats.Traffic, *c.stats.Mishaps}
}

// Mishaps returns those of the connection, which owns them; nil if there are none.
func (c *Conn) Mishaps() *Mishaps {
	if c.stats.Mishaps == &noMishaps {
		return nil
	}
	return c.stats.Mishaps
}

// restore goes on from what there was.
func (k *counters) restore(from *Counters) {
	k.Traffic = from.Traffic
	if from.Mishaps != (Mishaps{}) {
		*k.count() = from.Mishaps
	}
}

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
