package conn

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/repair"
)

// The matrix: every state, every kind of segment, every position against the
// receive window, repair mode off and on. What must come of each cell is worked
// out by the rules in matrix_rules_test.go.

// origin is a state and the way there.
type origin struct {
	name  string
	state State
	// simultaneous: SYN-RECEIVED was reached from SYN-SENT.
	simultaneous bool
}

var origins = []origin{
	{"LISTEN", StateListen, false},
	{"SYN-SENT", StateSynSent, false},
	{"SYN-RECEIVED by LISTEN", StateSynReceived, false},
	{"SYN-RECEIVED by simultaneous open", StateSynReceived, true},
	{"ESTABLISHED", StateEstablished, false},
	{"FIN-WAIT-1", StateFinWait1, false},
	{"FIN-WAIT-2", StateFinWait2, false},
	{"CLOSE-WAIT", StateCloseWait, false},
	{"CLOSING", StateClosing, false},
	{"LAST-ACK", StateLastAck, false},
	{"TIME-WAIT", StateTimeWait, false},
}

// kind is a kind of segment. text says that it carries data.
type kind struct {
	name  string
	flags header.TCPFlags
	text  bool
}

// The first nine are the matrix proper; the rest are what else may come.
var kinds = []kind{
	{"RST", flagRST, false},
	{"RST+ACK", flagRST | flagACK, false},
	{"SYN", flagSYN, false},
	{"SYN+ACK", flagSYN | flagACK, false},
	{"SYN+FIN", flagSYN | flagFIN, false},
	{"FIN", flagFIN, false},
	{"FIN+ACK", flagFIN | flagACK, false},
	{"ACK", flagACK, false},
	{"data", flagACK | flagPSH, true},

	{"data+FIN", flagACK | flagFIN, true},
	{"data without ACK", flagPSH, true},
	{"FIN+data without ACK", flagFIN, true},
	{"SYN+data", flagSYN, true},
	{"SYN+ACK+FIN", flagSYN | flagACK | flagFIN, false},
	{"RST+data", flagRST, true},
	{"RST+SYN+FIN+ACK", flagRST | flagSYN | flagFIN | flagACK, false},
	{"no flags", 0, false},
}

const properKinds = 9

// place is where a segment begins against the receive window.
type place uint8

const (
	leftOf place = iota
	leftEdge
	inside
	rightEdge
	rightOf
	// Beyond the matrix proper:
	farLeft
	farRight
	numPlaces
)

const properPlaces = 5

var placeNames = [numPlaces]string{"left of the window", "left edge", "inside", "right edge", "right of the window", "far left", "far right"}

// seq is the place's sequence number; a closed window has no inside.
func (p place) seq(v *view) (at seqnum.Value, ok bool) {
	open := v.window() > 2
	switch p {
	case leftOf:
		return v.rcvNxt - 1, true
	case leftEdge:
		return v.rcvNxt, true
	case inside:
		return v.rcvNxt.Add(v.window() / 2), open
	case rightEdge:
		return v.edge - 1, open
	case rightOf:
		return v.edge, open
	case farLeft:
		return v.rcvNxt - 100_000, true
	}
	return v.edge.Add(100_000), true
}

// variant is a manner of connection.
type variant struct {
	name    string
	options bool // timestamps, SACK, window scale
	closed  bool // the receive window is closed
}

var variants = []variant{
	{"plain", false, false},
	{"with options", true, false},
	{"plain, window closed", false, true},
	{"with options, window closed", true, true},
}

// subject is the connection under test and what its peer knows of it.
type subject struct {
	t       testing.TB
	c       Conn
	now     Time
	v       view
	variant variant
	offered bool   // it has offered a window
	scale   uint8  // of its window fields
	clock   uint32 // the peer's timestamp clock
	rcvBuf  int
}

// Both ends' sequence numbers wrap soon.
const (
	subjectISS = 0xffffffd0
	peerISS    = 0xfffffc00
)

const (
	peerWindow = 100 // as it stands in the field
	peerScale  = 6
	rcvBuf     = 2000
)

