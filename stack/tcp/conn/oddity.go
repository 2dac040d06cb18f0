package conn

// oddities are what few connections ever meet. They are made when the first
// happens.
type oddities struct {
	frozenAt Time // since when the connection is in repair mode
	thawed   Time // when it last was no more; echoes from before are not timed
	early    earlyData
	pace     pacer
	soft     softError
	hole     blackHole
	limits   answerLimits
	rst      rst                     // the reset that is owed
	drops    *[NumDropReasons]uint32 // nil: all are zero
	hindered hindered
}

// nothingOdd is what all connections have that have met none. It is never written to.
var nothingOdd oddities

// odd returns the connection's oddities to be written to.
func (c *Conn) odd() *oddities {
	if c.begun(); c.oddities == &nothingOdd {
		c.oddities = new(oddities)
	}
	return c.oddities
}
