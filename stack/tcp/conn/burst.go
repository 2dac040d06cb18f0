package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// What leaves in one piece, for the link to cut up, and which segments ask the
// peer to deliver at once.

// leastBurst is how many segments Linux sends in one piece however slow the path
// is (tcp_min_tso_segs).
const leastBurst = 2

// maxBurst is the most that may leave in one piece, in whole segments of size.
func (c *Conn) maxBurst(size seqnum.Size) seqnum.Size {
	n := seqnum.Size(c.cfg.gsoMax) / size
	if c.cfg.likeLinux {
		n = min(n, c.linuxSegments(size))
	}
	return n * size
}

// linuxSegments is how many segments Linux sends in one piece: no more than
// half of the congestion window or of the largest window that the peer had, so
// that acknowledgements keep coming, and about as many as leave within a
// millisecond (tcp_cwnd_test, tcp_bound_to_half_wnd, tcp_tso_autosize).
func (c *Conn) linuxSegments(size seqnum.Size) seqnum.Size {
	n := seqnum.Size(c.burst()) / size
	if srtt := c.rtt.smoothed; srtt > 0 {
		// Pacing is at twice the window for each round trip in slow start, at
		// 1.2 times it later.
		cwnd, percent := c.cwnd(), int64(120)
		if cwnd < c.cc.Threshold()/2 {
			percent = 200
		}
		const perSecond, shift, rttLog = 100, 10, 9
		bytes := cwnd * percent / perSecond * int64(time.Second) / int64(srtt) >> shift
		if far := c.rtt.min.Microseconds() >> rttLog; far < 32 {
			bytes += linuxBurst >> far // a near peer is sent more at a time
		}
		n = min(n, seqnum.Size(max(bytes/int64(size), int64(orDefault(c.cfg.leastBurst, leastBurst)))))
	}
	return max(min(n, seqnum.Size(c.cwnd()/2/int64(size))), 1)
}

// push sets PSH on a segment of n bytes of new data, if it is to have it: where
// the user's writing or a record ends, where silly window avoidance is
// overridden, and, as Linux has it, where a run of segments does. It reports
// whether the data themselves ask for it, so that a repetition will, too. A Write
// that says that more follows asks for nothing.
func (c *Conn) push(out *Segment, n seqnum.Size) bool {
	end := c.snd.nxt.Add(n)
	asked := n > 0 && (end == c.sendq.end && c.snd.nxt.LessThan(c.user.pushed) ||
		c.user.force || c.sendq.endsRecord(end) || c.sendq.pushesBurst(end))
	if asked || out.GSOSize != 0 {
		out.Flags |= header.TCPFlagPsh
	}
	return asked
}