// arrange brings a connection into a state by segments and user calls alone.
// The peer acknowledges nothing that the state does not need acknowledged.
func arrange(t testing.TB, o origin, va variant) *subject {
	t.Helper()
	s := &subject{t: t, now: Time(time.Hour), variant: va, clock: 5000, rcvBuf: rcvBuf}
	// Where there is no window yet, a place is one against this one.
	s.v = view{state: StateClosed, iss: subjectISS, irs: peerISS, rcvNxt: 70_000, edge: 70_000 + rcvBuf}
	if o.state == StateListen {
		s.v.state = StateListen
		return s
	}
	s.open(o)
	if o.state.Synchronized() {
		s.converse(o.state)
	}
	if got := s.c.State(); got != o.state {
		t.Fatalf("arranged %s, want %s", got, o.state)
	}
	s.c.Events()
	s.v.state = o.state
	return s
}

func (s *subject) config() Config {
	o := s.variant.options
	return Config{ISS: subjectISS, MSS: 1460, RcvBuf: s.rcvBuf, WindowScaling: o, Timestamps: o, SACK: o, RACK: o, ScaleFor: rcvBuf << 5}
}

// open performs the handshake, as far as the state wants it.
func (s *subject) open(o origin) {
	cfg := s.config()
	if o.state == StateSynReceived && !o.simultaneous {
		syn := s.segment(flagSYN, peerISS, 0, 0)
		s.c.Accept(s.now, &cfg, &syn)
		s.v.passive = true
		s.v.una, s.v.rcvNxt = subjectISS, peerISS+1
		s.hear(1)
		return
	}
	s.c.Connect(s.now, &cfg)
	s.v.una = subjectISS
	s.hear(1)
	if o.state == StateSynSent {
		return
	}
	s.v.rcvNxt = peerISS + 1
	if o.simultaneous {
		s.tell(s.segment(flagSYN, peerISS, 0, 0), 1)
		return
	}
	s.v.una = subjectISS + 1
	s.tell(s.segment(flagSYN|flagACK, peerISS, subjectISS+1, 0), 1)
}

// converse goes on from ESTABLISHED: text both ways, then what closes the
// connection as far as the state wants it.
func (s *subject) converse(to State) {
	text := seqnum.Size(10)
	if s.variant.closed {
		text = s.v.window()
	}
	s.tell(s.segment(flagACK, s.v.rcvNxt, s.v.una, text), 1)
	s.v.unread = true
	if n, err := s.c.Write(s.now, bytes.NewReader(make([]byte, 100)), 100, false); n != 100 || err != nil {
		s.t.Fatalf("write: %d, %v", n, err)
	}
	s.hear(1)
	shutdown := func() {
		if err := s.c.Shutdown(s.now, false, true); err != nil {
			s.t.Fatal(err)
		}
		s.hear(1)
	}
	fin := func() {
		s.v.peerFIN = true
		s.tell(s.segment(flagFIN|flagACK, s.v.rcvNxt, s.v.una, 0), 1)
	}
	acknowledge := func() {
		s.v.una = s.v.nxt
		s.tell(s.segment(flagACK, s.v.rcvNxt, s.v.una, 0), 0)
	}
	switch to {
	case StateFinWait1:
		shutdown()
	case StateFinWait2:
		shutdown()
		acknowledge()
	case StateCloseWait:
		fin()
	case StateClosing:
		shutdown()
		fin()
	case StateLastAck:
		fin()
		shutdown()
	case StateTimeWait:
		shutdown()
		acknowledge()
		fin()
	}
}

// segment is one of the peer's.
func (s *subject) segment(f header.TCPFlags, seq, ack seqnum.Value, text seqnum.Size) Segment {
	out := Segment{Seq: seq, Flags: f, Window: peerWindow}
	if out.Has(flagACK) {
		out.Ack = ack
	}
	if text > 0 {
		out.Payload = payload(bytes.Repeat([]byte{'x'}, int(text)))
	}
	if s.variant.options {
		s.clock++
		o := &out.Options
		o.HasTS, o.TSVal, o.TSEcr = true, s.clock, s.c.tstamp.value(s.now)
		if out.Has(flagSYN) {
			o.MSS, o.SACKPermitted, o.HasWScale, o.WScale = 1460, true, true, peerScale
		}
	}
	offered := seqSize(out.Window)
	if s.variant.options && !out.Has(flagSYN) {
		offered <<= peerScale
	}
	if !out.Has(flagRST) {
		s.v.maxWnd = max(s.v.maxWnd, offered)
	}
	return out
}

