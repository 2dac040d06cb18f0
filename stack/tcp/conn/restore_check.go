package conn

import (
	"fmt"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/repair"
)

// A snapshot may come from anywhere. What is said here is checked before
// Restore touches anything: what contradicts itself is refused, and what is
// only out of range is brought into range where it is used.

const (
	// maxRun bounds every run of sequence numbers in a snapshot: the largest
	// window there is (RFC 7323 section 2.3). Comparisons of sequence numbers
	// are sound within it.
	maxRun = 1 << 30
	// maxHeld bounds the spans that wait for their turn.
	maxHeld = 1 << 16
	// maxAge bounds how long ago something can have been, or be to come.
	maxAge = 400 * 24 * time.Hour
)

// invalid is what is wrong with a snapshot.
func invalid(format string, args ...any) error {
	return fmt.Errorf("snapshot: %w: "+format, append([]any{repair.ErrInvalid}, args...)...)
}

// span of the sequence numbers of a snapshot's two directions.
type sequences struct {
	una, nxt seqnum.Value // ours: acknowledged and sent up to here
	rcvNxt   seqnum.Value // the peer's: received up to here
	acked    seqnum.Value // what we last told the peer of that
	edge     seqnum.Value // the right-most window edge that it knows
}

// sequencesOf works out the sequence variables of a core that checkCore has
// found sound.
func sequencesOf(k *repair.Core, x *repair.Extra) sequences {
	q := sequences{rcvNxt: seqnum.Value(k.RecvSeq)}
	q.una = seqnum.Value(k.SendSeq)
	q.nxt = q.una.Add(seqnum.Size(k.SendQueue.Len() - k.Unsent))
	if !State(k.State).Synchronized() {
		q.una-- // our SYN
	}
	if k.FINSent {
		q.nxt++
	}
	if k.FINAcked {
		q.una++
	}
	if k.FINReceived {
		q.rcvNxt++
	}
	q.acked, q.edge = q.rcvNxt, q.rcvNxt
	if w := &k.Window; *w != (repair.Window{}) {
		q.acked = seqnum.Value(w.RcvWup)
		if edge := q.acked.Add(seqnum.Size(w.RcvWnd)); q.edge.LessThan(edge) {
			q.edge = edge
		}
	}
	if x != nil && q.edge.LessThan(seqnum.Value(x.Advertised)) {
		q.edge = seqnum.Value(x.Advertised)
	}
	return q
}

// checkCore finds what contradicts itself in the core of a snapshot.
func checkCore(k *repair.Core) error {
	if !restorable.has(State(k.State)) || k.State > repair.StateClosing {
		return fmt.Errorf("snapshot: %w: %s", repair.ErrState, State(k.State))
	}
	if n := k.SendQueue.Len(); n > maxRun || k.Unsent < 0 || k.Unsent > n {
		return invalid("%d of %d bytes to send were never sent", k.Unsent, n)
	}
	if n := k.RecvQueue.Len(); n > maxRun {
		return invalid("%d bytes are unread", n)
	}
	if err := checkFINs(k); err != nil {
		return err
	}
	if k.Options.SendScale > repair.MaxScale || k.Options.RecvScale > repair.MaxScale {
		return fmt.Errorf("snapshot: %w", repair.ErrTooBig)
	}
	if k.State == repair.StateSynSent || k.Window == (repair.Window{}) {
		return nil
	}
	return checkWindow(k.Window, sequencesOf(k, nil).rcvNxt)
}

// restorable holds the states that a connection can be restored to.
var restorable = states(StateSynSent, StateSynReceived, StateEstablished, StateFinWait1, StateFinWait2,
	StateCloseWait, StateClosing, StateLastAck, StateTimeWait)

// checkFINs compares what is said of the FINs, and of the queues, with the
// state.
func checkFINs(k *repair.Core) error {
	var (
		s      = State(k.State)
		ours   = finQueued.has(s)
		acked  = s == StateFinWait2 || s == StateTimeWait
		theirs = states(StateCloseWait, StateClosing, StateLastAck, StateTimeWait).has(s)
	)
	switch {
	case k.FINQueued != ours && s != StateSynReceived,
		k.FINSent && (!ours || k.Unsent > 0),
		k.FINAcked != acked, acked && (!k.FINSent || k.SendQueue.Len() > 0),
		k.FINReceived != theirs:
		return invalid("the FINs (queued %t, sent %t, acknowledged %t, received %t) do not fit %s",
			k.FINQueued, k.FINSent, k.FINAcked, k.FINReceived, s)
	case !s.Synchronized() && (k.SendQueue.Len() > 0 || k.RecvQueue.Len() > 0):
		return invalid("there are data in %s", s)
	}
	return nil
}

