package conn

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// The rules of the state x event x position matrix (matrix_test.go): what RFC
// 9293 section 3.10.7 and its amendments say must become of a segment, one
// function a rule. They know a connection only as its peer does, by what was on
// the wire, and nothing of how conn goes about it.

const (
	flagFIN = header.TCPFlagFin
	flagSYN = header.TCPFlagSyn
	flagRST = header.TCPFlagRst
	flagPSH = header.TCPFlagPsh
	flagACK = header.TCPFlagAck
)

// view is a connection as the peer knows it.
type view struct {
	state   State
	passive bool // came from LISTEN

	iss, una, nxt seqnum.Value // ours
	maxWnd        seqnum.Size  // the largest window the peer offered, MAX.SND.WND

	irs, rcvNxt seqnum.Value
	edge        seqnum.Value // RCV.NXT + RCV.WND, as far as it was ever advertised
	peerFIN     bool         // received
	unread      bool         // data waits for the user
}

func (v *view) window() seqnum.Size { return v.rcvNxt.Size(v.edge) }

// replyKind is what goes back to the peer.
type replyKind uint8

const (
	noReply replyKind = iota
	replyACK
	replyRST
	replySYNACK
)

// want is what must become of a segment.
type want struct {
	reason DropReason
	state  State
	err    error
	events Event
	una    seqnum.Value
	rcvNxt seqnum.Value
	// restart says that the TIME-WAIT timer begins anew.
	restart bool

	reply    replyKind
	seq, ack seqnum.Value
}

// A ruling is the judgement of one segment in the making.
type ruling struct {
	v view
	s *Segment
	w want
}

// rule judges s. All input processing begins here.
func rule(v view, s *Segment) want {
	r := ruling{v: v, s: s, w: want{state: v.state, una: v.una, rcvNxt: v.rcvNxt}}
	switch v.state {
	case StateListen:
		r.listen()
	case StateSynSent:
		r.synSent()
	default:
		r.steps()
	}
	return r.w
}

// frozenRule is the judgement of any segment in repair mode: refused,
// unanswered, and nothing has happened.
func frozenRule(v view) want {
	return want{reason: DropSocketRepair, state: v.state, una: v.una, rcvNxt: v.rcvNxt}
}

// The elements of a judgement.

func (r *ruling) has(f header.TCPFlags) bool { return r.s.Has(f) }

func (r *ruling) drop(reason DropReason) { r.w.reason = reason }

// answerACK sends <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>.
func (r *ruling) answerACK() { r.w.reply, r.w.seq, r.w.ack = replyACK, r.v.nxt, r.w.rcvNxt }

// answerRST sends <SEQ=SEG.ACK><CTL=RST>.
func (r *ruling) answerRST() { r.w.reply, r.w.seq, r.w.ack = replyRST, r.s.Ack, 0 }

// answerSYN sends <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>.
func (r *ruling) answerSYN() { r.w.reply, r.w.seq, r.w.ack = replySYNACK, r.v.iss, r.w.rcvNxt }

// enter moves to a state, with what the user hears of it: in ESTABLISHED that
// he may write, in CLOSED that whatever he waits for will not come.
func (r *ruling) enter(s State) {
	r.w.state = s
	switch s {
	case StateEstablished:
		r.w.events |= EventEstablished | EventWritable
	case StateClosed:
		r.w.events |= EventClosed | EventReadable | EventWritable
	}
}

// broken ends the connection with an error.
func (r *ruling) broken(err error) {
	r.w.err = err
	r.w.events |= EventError
	r.enter(StateClosed)
}

// listen: RFC 9293 section 3.10.7.2. "An incoming RST should be ignored"; "any
// acknowledgment is bad if it arrives on a connection still in the LISTEN
// state"; a SYN opens; anything else is dropped. SYN+FIN: see ListenVerdict.
func (r *ruling) listen() {
	switch {
	case r.has(flagRST):
		r.drop(DropReset)
	case r.has(flagACK):
		r.answerRST()
		r.drop(DropTCPFlags)
	case r.has(flagSYN) && !r.has(flagFIN):
		r.w.rcvNxt = r.s.Seq + 1
		r.answerSYN()
		r.enter(StateSynReceived)
	default:
		r.drop(DropTCPFlags)
	}
}