// tell gives the connection a segment that it must take, and hears n answers.
func (s *subject) tell(in Segment, n int) {
	s.t.Helper()
	if verdict := s.c.Input(s.now, &in); verdict != NotDropped {
		s.t.Fatalf("while arranging: %s refused with %s", in.String(), verdict)
	}
	s.hear(n)
}

// hear takes what the connection sends and learns from it what a peer would.
func (s *subject) hear(n int) (heard []Segment) {
	s.t.Helper()
	var out Segment
	for s.c.Output(s.now, &out) {
		heard = append(heard, out)
		if out.Has(flagRST) {
			continue
		}
		if end := out.End(); out.Has(flagSYN) || s.v.nxt.LessThan(end) {
			s.v.nxt = end
		}
		scale := s.scale
		if out.Has(flagSYN) {
			s.scale, scale = out.Options.WScale, 0
		}
		if out.Has(flagACK) {
			s.v.rcvNxt = out.Ack
			if edge := out.Ack.Add(seqSize(out.Window) << scale); !s.offered || s.v.edge.LessThan(edge) {
				s.v.edge, s.offered = edge, true
			}
			// The FIN that went into a closed window took it past the edge.
			if s.v.edge.LessThan(s.v.rcvNxt) {
				s.v.edge = s.v.rcvNxt
			}
		}
	}
	if n >= 0 && len(heard) != n {
		s.t.Fatalf("heard %d segments in %s, want %d: %v", len(heard), s.c.State(), n, heard)
	}
	if err := s.c.check(); err != nil {
		s.t.Fatal(err)
	}
	return heard
}

// judge gives the connection a segment and holds what comes of it against the
// rules' want. It returns what differs.
func (s *subject) judge(in Segment, w want) (faults []string) {
	s.t.Helper()
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	edge, offered := s.v.edge, s.offered
	timeWait, recent := s.c.timers.at(timerTimeWait), s.c.tstamp.recent
	s.now = s.now.Add(time.Millisecond)
	verdict := s.c.Input(s.now, &in)
	heard := s.hear(-1)

	if verdict != w.reason {
		fault("verdict %s, want %s", verdict, w.reason)
	}
	if got := s.c.State(); got != w.state {
		fault("state %s, want %s", got, w.state)
	}
	if got := s.c.Err(); got != w.err {
		fault("error %v, want %v", got, w.err)
	}
	if _, err := s.c.Write(s.now, bytes.NewReader(nil), 0, false); w.err != nil && err != w.err {
		fault("writing: error %v, want %v", err, w.err)
	}
	if got := s.c.Events(); got != w.events {
		fault("events %06b, want %06b", got, w.events)
	}
	if got := s.c.snd.una; got != w.una {
		fault("SND.UNA %d, want %d", got, w.una)
	}
	if got := s.c.rcv.nxt; got != w.rcvNxt && s.c.rcv.irs != 0 {
		fault("RCV.NXT %d, want %d", got, w.rcvNxt)
	}
	if got := s.c.timers.at(timerTimeWait) != timeWait; got != w.restart {
		fault("TIME-WAIT timer set anew: %v, want %v", got, w.restart)
	}
	// A SYN seen again is refused but echoed: it reaches the left edge of what
	// was last acknowledged. https://www.rfc-editor.org/rfc/rfc7323#section-4.3 (2)
	again := in.Has(header.TCPFlagSyn) && !in.Has(header.TCPFlagAck) && in.Seq == s.v.irs && s.v.state == StateSynReceived
	if got := s.c.tstamp.recent; got != recent && !again && w.reason != NotDropped && w.reason != DropZeroWindow {
		// RFC 7323 section 4.3, and RFC 5961 section 5.2: what is discarded
		// leaves nothing behind that could make later segments look stale.
		fault("TS.Recent %d, want %d", got, recent)
	}
	if reply := (want{reply: w.reply, seq: w.seq, ack: w.ack}); !reply.matches(heard) {
		fault("answer %v, want %s", heard, reply.replyString())
	}
	if offered && s.v.edge.LessThan(edge) {
		fault("the window's edge went back from %d to %d", edge, s.v.edge)
	}
	return faults
}

