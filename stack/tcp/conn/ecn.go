package conn

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/tcp/cc"
)

// ecnState is Explicit Congestion Notification.
// https://www.rfc-editor.org/rfc/rfc3168#section-6.1
type ecnState struct {
	echo bool // the peer's data was marked; say so until it says CWR
	cwr  bool // say CWR with the next new data: the window was reduced

	heeded bool         // an echo has been heeded,
	until  seqnum.Value // and those up to this acknowledgement are of the same window
}

// ecnAgreed reports whether the peer's SYN or SYN-ACK has the flags that agree
// to use ECN.
func ecnAgreed(s *Segment) bool {
	const both = header.TCPFlagEce | header.TCPFlagCwr
	if s.Has(header.TCPFlagAck) {
		return s.Flags&both == header.TCPFlagEce
	}
	return s.Flags&both == both
}

// takeCE looks at a data segment for the network's mark and the peer's CWR. A
// peer that says CWR may have room for this one segment only, so it is not kept
// waiting (Linux tcp_ecn_accept_cwr). On a segment without data a mark means
// nothing, and an answer to it might come back marked in turn, for ever.
// https://www.rfc-editor.org/rfc/rfc3168#section-6.1.4
func (c *Conn) takeCE(s *Segment) {
	if !c.cfg.ecn || s.DataLen() == 0 {
		return
	}
	if s.Has(header.TCPFlagCwr) {
		c.ecn.echo = false
		c.oweAck()
	}
	if s.CE {
		c.ecn.echo = true
		c.oweAck()
	}
}

// takeECE reduces the window once for each window of data in which the peer
// echoes a mark. It reports whether it did. news is what the acknowledgement
// delivered.
func (c *Conn) takeECE(now Time, s *Segment, news int64) bool {
	e := &c.ecn
	if e.heeded && e.until.LessThan(s.Ack) {
		e.heeded = false
	}
	if !c.cfg.ecn || !s.Has(header.TCPFlagEce) || c.loss.phase >= phaseCWR || e.heeded {
		return false
	}
	c.reduce(now, phaseCWR, cc.ECN, news)
	// The CWR goes out with data that begins at SND.NXT: the acknowledgement of
	// exactly that still echoes the mark.
	e.heeded, e.until = true, c.snd.nxt
	if c.board.empty() {
		// Nothing is in flight whose delivery could pace the reduction.
		c.loss.phase = phaseOpen
	}
	return true
}

// markECN marks a data segment. Retransmissions are not ECN-capable (section
// 6.1.5), so that an attacker learns nothing by marking them.
func (c *Conn) markECN(out *Segment, fresh bool) {
	if !c.cfg.ecn || !fresh || out.DataLen() == 0 {
		return
	}
	out.ECT = true
	if c.ecn.cwr {
		c.ecn.cwr = false
		out.Flags |= header.TCPFlagCwr
	}
}