// synSent: RFC 9293 section 3.10.7.3. The sequence number says nothing here;
// the acknowledgement number must be ISS+1, the one we could be given.
func (r *ruling) synSent() {
	good := r.has(flagACK) && r.s.Ack == r.v.iss+1
	switch {
	case r.has(flagACK) && !good: // first
		if !r.has(flagRST) {
			r.answerRST()
		}
		r.drop(DropInvalidAckSequence)
	case r.has(flagRST) && good: // second
		r.broken(ErrRefused)
		r.drop(DropReset)
	case r.has(flagRST): // "Otherwise (no ACK), drop the segment and return."
		r.drop(DropReset)
	case r.has(flagSYN) && good: // fourth
		r.w.una, r.w.rcvNxt = r.s.Ack, r.s.Seq+1
		r.answerACK()
		r.enter(StateEstablished)
	case r.has(flagSYN):
		// Simultaneous open, section 3.5. What comes with the SYN, text or FIN,
		// is left unacknowledged and so comes again.
		r.w.rcvNxt = r.s.Seq + 1
		r.answerSYN()
		r.enter(StateSynReceived)
	default: // fifth
		r.drop(DropTCPFlags)
	}
}

// steps: RFC 9293 section 3.10.7.4, in its order but for two: a RST and a SYN
// are judged by their own rules wherever they lie (RFC 5961 sections 3.2, 4.2).
func (r *ruling) steps() {
	switch {
	case r.has(flagRST):
		r.second()
		return
	case r.has(flagSYN):
		r.fourth()
		return
	}
	if reason := r.unacceptable(); reason != NotDropped {
		r.answerACK()
		r.drop(reason)
		// "The only thing that can arrive in this state is a retransmission of
		// the remote FIN. Acknowledge it, and restart the 2 MSL timeout."
		r.w.restart = r.v.state == StateTimeWait && r.has(flagFIN|flagACK) && r.s.End() == r.v.rcvNxt
		return
	}
	if !r.has(flagACK) {
		r.drop(DropTCPFlags) // fifth: "if the ACK bit is off, drop the segment and return"
		return
	}
	if r.fifth() {
		r.seventh()
		r.eighth()
	}
}

// unacceptable is the first step: RFC 9293 section 3.4, table 6. What it is
// called is Linux's: sequence space wholly received is OLD_DATA, an empty
// segment from before is OLD_SEQUENCE; on the right what begins exactly at the
// edge is OVERWINDOW (or ZEROWINDOW), what begins beyond it INVALID_SEQUENCE.
//
// Two allowances. An empty segment exactly at the edge is taken for its
// acknowledgement once data may flow: it comes from a peer that has filled the
// window (RFC 9293 appendix A.2; Linux tcp_sequence). And "if the RCV.WND is zero, no segments
// will be acceptable, but special allowance should be made to accept valid
// ACKs", so what begins at RCV.NXT is read for its acknowledgement; see
// seventh. After the peer's FIN no segment can need that.
func (r *ruling) unacceptable() DropReason {
	var (
		v, n   = &r.v, r.s.Len()
		closed = v.window() == 0
		after  = v.edge.LessThan(r.s.Seq)
	)
	switch {
	case n == 0 && r.s.Seq.LessThan(v.rcvNxt):
		return DropOldSequence
	case n != 0 && r.s.End().LessThanEq(v.rcvNxt):
		return DropOldData
	case after, n == 0 && !closed && r.s.Seq == v.edge && v.state == StateSynReceived:
		return DropInvalidSequence
	case n != 0 && closed && v.peerFIN:
		return DropZeroWindow
	case n != 0 && !closed && r.s.Seq == v.edge:
		return DropOverWindow
	}
	return NotDropped
}

// second: the RST, RFC 9293 section 3.10.7.4 and RFC 5961 section 3.2 with
// erratum 4845. Outside the window: silently dropped. Exactly at RCV.NXT (even
// if the window is closed, MUST-66): believed. Elsewhere: a challenge ACK.
func (r *ruling) second() {
	v := &r.v
	r.drop(DropReset)
	switch {
	case r.s.Seq.LessThan(v.rcvNxt):
		r.drop(DropOldSequence)
	case r.s.Seq == v.rcvNxt:
		r.reset()
	case v.edge.LessThanEq(r.s.Seq):
		r.drop(DropInvalidSequence)
	case v.state == StateTimeWait: // as in reset
	default:
		r.answerACK()
	}
}