// matches reports whether what was heard is the reply.
func (w want) matches(heard []Segment) bool {
	if w.reply == noReply {
		return len(heard) == 0
	}
	if len(heard) != 1 {
		return false
	}
	flags := [...]header.TCPFlags{replyACK: flagACK, replyRST: flagRST, replySYNACK: flagSYN | flagACK}
	got := &heard[0]
	return got.Flags == flags[w.reply] && got.Seq == w.seq && got.Ack == w.ack && got.Payload.Size() == 0
}

func (w want) replyString() string {
	names := [...]string{noReply: "nothing", replyACK: "ACK", replyRST: "RST", replySYNACK: "SYN+ACK"}
	return fmt.Sprintf("%s seq %d ack %d", names[w.reply], uint32(w.seq), uint32(w.ack))
}

// listen judges a segment as a listener would, and Accept behind it.
func (s *subject) listen(in Segment, w want) (faults []string) {
	s.t.Helper()
	var heard []Segment
	action, reason := ListenVerdict(&in)
	state := StateListen
	switch action {
	case ListenReset:
		if rst, ok := Reset(&in); ok {
			heard = append(heard, rst)
		}
	case ListenOpen:
		cfg := s.config()
		s.c.Accept(s.now, &cfg, &in)
		heard = s.hear(-1)
		state = s.c.State()
	}
	if reason != w.reason {
		faults = append(faults, fmt.Sprintf("verdict %s, want %s", reason, w.reason))
	}
	if state != w.state {
		faults = append(faults, fmt.Sprintf("state %s, want %s", state, w.state))
	}
	if !w.matches(heard) {
		faults = append(faults, fmt.Sprintf("answer %v, want %s", heard, w.replyString()))
	}
	return faults
}

// judgeFrozen does the same with the connection in repair mode, and again after
// the thaw, when the freeze must have left no trace.
func (s *subject) judgeFrozen(in func() Segment) (faults []string) {
	if err := s.c.SetRepair(s.now, repair.On); err != nil {
		s.t.Fatal(err)
	}
	first := in()
	faults = s.judge(first, frozenRule(s.v))
	if err := s.c.SetRepair(s.now, repair.OffNoProbe); err != nil {
		s.t.Fatal(err)
	}
	s.c.Events()
	if heard := s.hear(-1); len(heard) != 0 {
		faults = append(faults, fmt.Sprintf("after the thaw: sent %v", heard))
	}
	again := in()
	for _, f := range s.judge(again, rule(s.v, &again)) {
		faults = append(faults, "after the thaw: "+f)
	}
	return faults
}

// lengths are the lengths of text that a kind of segment is tried with: one
// byte, and more than the window takes.
func (k kind) lengths(v *view) []seqnum.Size {
	if !k.text {
		return []seqnum.Size{0}
	}
	return []seqnum.Size{1, v.window() + 10}
}

// arranges reports whether the variant exists in a state: a window is closed by
// text, so not before ESTABLISHED.
func (va variant) arranges(o origin) bool { return !va.closed || o.state.Synchronized() }

func TestMatrix(t *testing.T) {
	proper, all := 0, 0
	for _, o := range origins {
		for _, va := range variants {
			if !va.arranges(o) {
				continue
			}
			t.Run(o.name+"/"+va.name, func(t *testing.T) {
				for i, k := range kinds {
					for p := range numPlaces {
						for _, frozen := range []bool{false, true} {
							n := matrixCell(t, o, va, k, p, frozen)
							all += n
							if n > 0 && va == variants[0] && i < properKinds && p < properPlaces {
								proper++
							}
						}
					}
				}
			})
		}
	}
	if want := 11 * 9 * 5 * 2; proper != want {
		t.Errorf("the matrix has %d cells, want %d", proper, want)
	}
	t.Logf("%d cells of the matrix, %d in all", proper, all)
}