// checkWindow holds a window to the rules of Linux's TCP_REPAIR_WINDOW, and to
// what the protocol can say.
func checkWindow(w repair.Window, rcvNxt seqnum.Value) error {
	wl1, wup := seqnum.Value(w.SndWl1), seqnum.Value(w.RcvWup)
	switch {
	case w.MaxWindow < w.SndWnd || w.MaxWindow > maxRun || w.RcvWnd > maxRun,
		rcvNxt.Add(seqnum.Size(w.RcvWnd)).LessThan(wl1) || wl1.Add(maxRun).LessThan(rcvNxt),
		rcvNxt.LessThan(wup) || wup.Add(maxRun).LessThan(rcvNxt):
		return invalid("window %+v with RCV.NXT %d", w, uint32(rcvNxt))
	}
	return nil
}

// checkExtra finds what contradicts the core, or itself, in the extra part.
func checkExtra(k *repair.Core, x *repair.Extra) error {
	q := sequencesOf(k, x)
	if seqnum.Size(maxRun) < q.rcvNxt.Size(q.edge) {
		return invalid("window's edge %d with RCV.NXT %d", x.Advertised, uint32(q.rcvNxt))
	}
	if x.Congestion.Phase > uint8(phaseLoss) {
		return invalid("congestion phase %d", x.Congestion.Phase)
	}
	if err := checkSent(x.Sent, q, k); err != nil {
		return err
	}
	return checkHeld(x, q, State(k.State))
}

// checkSent holds the scoreboard to what was sent and not acknowledged. An
// empty one is no contradiction: it is not known.
func checkSent(sent []repair.SentSegment, q sequences, k *repair.Core) error {
	if len(sent) == 0 {
		return nil
	}
	if !State(k.State).Synchronized() {
		return invalid("segments sent in %s", State(k.State))
	}
	at := q.una
	for i := range sent {
		r := &sent[i]
		flags := recordFlags(r.Flags)
		switch {
		case seqnum.Value(r.Seq) != at, r.Len == 0, at.Size(q.nxt) < seqnum.Size(r.Len):
			return invalid("segment %d, %d+%d, of what was sent up to %d", i, r.Seq, r.Len, uint32(q.nxt))
		case flags&^(recSacked|recLost|recRtx|recEver) != 0,
			flags&recSacked != 0 && flags&(recLost|recRtx) != 0,
			flags&recRtx != 0 && flags&recLost == 0:
			return invalid("segment %d has flags %#x", i, r.Flags)
		}
		at = at.Add(seqnum.Size(r.Len))
	}
	if at != q.nxt {
		return invalid("segments end at %d, %d was sent", uint32(at), uint32(q.nxt))
	}
	return nil
}

// checkHeld holds what came before its turn to the window.
func checkHeld(x *repair.Extra, q sequences, s State) error {
	if (len(x.Held) > 0 || x.EarlyFIN != nil) && !canReceive.has(s) {
		return invalid("data is held in %s", s)
	}
	if len(x.Held) > maxHeld {
		return invalid("%d spans are held", len(x.Held))
	}
	at := q.rcvNxt
	for i := range x.Held {
		p := &x.Held[i]
		n, from := p.Data.Len(), seqnum.Value(p.Seq)
		if n == 0 || n > maxRun || !at.LessThan(from) || !from.LessThan(q.edge) || from.Size(q.edge) < seqnum.Size(n) {
			return invalid("span %d, %d+%d, with RCV.NXT %d and edge %d", i, p.Seq, n, uint32(q.rcvNxt), uint32(q.edge))
		}
		at = from.Add(seqnum.Size(n))
	}
	if f := x.EarlyFIN; f != nil && (!q.rcvNxt.LessThan(seqnum.Value(*f)) || q.edge.LessThan(seqnum.Value(*f))) {
		return invalid("early FIN at %d with RCV.NXT %d and edge %d", *f, uint32(q.rcvNxt), uint32(q.edge))
	}
	return nil
}