// reset is what a believed RST does: RFC 9293 section 3.10.7.4, second, by
// state. An embryo of a listener goes away (the listener listens on, and the
// error is for its statistics); an active open is refused; who still has a use
// for the connection hears of the reset, which sockets call a broken pipe where
// only writing was left (Linux tcp_reset); who does not, does not. RFC 1337
// section 3 (F1): "Ignore RST segments in TIME-WAIT state."
func (r *ruling) reset() {
	switch r.v.state {
	case StateSynReceived:
		if r.v.passive {
			r.broken(ErrReset)
		} else {
			r.broken(ErrRefused)
		}
	case StateEstablished, StateFinWait1, StateFinWait2:
		r.broken(ErrReset)
	case StateCloseWait:
		r.broken(ErrClosedForSend)
	case StateClosing, StateLastAck:
		r.enter(StateClosed)
	case StateTimeWait:
	}
}

// fourth: the SYN. RFC 5961 section 4.2: "irrespective of the sequence number,
// TCP MUST send an ACK (also referred to as challenge ACK)". RFC 9293 has an
// exception for SYN-RECEIVED: "If the connection was initiated with a passive
// OPEN, then return this connection to the LISTEN state and return", which only
// a SYN that passed the first step reaches.
//
// The peer's own SYN again, which lies just left of the window, is answered by
// our SYN-ACK again (Linux tcp_check_req: the RFC "says NOTHING" of it). The
// SYN-ACK of a simultaneous open lies there too and completes it: figure 8.
// Whether a SYN may open a new connection out of TIME-WAIT is asked before (see
// reusable). One that may not: "silently drop the incoming SYN segment, thus
// leaving the previous incarnation of the connection in the TIME-WAIT state",
// RFC 6191 section 2, to which RFC 9293 refers for this state.
func (r *ruling) fourth() {
	v := &r.v
	r.drop(DropInvalidSYN)
	if v.state == StateTimeWait && !r.has(flagACK) {
		return
	}
	if v.state == StateSynReceived {
		again := r.s.Seq == v.irs
		switch {
		case again && r.has(flagACK) && !v.passive && r.s.Ack == v.nxt:
			r.drop(NotDropped)
			r.w.una = r.s.Ack
			r.answerACK()
			r.enter(StateEstablished)
			return
		case again && !r.has(flagACK):
			r.answerSYN()
			return
		case v.passive && r.unacceptable() == NotDropped:
			r.broken(ErrReset)
			return
		}
	}
	r.answerACK()
}

// fifth: the ACK field. It reports whether the segment is processed further.
//
// SYN-RECEIVED, RFC 9293: "If SND.UNA < SEG.ACK =< SND.NXT, then enter
// ESTABLISHED … If the segment acknowledgment is not acceptable, form a reset
// segment <SEQ=SEG.ACK><CTL=RST>". Otherwise RFC 5961 section 5.2: "The ACK
// value is considered acceptable only if it is in the range of ((SND.UNA -
// MAX.SND.WND) <= SEG.ACK <= SND.NXT). All incoming segments whose ACK value
// doesn't satisfy the above condition MUST be discarded and an ACK sent back."
func (r *ruling) fifth() bool {
	v, ack := &r.v, r.s.Ack
	if v.state == StateSynReceived {
		if ack.LessThanEq(v.una) || v.nxt.LessThan(ack) {
			r.answerRST()
			r.drop(DropInvalidAckSequence)
			return false
		}
		r.enter(StateEstablished)
	}
	switch {
	case v.nxt.LessThan(ack):
		r.answerACK()
		r.drop(DropAckUnsentData)
		return false
	case ack.LessThan(v.una.Add(-v.maxWnd)):
		r.answerACK()
		r.drop(DropTooOldAck)
		return false
	case v.una.LessThan(ack):
		r.w.una = ack
	}
	if r.w.una == v.nxt {
		r.finAcked()
	}
	if v.state == StateTimeWait && (r.s.Len() != 0 || r.s.Seq != v.rcvNxt) {
		// Nothing but the FIN can arrive here, says the RFC. Linux and FreeBSD
		// acknowledge whatever else does, but for an empty segment at RCV.NXT
		// (Linux tcp_timewait_state_process).
		r.answerACK()
	}
	return r.w.state != StateClosed
}