// matrixCell tries one cell, with each length of text, and returns how many
// times that was.
func matrixCell(t *testing.T, o origin, va variant, k kind, p place, frozen bool) (tried int) {
	for i := range 2 {
		s := arrange(t, o, va)
		lengths := k.lengths(&s.v)
		seq, exists := p.seq(&s.v)
		if i == len(lengths) || !exists {
			s.c.Release()
			return tried
		}
		// What acknowledges, acknowledges all that was sent; in LISTEN nothing
		// was, and any number will do.
		in := func() Segment { return s.segment(k.flags, seq, s.v.nxt, lengths[i]) }
		first := in()
		var faults []string
		switch {
		case o.state == StateListen:
			if frozen {
				faults = s.cannotFreeze()
			}
			faults = append(faults, s.listen(first, rule(s.v, &first))...)
		case frozen:
			faults = s.judgeFrozen(in)
		default:
			faults = s.judge(first, rule(s.v, &first))
		}
		for _, f := range faults {
			t.Errorf("%s, %d bytes, %s, frozen %v: %s", k.name, lengths[i], placeNames[p], frozen, f)
		}
		s.c.Release()
		tried++
	}
	return tried
}

// cannotFreeze: a listener has nothing to freeze, so repair mode is refused
// (Linux tcp_can_repair_sock) and LISTEN is the same with repair on.
func (s *subject) cannotFreeze() (faults []string) {
	c := Conn{state: StateListen}
	if err := c.SetRepair(s.now, repair.On); err != ErrInvalid || c.Frozen() {
		return []string{fmt.Sprintf("SetRepair in LISTEN: %v", err)}
	}
	return nil
}

// The second table: acknowledgement numbers, in every state.
func TestMatrixAcknowledgements(t *testing.T) {
	numbers := []struct {
		name string
		at   func(v *view) seqnum.Value
	}{
		{"far too old", func(v *view) seqnum.Value { return v.una - 1<<30 }},
		{"too old by one", func(v *view) seqnum.Value { return v.una.Add(-v.maxWnd) - 1 }},
		{"as old as may be", func(v *view) seqnum.Value { return v.una.Add(-v.maxWnd) }},
		{"old by one", func(v *view) seqnum.Value { return v.una - 1 }},
		{"SND.UNA", func(v *view) seqnum.Value { return v.una }},
		{"between", func(v *view) seqnum.Value { return v.una.Add(v.una.Size(v.nxt) / 2) }},
		{"SND.NXT less one", func(v *view) seqnum.Value { return v.nxt - 1 }},
		{"SND.NXT", func(v *view) seqnum.Value { return v.nxt }},
		{"beyond SND.NXT by one", func(v *view) seqnum.Value { return v.nxt + 1 }},
		{"far beyond SND.NXT", func(v *view) seqnum.Value { return v.nxt.Add(1 << 30) }},
	}
	for _, o := range origins {
		for _, va := range variants {
			if o.state == StateListen || !va.arranges(o) {
				continue
			}
			t.Run(o.name+"/"+va.name, func(t *testing.T) {
				for _, k := range kinds {
					if k.flags&flagACK == 0 {
						continue
					}
					for _, number := range numbers {
						s := arrange(t, o, va)
						text := k.lengths(&s.v)[0]
						in := s.segment(k.flags, s.v.rcvNxt, number.at(&s.v), text)
						for _, f := range s.judge(in, rule(s.v, &in)) {
							t.Errorf("%s, ACK %s: %s", k.name, number.name, f)
						}
						s.c.Release()
					}
				}
			})
		}
	}
}

// https://www.rfc-editor.org/rfc/rfc7323#section-5.3 (R1): a segment that is
// not a RST and whose timestamp is from before is answered with an ACK and
// dropped, wherever it lies. A SYN is answered the same way, but as a SYN.
func TestMatrixStaleTimestamps(t *testing.T) {
	for _, o := range origins {
		if !o.state.Synchronized() {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			for _, k := range kinds {
				for p := range numPlaces {
					s := arrange(t, o, variants[1])
					seq, _ := p.seq(&s.v)
					in := s.segment(k.flags, seq, s.v.nxt, k.lengths(&s.v)[0])
					in.Options.TSVal -= 1000
					w := rule(s.v, &in)
					if k.flags&(flagRST|flagSYN) == 0 {
						w = want{reason: DropPAWS, state: s.v.state, una: s.v.una, rcvNxt: s.v.rcvNxt,
							reply: replyACK, seq: s.v.nxt, ack: s.v.rcvNxt}
						if o.state == StateTimeWait {
							w.reason = DropTimeWaitPAWS
						}
					}
					for _, f := range s.judge(in, w) {
						t.Errorf("%s, %s: %s", k.name, placeNames[p], f)
					}
					s.c.Release()
				}
			}
		})
	}
}

