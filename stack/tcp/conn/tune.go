package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// tuning finds out how large the buffers should be, where the user did not say.
//
// The receive buffer follows what the user takes out in a round trip (dynamic
// right-sizing, as Linux tcp_rcv_space_adjust does): a sender in slow start
// doubles each round trip, so there must always be room for twice that. The
// send buffer follows the congestion window (Linux tcp_sndbuf_expand).
type tuning struct {
	rtt   time.Duration // the receiver's estimate of the round trip; 0: none yet
	ecr   uint32        // the last timestamp echo that was timed
	seq   seqnum.Value  // without timestamps: once it is passed, a window has come
	since Time

	copied uint32 // what the user took since begun
	most   uint32 // the most taken in any round trip, at first what a sender begins with
	begun  Time   // when this one's measure began; 0: the user has not read yet
}

// startTuning supposes that the user can take the peer's initial window, which
// so calls for no larger buffer than there is (Linux tcp_init_buffer_space).
// window is what our SYN or SYN-ACK offers.
func (c *Conn) startTuning(window seqnum.Size) {
	c.tune.most = min(uint32(window), initialSegments*uint32(c.cfg.advMSS))
}

// initialSegments is how many segments a sender may begin with.
// https://www.rfc-editor.org/rfc/rfc6928#section-2
const initialSegments = 10

// timeReceiver estimates the round trip of a connection that only receives,
// when data has arrived: by the timestamp it echoes, or by how long a window's
// worth takes.
func (c *Conn) timeReceiver(now Time, s *Segment) {
	t := &c.tune
	if c.recvq.cap == 0 {
		return
	}
	if c.tstamp.on && s.Options.HasTS && s.Options.TSEcr != 0 {
		if s.Options.TSEcr == t.ecr {
			return
		}
		t.ecr = s.Options.TSEcr
		if d, ok := c.elapsed(now, s.Options.TSEcr); ok {
			if t.rtt == 0 && c.rtt.smoothed != 0 {
				d = min(d, c.rtt.smoothed) // the peer may have taken its time
			}
			t.sample(max(d, time.Millisecond))
		}
		return
	}
	if t.since != 0 && c.rcv.nxt.LessThan(t.seq) {
		return
	}
	if t.since != 0 {
		t.sample(max(now.Sub(t.since), time.Millisecond))
	}
	t.seq, t.since = c.rcv.nxt.Add(max(c.window(), 1)), now
}

// sample takes the least of what is seen, but lets a longer path show in time.
func (t *tuning) sample(d time.Duration) {
	if t.rtt == 0 || d < t.rtt {
		t.rtt = d
		return
	}
	t.rtt += (d - t.rtt) / 8
}

// tuneReceive enlarges the receive buffer after the user has read n bytes.
func (c *Conn) tuneReceive(now Time, n int) {
	t := &c.tune
	if c.recvq.cap == 0 {
		return
	}
	if t.begun == 0 {
		// What had gathered before the user first looked does not show a pace.
		t.begun = now
		return
	}
	t.copied += uint32(min(n, maxRun-int(t.copied))) // there may never be a round trip
	if t.rtt == 0 || now.Sub(t.begun) < t.rtt {
		return
	}
	if t.copied > t.most {
		want := 2*int64(t.copied) + 16*int64(c.rcv.mss)
		// What was read is what was sent a while ago, and a sender that has
		// grown since may double again before a larger window reaches it.
		want += want * int64(min(t.copied-t.most, t.most)) / int64(max(t.most, 1))
		t.most = t.copied
		c.recvq.grow(want)
	}
	t.copied, t.begun = 0, now
}

// tuneSend enlarges the send buffer to twice the congestion window, which an
// acknowledgement may have enlarged, so that the next window's data is at hand
// while this one's is being acknowledged.
func (c *Conn) tuneSend() {
	if c.sendq.cap != 0 && !c.cfg.likeLinux { // else wakeWriter does it
		c.sendq.grow(2 * c.cwnd())
	}
}
