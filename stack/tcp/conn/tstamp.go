package conn

import (
	"time"
)

// timestampState is RFC 7323's timestamp option for one connection.
type timestampState struct {
	on     bool   // offered; after the handshake: agreed
	micros bool   // the clock ticks in microseconds: a restored kernel socket's
	offset uint32 // this flow's own, so that the clock is not everyone's
	recent uint32 // TS.Recent
	since  Time   // when recent was taken
}

// pawsIdle is how long TS.Recent is believed: after it the peer's clock may
// have wrapped. https://www.rfc-editor.org/rfc/rfc7323#section-5.5
const pawsIdle = 24 * 24 * time.Hour

// value is our timestamp clock: milliseconds, unless a restored connection's
// peer has seen it tick faster (Linux's TCP_TIMESTAMP knows both).
// https://www.rfc-editor.org/rfc/rfc7323#section-5.4
func (t *timestampState) value(now Time) uint32 {
	if t.micros {
		return uint32(int64(now)/int64(time.Microsecond)) + t.offset
	}
	return uint32(int64(now)/int64(time.Millisecond)) + t.offset
}

// set makes the clock go on from value.
func (t *timestampState) set(now Time, value uint32, micros bool) {
	t.micros, t.offset = micros, 0
	t.offset = value - t.value(now)
}

// start takes the peer's first timestamp.
func (t *timestampState) start(val uint32, now Time) { t.recent, t.since = val, now }

// fresh reports whether s could be the next segment of a peer whose clock does
// not run backwards, as the fast path needs to know.
func (t *timestampState) fresh(s *Segment) bool {
	return !t.on || int32(s.Options.TSVal-t.recent) >= 0
}

// stale is PAWS: the segment is older than one we have seen.
// https://www.rfc-editor.org/rfc/rfc7323#section-5.3 (R1)
func (t *timestampState) stale(now Time, s *Segment) bool {
	return t.on && s.Options.HasTS && !t.fresh(s) && now.Sub(t.since) < pawsIdle
}

// update takes the segment's timestamp as TS.Recent, if the segment reaches
// the left edge of what we last acknowledged.
// https://www.rfc-editor.org/rfc/rfc7323#section-4.3
func (c *Conn) updateTimestamp(now Time, s *Segment) {
	t := &c.tstamp
	if !t.on || !s.Options.HasTS {
		return
	}
	if s.Seq.LessThanEq(c.delack.acked) && (t.fresh(s) || now.Sub(t.since) >= pawsIdle) {
		t.recent, t.since = s.Options.TSVal, now
	}
}

// elapsed is how long ago our clock had the value ecr, to the tick, and
// whether that can be: not in the future, and not before a thaw.
func (c *Conn) elapsed(now Time, ecr uint32) (ago time.Duration, ok bool) {
	t, thawed := &c.tstamp, c.thawed
	ticks := int32(t.value(now) - ecr)
	if ticks < 0 || thawed != 0 && int32(ecr-t.value(thawed)) < 0 {
		return 0, false
	}
	tick := time.Millisecond
	if t.micros {
		tick = time.Microsecond
	}
	// Less than a tick is not nothing.
	return time.Duration(max(ticks, 1)) * tick, true
}