// A SYN out of TIME-WAIT: RFC 6191 section 2.
func TestMatrixReuse(t *testing.T) {
	yes := 0
	for _, o := range origins[1:] {
		for _, va := range variants {
			if !va.arranges(o) {
				continue
			}
			s := arrange(t, o, va)
			recent := s.clock
			for _, k := range kinds {
				for p := range numPlaces {
					seq, _ := p.seq(&s.v)
					for _, newer := range []int32{-1000, 0, 1000} {
						in := s.segment(k.flags, seq, s.v.nxt, 0)
						in.Options.TSVal = recent + uint32(newer)
						want := reusable(s.v, &in, recent, va.options)
						if got := s.c.Reusable(&in); got != want {
							t.Errorf("%s/%s: %s, %s, timestamp %+d: reusable %v, want %v", o.name, va.name, k.name, placeNames[p], newer, got, want)
						}
						if want {
							yes++
						}
					}
				}
			}
			s.c.SetRepair(s.now, repair.On)
			in := s.segment(flagSYN, s.v.edge.Add(1), 0, 0)
			if s.c.Reusable(&in) {
				t.Errorf("%s/%s: reusable while frozen", o.name, va.name)
			}
			s.c.Release()
		}
	}
	if yes == 0 {
		t.Error("nothing was reusable")
	}
}

// https://www.rfc-editor.org/rfc/rfc7323#section-2.2 : the window of a SYN is
// never scaled, that of the next segment always, though the fields be equal.
func TestMatrixWindowOfSYN(t *testing.T) {
	for _, o := range origins[1:4] {
		s := arrange(t, o, variants[1])
		if !s.v.passive {
			s.tell(s.segment(flagSYN|flagACK, peerISS, s.v.nxt, 0), 1)
		}
		s.v.rcvNxt = peerISS + 1
		if got := s.c.snd.wnd; got != peerWindow {
			t.Errorf("%s: after the SYN SND.WND is %d, want %d", o.name, got, peerWindow)
		}
		s.tell(s.segment(flagACK, s.v.rcvNxt, s.v.nxt, 1), 1)
		if got, want := s.c.snd.wnd, seqnum.Size(peerWindow)<<peerScale; got != want {
			t.Errorf("%s: after the first segment SND.WND is %d, want %d", o.name, got, want)
		}
	}
}

// https://www.rfc-editor.org/rfc/rfc1122#page-88 : data for a user who is gone
// is answered with a RST, and so is the peer's wish to go on sending.
func TestMatrixDataForNobody(t *testing.T) {
	for _, fin := range []bool{false, true} {
		s := arrange(t, origins[4], variants[0])
		s.c.Read(s.now, new(bytes.Buffer), 1000, false)
		s.c.Close(s.now)
		s.hear(1)
		if fin {
			s.v.una = s.v.nxt
			s.tell(s.segment(flagACK, s.v.rcvNxt, s.v.una, 0), 0)
		}
		in := s.segment(flagACK, s.v.rcvNxt, s.v.nxt, 1)
		verdict := s.c.Input(s.now, &in)
		heard := s.hear(1)
		if verdict != DropAbortOnData || s.c.State() != StateClosed || !heard[0].Has(flagRST) || heard[0].Seq != s.v.nxt {
			t.Errorf("FIN acknowledged %v: verdict %s, %s, answer %v", fin, verdict, s.c.State(), heard)
		}
	}
}

