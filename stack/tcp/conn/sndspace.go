package conn

import (
	"math/bits"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// How much a Write may take. By default the send buffer's size is a bound on
// bytes, as gVisor has it. Linux counts memory: data is gathered in bursts, each
// with a fixed cost besides its bytes, and as long as the buffer is not full a
// burst may begin and be filled, so that more is taken than the size says.
// Programs that count on what a write returns see the difference.

const (
	linuxBurst     = 65536 - 1 - 320 // sk_gso_max_size
	linuxBurstCost = 1280            // a sk_buff with a head and no data
	linuxHeaders   = 640             // MAX_TCP_HEADER and skb_shared_info
	linuxBuffer    = 256             // sk_buff
)

// space is how many of n bytes a Write may take now.
func (c *Conn) space(n int) int {
	if c.cfg.likeLinux {
		return c.linuxSpace(n, false)
	}
	n = min(n, c.sendq.space())
	if low := c.cfg.opts.NotSentLowat; low > 0 {
		n = min(n, int(max(low+int64(c.sendable())-int64(c.unsent()), 0)))
	}
	return n
}

// sendable is how many bytes, in whole segments, could leave now.
func (c *Conn) sendable() seqnum.Size {
	room := min(int64(c.usableWindow()), c.cwnd()-c.flight())
	return seqnum.Size(max(room, 0)) / seqnum.Size(c.segmentSize()) * seqnum.Size(c.segmentSize())
}

// burst is how much Linux gathers before it sends (tcp_xmit_size_goal).
func (c *Conn) burst() int {
	n := linuxBurst
	if wnd := int(c.snd.maxWnd); wnd > DefaultMSS {
		n = min(n, wnd/2)
	} else if wnd > 0 {
		n = min(n, wnd)
	}
	mss := c.segmentSize()
	return max(n/mss*mss, mss)
}

// linuxSpace plays tcp_sendmsg for n bytes: it fills the last burst, begins
// another while there is room for one, and sends each that is full as far as may
// be. It reports how many bytes it takes; write says that they are written, and
// then it notes where bursts end, and which of them ask the peer to deliver: one
// in every half window does (forced_push).
func (c *Conn) linuxSpace(n int, write bool) int {
	var (
		q      = &c.sendq
		goal   = seqnum.Size(c.burst())
		end    = q.end
		sent   = c.snd.nxt // as it will be
		credit = c.sendable()
		burst  = q.burst
		pushed = c.user.pushed
		taken  = 0
	)
	if burst.start.LessThan(sent) || end.LessThan(burst.start) {
		burst = sendBurst{start: sent, push: burst.push && sent.LessThan(end)}
	}
	for taken < n {
		if full := burst.start.Size(end) >= goal; full || burst.start == end || q.endsRecord(end) {
			if !c.linuxFree(q.start.Size(end), sent.Size(end), goal) {
				break
			}
			if write && full {
				q.broken().bursts = append(q.bursts, burstEnd{end, burst.push})
			}
			burst = sendBurst{start: end}
		}
		k := min(seqnum.Size(n-taken), goal-burst.start.Size(end))
		end = end.Add(k)
		taken += int(k)
		if burst.start.Size(end) < goal {
			break // there is no more to take
		}
		if c.snd.maxWnd/2 < pushed.Size(end) {
			burst.push, pushed = true, end
		}
		out := min(credit, sent.Size(end))
		credit -= out
		sent = sent.Add(out)
		if write && sent == end {
			q.broken().bursts = append(q.bursts, burstEnd{end, burst.push})
		}
		if burst.start.LessThan(sent) {
			burst.start = sent
		}
	}
	if write {
		q.broken().burst, c.user.pushed = burst, pushed
	}
	return taken
}

// linuxFree is sk_stream_memory_free for what is queued and of it unsent.
func (c *Conn) linuxFree(queued, unsent, goal seqnum.Size) bool {
	if low := c.cfg.opts.NotSentLowat; low > 0 && int64(unsent) >= low {
		return false
	}
	return linuxMemory(queued, goal) < int(c.sendq.max)
}

// linuxMemory is what n bytes cost that are queued in bursts.
func linuxMemory(n, goal seqnum.Size) int {
	return int(n) + int((n+goal-1)/goal)*linuxBurstCost
}

// WriteReady reports whether enough of the send queue is free to wake a writer
// for: a third (Linux sk_stream_is_writeable), and, with TCP_NOTSENT_LOWAT, less
// than half of that is unsent.
func (c *Conn) WriteReady() bool {
	return c.Writable() > 0 && c.roomToWake()
}

func (c *Conn) roomToWake() bool {
	if low := c.cfg.opts.NotSentLowat; low > 0 && 2*int64(c.unsent()) >= low {
		return false
	}
	used := c.sendq.size()
	if c.cfg.likeLinux {
		used = linuxMemory(seqnum.Size(used), seqnum.Size(c.burst()))
	}
	return int(c.sendq.max)-used >= used/2
}

// wakeWriter tells a writer that found no room of the room there is now. Output
// calls it once everything that may leave has left, for a segment that came in.
func (c *Conn) wakeWriter() {
	news := c.owed.look
	c.owed.look = false
	if !c.user.wanted || !news || !c.maySend() {
		return
	}
	if c.cfg.likeLinux && !c.windowFull() {
		c.growLinux()
	}
	if c.roomToWake() {
		c.user.wanted = false
		c.events |= EventWritable
	}
}

// growLinux makes the send buffer as large as Linux has it for the congestion
// window (tcp_sndbuf_expand), if the user did not say.
func (c *Conn) growLinux() {
	const initial = 10 // segments
	q, mss := &c.sendq, c.segmentSize()
	each := int64(1)<<bits.Len(uint(mss+linuxHeaders-1)) + linuxBuffer
	want := 2 * each * max(initial, c.cwnd()/int64(mss))
	q.grow(want)
}
