package conn

import (
	"io"
	"math"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/tcp/cc"
)

// userState is what the user has asked for.
type userState struct {
	finWanted  bool         // the sending side was shut during the handshake
	readShut   bool         // the receiving side is shut: an empty queue is the end
	more       bool         // the last Write said that another follows
	wanted     bool         // a Write found no room
	hasRead    bool         // since a window was last advertised
	uncork     bool         // the cork has held long enough
	force      bool         // send into a window however small
	keepalives uint8        // probes unanswered
	moreAt     seqnum.Value // SND.UNA when a Write said that another follows
	pushed     seqnum.Value // the end of the last Write that said no such thing
	probed     Time         // when the last keepalive probe left
}

// clamp is the user's bound on the window.
func (c *Conn) clamp() seqnum.Size {
	if c.cfg.opts.Clamp > 0 {
		return seqnum.Size(c.cfg.opts.Clamp)
	}
	return maxWindow
}

const maxWindow = maxUnscaledWindow << maxWindowScale

// Write copies up to n bytes from r to the send queue and reports how many it
// took, fewer than n if there is no more room; with none at all it reports
// ErrWouldBlock, and EventWritable will follow. more says that another Write
// follows at once, as MSG_MORE does. An error of r is returned as it is, with
// what came before it taken.
func (c *Conn) Write(now Time, r io.Reader, n int, more bool) (int, error) {
	switch {
	case c.err != nil:
		return 0, c.err
	case c.State() == StateClosed && !c.userGone && c.snd.nxt == c.snd.iss:
		return 0, ErrNotConnected
	case c.state == StateSynSent || c.state == StateSynReceived && !c.Early():
		return 0, ErrWouldBlock
	case !c.maySend():
		return 0, ErrClosedForSend
	case n == 0:
		return 0, nil
	}
	room := 0
	if !c.frozen {
		room = c.space(n)
	}
	if room < n {
		c.user.wanted = true
	}
	if room == 0 {
		return 0, ErrWouldBlock
	}
	if c.cfg.likeLinux {
		c.linuxSpace(room, true)
	}
	done, err := c.sendq.write(r, room)
	if c.user.more = more; more {
		c.user.moreAt = c.snd.una
	}
	if !more || done < n {
		c.user.pushed = c.sendq.end
	}
	c.armCork(now)
	return done, err
}

// EndRecord says that what was written so far ends a record: no segment will
// carry bytes from both sides of this place (MSG_EOR).
func (c *Conn) EndRecord() {
	if c.maySend() {
		c.sendq.endRecord()
	}
}

// Read copies up to n bytes of the receive queue to w, and drops them from it
// unless peek. With nothing to read it reports ErrWouldBlock; after the last
// byte before the peer's FIN ErrClosedForReceive; after the connection failed,
// once the queue is empty, its error.
func (c *Conn) Read(now Time, w io.Writer, n int, peek bool) (int, error) {
	if c.frozen {
		return 0, ErrWouldBlock
	}
	if c.recvq.size() == 0 {
		return 0, c.whyNothing()
	}
	done, err := c.recvq.read(w, int64(n), peek)
	if !peek {
		c.user.hasRead = true
		c.tuneReceive(now, int(done))
		if !c.early.quiet {
			c.reopenWindow()
		}
		c.predict()
	}
	return int(done), err
}

// whyNothing says why the receive queue is empty.
func (c *Conn) whyNothing() error {
	switch {
	case c.rcv.fin || c.user.readShut:
		return ErrClosedForReceive
	case c.err != nil:
		return c.err
	case c.State() == StateClosed && c.rcv.irs == 0 && c.rcv.nxt == 0:
		return ErrNotConnected
	case c.State() == StateClosed || c.state == StateTimeWait:
		return ErrClosedForReceive
	}
	return ErrWouldBlock
}

// Readable is how many bytes Read can return at once.
func (c *Conn) Readable() int {
	if c.frozen {
		return 0
	}
	return int(c.recvq.size())
}

// Unread is how many bytes have been received in order and not read, frozen or
// not.
func (c *Conn) Unread() int { return int(c.recvq.size()) }

// ReadEnded reports whether the peer's stream is at its end: once Readable is
// zero, Read will not block.
func (c *Conn) ReadEnded() bool {
	return !c.frozen && (c.rcv.fin || c.user.readShut || c.err != nil || c.State() == StateClosed)
}

// Writable is how many bytes Write would take now.
func (c *Conn) Writable() int {
	if c.frozen || !c.maySend() {
		return 0
	}
	return c.space(math.MaxInt32)
}

// Unsent is how many bytes were written and not yet sent, Unacked how many
// were written and not yet acknowledged.
func (c *Conn) Unsent() int { return int(c.unsent()) }

// Unacked is how many bytes of the user's the peer has not acknowledged.
func (c *Conn) Unacked() int { return c.sendq.size() }

// Shutdown closes one or both directions. Closing the sending side queues a
// FIN behind what was written, and the state moves at once.
func (c *Conn) Shutdown(now Time, read, write bool) error {
	if c.frozen {
		return ErrFrozen
	}
	switch c.State() {
	case StateClosed, StateSynSent:
		return ErrNotConnected
	}
	if read && !c.user.readShut {
		c.user.readShut = true
		c.events |= EventReadable
	}
	if write {
		c.queueFIN(now)
	}
	c.predict()
	return nil
}

