package tcp

import (
	"encoding/binary"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// A SYN cookie is an initial sequence number that holds what has to be known
// of a SYN, so that nothing is remembered until the ACK brings it back.
//
//	https://www.rfc-editor.org/rfc/rfc4987#section-3.6
//	https://www.rfc-editor.org/rfc/rfc4987#appendix-A
//
// Ours is, from the top: a counter of cookiePeriods (its low 5 bits), an index of
// the peer's MSS (3 bits), and a keyed hash of the tuple, the peer's initial
// sequence number, and those two, the counter in full (24 bits). The options that do not fit, window
// scale and SACK, travel in the low bits of the timestamp if the peer uses
// timestamps (cookie_options.go), and are not offered otherwise.

const (
	cookiePeriod   = 64 * time.Second
	cookieAge      = 2 // periods in which a cookie is good, the present one included
	cookieCountMax = 1 << 5
)

// cookieMSS are the sizes a cookie can tell apart: the commonest on links with
// and without tunnels, each taken for what lies above it.
var cookieMSS = [8]uint16{64, 216, 536, 1024, 1220, 1380, 1440, 1460}

// cookieCount is the present value of the counter.
func cookieCount(now conn.Time) uint32 { return uint32(int64(now) / int64(cookiePeriod)) }

// makeCookie makes a cookie.
func (s *secrets) makeCookie(id stack.TransportEndpointID, irs seqnum.Value, count, mss uint32) seqnum.Value {
	top := count%cookieCountMax<<3 | mss
	more := binary.BigEndian.AppendUint32(nil, uint32(irs))
	more = binary.BigEndian.AppendUint32(more, count)
	sum := hashTuple(&s.cookie, id, append(more, byte(mss))...)
	return seqnum.Value(top<<24 | binary.BigEndian.Uint32(sum[:])>>8)
}

// checkCookie returns the MSS that a cookie holds, if it is one of ours, for
// this connection, and of late.
func (s *secrets) checkCookie(id stack.TransportEndpointID, irs, cookie seqnum.Value, now conn.Time) (mss uint16, ok bool) {
	top := uint32(cookie) >> 24
	count, index := top>>3, top&7
	age := (cookieCount(now) - count) % cookieCountMax
	if age >= cookieAge {
		return 0, false
	}
	if s.makeCookie(id, irs, cookieCount(now)-age, index) != cookie {
		return 0, false
	}
	return cookieMSS[index], true
}

// mssIndex is the place in cookieMSS of the largest size that does not exceed
// mss.
func mssIndex(mss uint16) uint32 {
	i := len(cookieMSS) - 1
	for i > 0 && cookieMSS[i] > mss {
		i--
	}
	return uint32(i)
}

// sendCookie answers a SYN without remembering it, and releases it.
func (l *listener) sendCookie(p *packet) {
	defer p.release()
	e := l.ep
	route, err := e.proto.replyRoute(p)
	if err != nil {
		e.failedAttempt()
		return
	}
	mss := routeMSS(route)
	route.Release()
	now := e.proto.now()
	peerMSS := p.seg.Options.MSS
	if peerMSS == 0 {
		peerMSS = conn.DefaultMSS
	}
	syn := conn.Segment{
		Seq:    e.proto.secrets.makeCookie(p.id, p.seg.Seq, cookieCount(now), mssIndex(peerMSS)),
		Ack:    p.seg.Seq + 1,
		Flags:  header.TCPFlagSyn | header.TCPFlagAck,
		Window: uint16(min(e.options().GetReceiveBufferSize()/SegOverheadFactor, 0xffff)),
	}

	e.mu.Lock()
	how := e.replyParams()
	syn.Options.MSS = mss
	if user := e.settings.user.MaxSegment; user != 0 {
		syn.Options.MSS = min(mss, user)
	}
	l.cookieOptions(p, now, &syn.Options)
	e.unlock()

	l.lastCookie.Store(int64(now))
	e.proto.stats.ListenOverflowSynCookieSent.Increment()
	e.proto.reply(p, &syn, how)
}

// redeem returns the MSS that a cookie holds which the ACK p brings back.
// Unless cookies have been given out of late, it is not looked at: a guess that
// happens to fit would open a connection from a forged address.
func (l *listener) redeem(p *packet, now conn.Time) (mss uint16, ok bool) {
	last := conn.Time(l.lastCookie.Load())
	if p.seg.Has(header.TCPFlagSyn) || last == 0 || now.Sub(last) > cookieAge*cookiePeriod {
		return 0, false
	}
	stats := &l.ep.proto.stats
	mss, ok = l.ep.proto.secrets.checkCookie(p.id, p.seg.Seq-1, p.seg.Ack-1, now)
	if !ok {
		stats.ListenOverflowInvalidSynCookieRcvd.Increment()
		return 0, false
	}
	stats.ListenOverflowSynCookieRcvd.Increment()
	return mss, true
}

// inputAck takes an ACK that was sent to the listener: the end of a handshake
// begun with a cookie, or else a stranger's, which is reset.
func (l *listener) inputAck(p *packet) {
	e := l.ep
	mss, ok := l.redeem(p, e.proto.now())
	if !ok {
		l.reset(p, conn.DropNoSocket)
		return
	}
	child, err := e.newChild(p, nil)
	if err != nil {
		e.failedAttempt()
		p.release()
		return
	}
	child.parent = l
	if !l.queue.addKept(child) {
		child.discard()
		e.stats.all().ReceiveErrors.ListenOverflowAckDrop.Increment()
		e.proto.stats.ListenOverflowAckDrop.Increment()
		l.refuse(p, conn.DropListenOverflow)
		return
	}
	now := child.proto.now()
	child.acceptCookie(now, p, mss)
	child.inputConn(now, p)
	child.unlock()
}

// acceptCookie starts the connection whose SYN a cookie stood for; p is the
// ACK that brought it back. e.mu is held.
func (e *Endpoint) acceptCookie(now conn.Time, p *packet, mss uint16) {
	syn := conn.Segment{Seq: p.seg.Seq - 1, Flags: header.TCPFlagSyn}
	syn.Options.MSS = mss
	e.proto.cookieSYN(p, &syn.Options)
	cfg := e.config(now)
	cfg.ISS = p.seg.Ack - 1
	e.conn.AcceptCookie(now, &cfg, &syn)
	e.started = true
}

// adoptCookie lets the ACK of a cookie complete a half-open connection: the
// peer's first SYN was answered with the cookie, when there was no room, and
// one of its retransmissions with the embryo. The peer heard the former. e.mu
// is held.
func (e *Endpoint) adoptCookie(now conn.Time, p *packet) {
	info := e.conn.Info(now)
	if p.seg.Ack == info.SndNxt || p.seg.Seq != info.RcvNxt {
		return
	}
	if mss, ok := e.parent.redeem(p, now); ok {
		e.conn.Release()
		e.acceptCookie(now, p, mss)
	}
}