// https://www.rfc-editor.org/rfc/rfc5961#section-7 : challenge ACKs are
// limited, for each connection on its own.
func TestMatrixChallengeLimit(t *testing.T) {
	probes := []struct {
		name string
		make func(s *subject) Segment
	}{
		{"RST inside", func(s *subject) Segment { return s.segment(flagRST, s.v.rcvNxt+5, 0, 0) }},
		{"SYN left", func(s *subject) Segment { return s.segment(flagSYN, s.v.rcvNxt-300, 0, 0) }},
		{"SYN inside", func(s *subject) Segment { return s.segment(flagSYN, s.v.rcvNxt+5, 0, 0) }},
		{"SYN right", func(s *subject) Segment { return s.segment(flagSYN, s.v.edge+5, 0, 0) }},
		{"SYN+ACK", func(s *subject) Segment { return s.segment(flagSYN|flagACK, s.v.rcvNxt, s.v.nxt, 0) }},
		{"ACK unsent", func(s *subject) Segment { return s.segment(flagACK, s.v.rcvNxt, s.v.nxt+9, 1) }},
		{"ACK too old", func(s *subject) Segment { return s.segment(flagACK, s.v.rcvNxt, s.v.una-1<<20, 1) }},
	}
	storm := func(s *subject, from, n int) (answers int) {
		for i := range n {
			in := probes[(from+i)%len(probes)].make(s)
			if v := s.c.Input(s.now, &in); v == NotDropped {
				t.Fatalf("%s was taken", probes[(from+i)%len(probes)].name)
			}
			answers += len(s.hear(-1))
		}
		return answers
	}
	for i := range probes {
		s := arrange(t, origins[4], variants[1])
		for second := range 3 {
			if n := storm(s, i, 500); n != challengeLimit {
				t.Errorf("beginning with %s, second %d: %d answers, want %d", probes[i].name, second, n, challengeLimit)
			}
			s.now = s.now.Add(time.Second)
		}
		other := arrange(t, origins[4], variants[1])
		if n := storm(other, i, 1); n != 1 {
			t.Errorf("another connection gives %d answers, want 1", n)
		}
	}
}

// Empty segments outside the window are answered twice a second at most, so
// that two confused ends do not answer each other for ever.
func TestMatrixOutOfWindowLimit(t *testing.T) {
	for _, o := range origins[2:] {
		s := arrange(t, o, variants[1])
		for round := range 4 {
			answers := 0
			for i := range 100 {
				at := s.v.rcvNxt - 1
				if i%2 == 1 {
					at = s.v.edge + 1
				}
				in := s.segment(flagACK, at, s.v.una, 0)
				s.c.Input(s.now, &in)
				answers += len(s.hear(-1))
			}
			if answers != 1 {
				t.Errorf("%s, half second %d: %d answers, want 1", o.name, round, answers)
			}
			s.now = s.now.Add(outOfWindowInterval)
		}
	}
}

// Whatever comes, and whatever flags it has, draws at most one empty segment; a
// batch no more than the owed limit; and a segment with RST nothing but a
// challenge ACK, never a RST.
func TestMatrixRepliesAreBounded(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, o := range origins[1:] {
		for _, va := range variants {
			if !va.arranges(o) {
				continue
			}
			for range 40 {
				s := arrange(t, o, va)
				waiting := 0
				for range 30 {
					seq, _ := place(r.IntN(int(numPlaces))).seq(&s.v)
					f := header.TCPFlags(r.UintN(256))
					in := s.segment(f, seq.Add(seqnum.Size(r.IntN(3))), s.v.nxt.Add(seqnum.Size(r.IntN(5))-3), seqnum.Size(r.IntN(2)))
					s.c.Input(s.now, &in)
					waiting++
					if in.Has(flagRST) || r.IntN(3) == 0 {
						limit := min(waiting, maxOwedAcks+2)
						for _, out := range s.hear(-1) {
							if out.Len() == 0 || out.Has(flagSYN) {
								limit--
							}
							if waiting == 1 && in.Has(flagRST) && out.Flags != flagACK {
								t.Fatalf("%s: a segment with flags %v drew %s", o.name, f, out.String())
							}
						}
						if limit < 0 {
							t.Fatalf("%s: %d more answers than allowed to %d segments", o.name, -limit, waiting)
						}
						waiting = 0
					}
				}
				s.c.Release()
			}
		}
	}
}