// queueFIN ends our direction: CLOSE of RFC 9293 section 3.10.4.
func (c *Conn) queueFIN(now Time) {
	switch c.state {
	case StateEstablished:
		c.setState(StateFinWait1)
	case StateSynReceived:
		c.user.finWanted = true // once the handshake is complete
		return
	case StateCloseWait:
		c.setState(StateLastAck)
	default:
		return
	}
	c.events |= EventWritable
	c.user.more = false
}

// Close says that the user is gone. What was written is still delivered and a
// FIN follows; if data is unread, or data arrives later, the peer is reset
// (RFC 1122 section 4.2.2.13, RFC 2525 section 2.17). The connection lives on
// until EventClosed. Closing a frozen connection drops it without a word.
func (c *Conn) Close(now Time) {
	if c.userGone {
		return
	}
	c.userGone = true
	unread := c.recvq.size() > 0
	c.recvq.release()
	switch {
	case c.frozen:
		c.err = orDefault(c.err, ErrAborted)
		c.finish()
	case c.State() == StateClosed:
	case c.state == StateSynSent:
		c.finish()
	case unread && c.state != StateTimeWait: // where there is nobody to tell
		c.abort()
	default:
		c.queueFIN(now)
		c.startFinWait2(now)
	}
	c.predict()
}

// Abort resets the connection. Output yields the RST, but where both FINs have
// been sent there is none. https://www.rfc-editor.org/rfc/rfc9293#section-3.10.5
func (c *Conn) Abort(now Time) {
	c.userGone = true
	c.recvq.release()
	switch {
	case c.State() == StateClosed:
	case c.frozen, c.state == StateSynSent, c.rcv.fin && c.finSent():
		c.fail(ErrAborted)
	default:
		c.abort()
	}
}

// abort ends the connection and owes the peer a reset. After SYNs that crossed
// its SYN is refused before that, as in CLOSED, which is what gVisor's TCP
// sends; a peer that has our SYN ignores the one and believes the other.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.1
func (c *Conn) abort() {
	c.owed.refusal = c.state == StateSynReceived && !c.passive
	c.oweAbort()
	c.fail(ErrAborted)
}

// Release frees the memory of the queues. The connection is closed, or is not
// to be used again.
func (c *Conn) Release() {
	c.recvq.release()
	c.noDisorder()
	c.releaseSend()
}

// Options returns the user's settings.
func (c *Conn) Options() UserOptions { return c.begun().opts }

// SetOptions changes the user's settings.
func (c *Conn) SetOptions(now Time, o UserOptions) {
	old := c.begun().opts
	o.Keepalive = o.Keepalive.normal()
	c.setOptions(&o)
	if o.Keepalive != old.Keepalive {
		c.user.keepalives = 0
		c.startKeepalive(now)
	}
	if old.Cork && !o.Cork || !old.NoDelay && o.NoDelay {
		c.Push()
	}
	if !o.Pacing {
		c.timers.stop(timerPace)
	}
	if o.MaxSegment != 0 {
		c.snd.mss = min(c.snd.mss, o.MaxSegment)
	}
	if o.Clamp != old.Clamp {
		c.reopenWindow()
	}
}

// SetBuffers changes the buffer sizes, in bytes; 0 leaves one as it is. A size
// the user chose is not tuned any more.
func (c *Conn) SetBuffers(now Time, rcv, snd int) {
	if rcv > 0 {
		c.recvq.bufferSize = sized(rcv, 0)
		if !c.frozen {
			c.widen()
		}
	}
	if snd > 0 {
		c.sendq.bufferSize = sized(snd, 0)
		if c.user.wanted && c.sendq.space() > 0 {
			c.user.wanted = false
			c.events |= EventWritable
		}
	}
	c.predict()
}

// Buffers returns the buffer sizes in bytes, as auto-tuning has left them.
func (c *Conn) Buffers() (rcv, snd int) { return int(c.recvq.max), int(c.sendq.max) }

// SetCongestion replaces the congestion controller by one of another name,
// which begins where this one stands. An unknown name is an error.
func (c *Conn) SetCongestion(now Time, name string) error {
	if c.cc == nil {
		_, err := cc.New(name, DefaultMSS)
		if err == nil {
			c.change().congestion = name
		}
		return err
	}
	ctl, err := cc.Restore(cc.State{Name: name, Window: c.cc.Window(), Threshold: c.cc.Threshold()}, int64(now), c.segmentSize())
	if err == nil {
		c.cc = ctl
	}
	return err
}

// SetSYNRetries changes how often a SYN or SYN-ACK is sent again.
func (c *Conn) SetSYNRetries(n int) { c.change().synRetries = orDefault(n, DefaultSYNRetries) }

// SetTimeWait changes how long TIME-WAIT lasts, and how long an unused
// connection stays in FIN-WAIT-2 (negative: not at all).
func (c *Conn) SetTimeWait(timeWait, finWait2 time.Duration) {
	if p := c.begun(); p.timeWait != timeWait || p.finWait2 != finWait2 {
		own := c.change()
		own.timeWait, own.finWait2 = timeWait, finWait2
	}
}
