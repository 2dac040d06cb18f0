package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// What a SYN cookie has no room for is put into the lowest bits of the
// timestamp that goes with it, and comes back in its echo. It costs the
// timestamp up to 63 ms of its truth, once. Linux does the same
// (net/ipv4/syncookies.c, cookie_init_timestamp).
const (
	cookieTSBits    = 6
	cookieTSMask    = 1<<cookieTSBits - 1
	cookieNoScale   = 0xf // in the four bits of the peer's window scale
	cookieScaleMask = 0xf
	cookieSACK      = 1 << 4
)

// timestampCookies reports whether a listener's cookies use the timestamp. A
// stack that is told to use cookies always uses the bare ones, as gVisor's
// does; that option is there to see them work.
func (p *protocol) timestampCookies() bool { return !p.options.snapshot().alwaysCookies }

// cookieOptions fills in the options of the SYN-ACK that answers p with a
// cookie, the MSS apart. l.ep.mu is held.
func (l *listener) cookieOptions(p *packet, now conn.Time, o *conn.Options) {
	proto, theirs := l.ep.proto, &p.seg.Options
	values := proto.options.snapshot()
	if !theirs.HasTS || values.tuning.NoTimestamps {
		return
	}
	o.HasTS = true
	o.TSEcr = theirs.TSVal
	o.TSVal = timestampAt(now, proto.secrets.numbersFor(p.id, now).tsOffset)
	if !proto.timestampCookies() {
		return
	}
	bits := uint32(cookieNoScale)
	if theirs.HasWScale && !values.tuning.NoWindowScaling {
		bits = uint32(theirs.WScale)
		o.HasWScale = true
		_, _, scaleFor := l.ep.receiveBuffer(values)
		o.WScale = uint8(FindWndScale(seqnum.Size(scaleFor)))
	}
	if theirs.SACKPermitted && values.sack {
		bits |= cookieSACK
		o.SACKPermitted = true
	}
	o.TSVal = stampBits(o.TSVal, bits)
}

// stampBits puts bits into a timestamp's lowest places. The result is not
// later than the timestamp was, so that the clock does not run backwards when
// the connection goes on with the truth.
func stampBits(ts, bits uint32) uint32 {
	stamped := ts&^cookieTSMask | bits
	if int32(stamped-ts) > 0 {
		stamped -= cookieTSMask + 1
	}
	return stamped
}

// cookieSYN reads the options of the SYN that a cookie stood for, the MSS
// apart, out of the ACK that brought it back.
func (p *protocol) cookieSYN(ack *packet, o *conn.Options) {
	theirs := &ack.seg.Options
	if !theirs.HasTS || p.options.snapshot().tuning.NoTimestamps {
		return
	}
	o.HasTS = true
	o.TSVal = theirs.TSVal
	if !p.timestampCookies() {
		return
	}
	if scale := theirs.TSEcr & cookieScaleMask; scale != cookieNoScale {
		o.HasWScale = true
		o.WScale = uint8(scale)
	}
	o.SACKPermitted = theirs.TSEcr&cookieSACK != 0
}