// finAcked: everything we sent is acknowledged, our FIN included if we sent
// one. RFC 9293 section 3.10.7.4, fifth, FIN-WAIT-1, CLOSING, LAST-ACK.
func (r *ruling) finAcked() {
	switch r.v.state {
	case StateFinWait1:
		r.enter(StateFinWait2)
	case StateClosing:
		r.enter(StateTimeWait)
		r.w.restart = true
	case StateLastAck:
		r.enter(StateClosed)
	}
}

// seventh: the text. ESTABLISHED and FIN-WAIT take it: what begins at RCV.NXT
// moves it, what comes early is kept and acknowledged at once (RFC 5681 section
// 4.2); in either case the reply acknowledges RCV.NXT. What lies outside the
// window is trimmed off (RFC 9293 section 3.10.7.4, "one could tailor actual
// segments"), except that with nothing unread there is memory for all of a
// segment that begins at RCV.NXT (Linux tcp_sequence). Into a closed window no
// text goes. After the peer's FIN: "ignore the segment text".
func (r *ruling) seventh() {
	if r.s.DataLen() == 0 || r.v.peerFIN {
		return
	}
	r.answerACK()
	start, end := r.text()
	switch {
	case r.s.Seq.Add(r.s.DataLen()).LessThanEq(r.v.rcvNxt):
		return // all of it is known; a FIN may follow
	case r.v.window() == 0:
		r.drop(DropZeroWindow)
		return
	case start == r.v.rcvNxt:
		r.w.rcvNxt = end
		r.w.events |= EventReadable
	}
	r.answerACK()
}

// text is what of the segment's text is taken.
func (r *ruling) text() (start, end seqnum.Value) {
	v := &r.v
	start, end = r.s.Seq, r.s.Seq.Add(r.s.DataLen())
	if start.LessThan(v.rcvNxt) {
		start = v.rcvNxt
	}
	if v.edge.LessThan(end) && (v.unread || start != v.rcvNxt) {
		end = v.edge
	}
	return start, end
}

// eighth: the FIN. It counts when all before it has come, and if its text was
// cut it goes with it. RFC 9293 section 3.10.7.4: "advance RCV.NXT over the
// FIN, and send an acknowledgment for the FIN", and the state by state list. An
// early one is kept and acknowledged as early text is. Of a second FIN, which
// no peer sends, the acknowledgement and the restart of TIME-WAIT are kept, but
// RCV.NXT does not advance: the peer's sequence space has ended.
//
// A FIN alone is taken into a closed window too (Linux tcp_data_queue): it
// needs no buffer.
func (r *ruling) eighth() {
	if !r.has(flagFIN) {
		return
	}
	v := &r.v
	if !v.peerFIN {
		if _, end := r.text(); r.w.reason == DropZeroWindow || end != r.s.End()-1 {
			return // cut off
		}
		if r.w.rcvNxt != r.s.End()-1 {
			r.answerACK()
			return // early
		}
		r.w.rcvNxt++
		r.w.events |= EventPeerClosed | EventReadable
	}
	r.answerACK()
	switch r.w.state {
	case StateEstablished:
		r.enter(StateCloseWait)
	case StateFinWait1:
		r.enter(StateClosing)
	case StateFinWait2:
		r.enter(StateTimeWait)
	}
	r.w.restart = r.w.state == StateTimeWait
}

// reusable: a SYN begins a new connection out of TIME-WAIT if its timestamp is
// later than the old one's last, or without timestamps to compare (or with the
// same) if its sequence number is greater than the last seen. RFC 6191 section
// 2. Like Linux and FreeBSD we take RCV.NXT for the last, one more than it is.
func reusable(v view, s *Segment, recent uint32, stamped bool) bool {
	if v.state != StateTimeWait || s.Flags&(flagSYN|flagFIN|flagRST|flagACK) != flagSYN {
		return false
	}
	if stamped && s.Options.HasTS && s.Options.TSVal != recent {
		return int32(s.Options.TSVal-recent) > 0
	}
	return v.rcvNxt.LessThan(s.Seq)
}
