package conn

import (
	"bytes"
	"container/heap"
	"errors"
	"flag"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"pgregory.net/rapid"

	"github.com/tcprepair/ustack/internal/netlab/impair"
	"github.com/tcprepair/ustack/stack/repair"
)

// TestConversationModel holds two connections on a random link of netsim's kind
// (rate, queue, delay, jitter, losses alone and in bursts, reordering,
// duplicates, damage), whose users do whatever comes to their minds, against
// what a byte stream promises:
//
//   - each user reads a prefix of what the other wrote, and all of it once both
//     have closed without aborting;
//   - check finds nothing wrong after any event;
//   - a frozen connection says nothing;
//   - one that is carried away and set down again, at any point, goes on;
//   - memory is bounded by the buffers;
//   - who was told to wait is woken;
//   - everything ends.
//
// It makes a few hundred conversations, or as many as -rapid.checks says. One
// that fails is kept in testdata/rapid and tried again each time.
func TestConversationModel(t *testing.T) {
	unlessAsked(t, "rapid.checks", "300")
	unlessAsked(t, "rapid.steps", "100")
	rapid.Check(t, converse)
}

// unlessAsked gives a flag a default of this test's.
func unlessAsked(t *testing.T, name, value string) {
	t.Helper()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == name })
	if asked {
		return
	}
	was := flag.Lookup(name).Value.String()
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { flag.Set(name, was) })
}

// converse is one conversation. Of a list rapid prefers what stands first; so
// what keeps it going does.
func converse(t *rapid.T) {
	m := newModel(t)
	t.Repeat(map[string]func(*rapid.T){
		"":           m.invariants,
		"1 write":    func(t *rapid.T) { m.write(m.side(t), sizes.Draw(t, "bytes")) },
		"2 wait":     func(t *rapid.T) { m.pass(waits.Draw(t, "wait")) },
		"3 read":     func(t *rapid.T) { m.read(m.side(t), sizes.Draw(t, "bytes")) },
		"4 drain":    func(t *rapid.T) { m.read(m.side(t), 1<<20) },
		"5 freeze":   func(t *rapid.T) { m.freeze(m.side(t)) },
		"6 thaw":     func(t *rapid.T) { m.thaw(m.side(t), rapid.SampledFrom(thaws).Draw(t, "mode")) },
		"7 buffer":   m.resize,
		"8 options":  m.options,
		"9 dark":     func(t *rapid.T) { m.dark = m.w.now.Add(waits.Draw(t, "wait")) },
		"A shutdown": m.maybeShutdown,
		"B abort":    m.maybeAbort,
		"C move":     func(t *rapid.T) { m.move(t, m.side(t)) },
	})
	m.finish()
}

var (
	sizes   = rapid.SampledFrom([]int{1448, 20_000, 100, 1, 5000, 3000, 9999, 1449, 500, 17})
	waits   = rapid.SampledFrom([]time.Duration{20 * time.Millisecond, time.Millisecond, 200 * time.Millisecond, 0, 3 * time.Second, 41 * time.Millisecond, 20 * time.Second, time.Second})
	buffers = rapid.SampledFrom([]int{65535, 5000, 200_000, 1000, 20_000, 1, 100})
	delays  = rapid.SampledFrom([]time.Duration{10 * time.Millisecond, time.Millisecond, 0, 100 * time.Millisecond})
	thaws   = []repair.Mode{repair.Off, repair.OffNoProbe}
)

// seldom is true once in 2^n times.
func seldom(t *rapid.T, n int) bool {
	for range n {
		if !rapid.Bool().Draw(t, "really") {
			return false
		}
	}
	return true
}

// longestFreeze is how long the model leaves a connection frozen: not so long
// that its peer gives it up.
const longestFreeze = 2 * time.Minute

// model is a world whose users are rapid's.
type model struct {
	w       *world
	configs [2]Config
	rng     *rand.Rand          // marks congestion
	links   [2]*impair.Impairer // from a, and from b
	dark    Time                // both lose everything until then

	accepted bool // b has seen a's SYN, or sent its own
	over     bool // somebody aborted: the streams may end early
	users    [2]*user
}

// user is what one end's user has done and is owed.
type user struct {
	*host
	roomy          bool // its buffers have been made large enough to finish
	lastSaid       int  // bytes of its last words, about
	sent, compared int  // bytes written; read and compared
	shut           bool // has closed its direction
	frozenAt       Time
	most           [2]int // the largest its buffers have been: receive, send
	mostSegments   int    // that have been outstanding
}

// failer lets a world fail a rapid test.
type failer struct {
	testing.TB
	t *rapid.T
}

func (f failer) Helper()                      {}
func (f failer) Cleanup(fn func())            { f.t.Cleanup(fn) }
func (f failer) Fatal(args ...any)            { f.t.Fatal(args...) }
func (f failer) Fatalf(s string, args ...any) { f.t.Fatalf(s, args...) }

func newModel(t *rapid.T) *model {
	m := &model{w: newWorld(failer{t: t})}
	seed := rapid.Uint64().Draw(t, "seed")
	m.rng = rand.New(rand.NewPCG(seed, 1))
	m.w.delay = 0 // the links have their own
	for i, way := range []string{"a to b", "b to a"} {
		var err error
		if m.links[i], err = impair.New(drawLink(t, way), seed+uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	m.w.fate = m.fate
	m.w.wiretap = m.overhear
	for i, h := range []*host{m.w.a, m.w.b} {
		m.configs[i] = drawConfig(t, h.name)
		m.users[i] = &user{host: h, most: [2]int{m.configs[i].RcvBuf, m.configs[i].SndBuf}}
	}
	m.w.a.c.Connect(m.w.now, &m.configs[0])
	if seldom(t, 3) { // both open at the same time
		m.accepted = true
		m.w.b.c.Connect(m.w.now, &m.configs[1])
	}
	return m
}

// drawLink is one direction of a link, as often as not a perfect one.
func drawLink(t *rapid.T, way string) impair.Config {
	c := impair.Config{Delay: delays.Draw(t, way+" delay")}
	if !rapid.Bool().Draw(t, way+" is bad") {
		return c
	}
	share := func(what string, most float64) float64 { return rapid.Float64Range(0, most).Draw(t, way+" "+what) }
	c.Rate = rapid.SampledFrom([]int64{0, 10e6, 1e6, 200e3}).Draw(t, way+" rate")
	c.Queue = rapid.SampledFrom([]int{0, 3000, 20_000}).Draw(t, way+" queue")
	c.Jitter = rapid.SampledFrom([]time.Duration{0, time.Millisecond, 50 * time.Millisecond}).Draw(t, way+" jitter")
	c.Loss = share("loss", 0.3)
	c.BurstLength = rapid.SampledFrom([]float64{0, 3}).Draw(t, way+" burst")
	c.Reorder = share("reordering", 0.3)
	c.ReorderBy = rapid.SampledFrom([]time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond}).Draw(t, way+" reordered by")
	c.Duplicate = share("duplication", 0.2)
	c.Corrupt = share("damage", 0.05)
	return c
}

// drawConfig is a connection with any mix of abilities, small buffers and
// sequence numbers that like to wrap.
func drawConfig(t *rapid.T, name string) Config {
	bit := func(what string) bool { return rapid.Bool().Draw(t, name+" "+what) }
	c := Config{
		ISS:           seqnum.Value(rapid.OneOf(rapid.Uint32(), rapid.Uint32Range(0xffff0000, 0xffffffff), rapid.Uint32Range(0x7fff0000, 0x80000000)).Draw(t, name+" ISS")),
		TSOffset:      rapid.Uint32().Draw(t, name+" TS offset"),
		MSS:           uint16(rapid.SampledFrom([]int{1460, 536, 8960, 88, 1220, 100}).Draw(t, name+" MSS")),
		RcvBuf:        buffers.Draw(t, name+" receive buffer"),
		SndBuf:        buffers.Draw(t, name+" send buffer"),
		WindowScaling: bit("scaling"),
		Timestamps:    bit("timestamps"),
		SACK:          bit("SACK"),
		RACK:          bit("RACK"),
		ECN:           bit("ECN"),
		DelayedACK:    bit("delayed ACK"),
		Congestion:    rapid.SampledFrom([]string{"reno", "cubic"}).Draw(t, name+" congestion"),
		Options:       UserOptions{NoDelay: bit("no delay"), Pacing: bit("pacing")},
	}
	if bit("GSO") {
		c.GSOMax = 65000
	}
	if bit("auto-tuning") {
		c.RcvBufMax, c.SndBufMax = 4*c.RcvBuf, 4*c.SndBuf
	}
	return c
}

func (m *model) side(t *rapid.T) *user {
	return m.users[rapid.IntRange(0, 1).Draw(t, "side")]
}

func (m *model) other(u *user) *user {
	if u == m.users[0] {
		return m.users[1]
	}
	return m.users[0]
}

// fate is the link. What it damages the checksum would drop.
func (m *model) fate(from *host, s *Segment) (late time.Duration, copies int) {
	way := 0
	if from == m.w.b {
		way = 1
	}
	const headers = 40
	v := m.links[way].Decide(time.Duration(m.w.now), headers+s.Options.Len()+int(s.DataLen()))
	if m.w.now < m.dark {
		return 0, 0
	}
	for _, d := range v.Deliveries() { // which arrive at the same time
		late = d.At - time.Duration(m.w.now)
		if d.Flip == impair.NoFlip {
			copies++
		}
	}
	return late, copies
}

// overhear sees each packet as it leaves.
func (m *model) overhear(from *host, s *Segment) {
	if from.c.Frozen() {
		m.w.t.Fatalf("%s is frozen and sends %s", from.name, s.String())
	}
	if s.ECT && m.rng.IntN(20) == 0 {
		s.CE = true
	}
}

// pass lets time pass, d or a little more.
func (m *model) pass(d time.Duration) {
	w := m.w
	for end := w.now.Add(d); ; {
		m.settle()
		next := min(w.a.c.Deadline(), w.b.c.Deadline())
		if len(w.path) > 0 {
			next = min(next, w.path[0].at)
		}
		for _, u := range m.users {
			if u.c.Frozen() {
				next = min(next, u.frozenAt.Add(longestFreeze))
			}
		}
		if next > end {
			w.now = max(w.now, end)
			break
		}
		w.now = max(w.now, next)
		m.step()
	}
	m.settle()
}

// step runs what is due now.
func (m *model) step() {
	w := m.w
	for _, u := range m.users {
		u.c.Tick(w.now)
		m.verify(u.host)
		if u.c.Frozen() && w.now >= u.frozenAt.Add(longestFreeze) {
			m.thaw(u, repair.Off)
		}
	}
	for len(w.path) > 0 && w.path[0].at <= w.now {
		p := heap.Pop(&w.path).(packet)
		m.deliver(p.to, p.s)
	}
}

// deliver is the host around a connection: it listens, and resets what nobody
// waits for.
func (m *model) deliver(to *host, s *Segment) {
	if to == m.w.b && !m.accepted {
		if s.Flags&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) == header.TCPFlagSyn {
			m.accepted = true
			to.c.Accept(m.w.now, &m.configs[1], s)
			return
		}
		s.Release()
		return
	}
	closed := to.c.State() == StateClosed
	rst, ok := Reset(s)
	to.c.Input(m.w.now, s)
	m.verify(to)
	if closed && ok && !to.c.Frozen() { // what was frozen when it ended is a tombstone
		m.w.emit(to, &rst)
	}
}

// verify is called after each event, though several may come before anything is
// sent.
func (m *model) verify(h *host) {
	if err := h.c.check(); err != nil {
		m.w.t.Fatalf("%s at %v: %v", h.name, m.w.now, err)
	}
}

// settle sends what is to be sent and verifies both connections.
func (m *model) settle() {
	for _, u := range m.users {
		if u.host == m.w.b && !m.accepted {
			continue
		}
		m.w.settle(u.host)
		rcv, snd := u.c.Buffers()
		u.most[0], u.most[1] = max(u.most[0], rcv), max(u.most[1], snd)
		m.bounded(u)
		m.explained(u)
	}
}

// explained fails for a connection that ended early though nobody aborted.
func (m *model) explained(u *user) {
	err := u.c.Err()
	if err == nil || m.over {
		return
	}
	if err == ErrTimeout && (u.c.snd.una == u.c.snd.iss || !m.accepted) {
		m.over = true // the handshake was out of luck
		return
	}
	m.w.t.Fatalf("%s ended by itself: %v", u.name, err)
}

// bounded fails for a connection that holds more than its buffers allow, or
// keeps more books than it has segments.
func (m *model) bounded(u *user) {
	c := &u.c
	// The window's edge never retreats: what was offered once may come yet, and
	// rounding to the scale pushes the edge by a quarter of the buffer at most.
	unit := 1 << c.rcv.wscale
	if held, most := int(c.recvq.size()+c.reasm.bytes()), u.most[0]+u.most[0]/4+2*unit; held > most {
		m.w.t.Fatalf("%s holds %d bytes for its user, %d of buffer at most", u.name, held, u.most[0])
	}
	if held, most := c.sendq.size(), u.most[1]; held > most {
		m.w.t.Fatalf("%s holds %d bytes of its user, its buffer was never more than %d", u.name, held, most)
	}
	u.mostSegments = max(u.mostSegments, len(c.board.recs))
	for what, n := range map[string]int{"retransmissions": len(c.board.rtxq), "losses": len(c.board.lost)} {
		if n > 4*u.mostSegments+16 {
			m.w.t.Fatalf("%s remembers %d %s, of %d segments at most", u.name, n, what, u.mostSegments)
		}
	}
	if len(c.reasm.spans) > max(u.most[0], 16) {
		m.w.t.Fatalf("%s has %d spans", u.name, len(c.reasm.spans))
	}
}

func (m *model) invariants(*rapid.T) { m.settle() }

// octet is the byte at a place of a stream; the two streams differ.
func octet(h *host, at int) byte {
	x := uint32(at)*2654435761 + uint32(h.name[0])
	return byte(x >> 13)
}

// write writes n bytes, as far as there is room.
func (m *model) write(u *user, n int) (took int) {
	p := make([]byte, n)
	for i := range p {
		p[i] = octet(u.host, u.sent+i)
	}
	took, err := u.c.Write(m.w.now, bytes.NewReader(p), n, false)
	u.sent += took
	switch {
	case err == nil || err == ErrWouldBlock || m.over:
	case err == ErrClosedForSend && u.shut:
	case err == ErrNotConnected && !m.accepted:
	default:
		m.w.t.Fatalf("%s: write: %v", u.name, err)
	}
	m.settle()
	return took
}

// read reads n bytes at most and compares them with what was written.
func (m *model) read(u *user, n int) (took int) {
	var b bytes.Buffer
	took, err := u.c.Read(m.w.now, &b, n, false)
	from := m.other(u)
	for i, x := range b.Bytes() {
		if at := u.compared + i; at >= from.sent || x != octet(from.host, at) {
			m.w.t.Fatalf("%s reads byte %d as %#x; %s wrote %d bytes, this one as %#x", u.name, at, x, from.name, from.sent, octet(from.host, at))
		}
	}
	u.compared += took
	if took != b.Len() {
		m.w.t.Fatalf("%s: read says %d bytes and gave %d", u.name, took, b.Len())
	}
	switch {
	case err == nil || err == ErrWouldBlock:
	case err == ErrClosedForReceive && !m.over:
		u.closed = true
		if u.compared != from.sent || !from.shut {
			m.w.t.Fatalf("%s reads the end after %d bytes of %d; %s has closed: %v", u.name, u.compared, from.sent, from.name, from.shut)
		}
	case m.over || err == ErrNotConnected && !m.accepted || errors.Is(err, u.c.Err()):
	default:
		m.w.t.Fatalf("%s: read: %v", u.name, err)
	}
	m.settle()
	return took
}

func (m *model) maybeShutdown(t *rapid.T) {
	if u := m.side(t); seldom(t, 4) {
		m.shutdown(u)
	}
}

// shutdown closes the user's direction.
func (m *model) shutdown(u *user) {
	switch err := u.c.Shutdown(m.w.now, false, true); {
	case err == nil:
		u.shut = true
	case err == ErrFrozen && u.c.Frozen():
	case err == ErrNotConnected && (m.over || !u.c.State().Synchronized()):
	default:
		m.w.t.Fatalf("%s: shutdown: %v", u.name, err)
	}
	m.settle()
}

// maybeAbort ends it all, once in a while.
func (m *model) maybeAbort(t *rapid.T) {
	u := m.side(t)
	if !seldom(t, 7) || u.host == m.w.b && !m.accepted {
		return
	}
	m.over = true
	if rapid.Bool().Draw(t, "by closing") {
		u.c.Close(m.w.now)
	} else {
		u.c.Abort(m.w.now)
	}
	m.settle()
}

// resize changes a buffer.
func (m *model) resize(t *rapid.T) {
	u := m.side(t)
	if u.host == m.w.b && !m.accepted {
		return
	}
	size := buffers.Draw(t, "bytes")
	if rapid.Bool().Draw(t, "receive") {
		u.c.SetBuffers(m.w.now, size, 0)
	} else {
		u.c.SetBuffers(m.w.now, 0, size)
	}
	m.settle()
}

// options changes what may be changed at any time.
func (m *model) options(t *rapid.T) {
	u := m.side(t)
	if u.host == m.w.b && !m.accepted {
		return
	}
	o := u.c.Options()
	switch rapid.IntRange(0, 3).Draw(t, "option") {
	case 0:
		o.NoDelay = !o.NoDelay
	case 1:
		o.Cork = !o.Cork
	case 2:
		o.Keepalive = Keepalive{On: !o.Keepalive.On, Idle: 5 * time.Second, Interval: time.Second, Count: 1000}
	case 3:
		o.Clamp = rapid.SampledFrom([]int{0, 1000, 10_000}).Draw(t, "clamp")
	}
	u.c.SetOptions(m.w.now, o)
	m.settle()
}

func (m *model) freeze(u *user) {
	if u.c.Frozen() || u.host == m.w.b && !m.accepted {
		return
	}
	u.frozenAt = m.w.now
	if err := u.c.SetRepair(m.w.now, repair.On); err != nil {
		m.w.t.Fatalf("%s: freeze: %v", u.name, err)
	}
	m.settle()
}

// move carries a connection away: it is frozen, read out, written down, read and
// set down again, with all that is known of it or with what Linux can tell.
func (m *model) move(t *rapid.T, u *user) {
	if u.c.State() == StateClosed || u.host == m.w.b && !m.accepted {
		return
	}
	wasFrozen := u.c.Frozen()
	m.freeze(u)
	snap, err := u.c.Snapshot(m.w.now, nil)
	if err != nil {
		m.w.t.Fatalf("%s: snapshot: %v", u.name, err)
	}
	snap.Local, snap.Remote = netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
	if err := snap.Validate(); err != nil {
		m.w.t.Fatalf("%s: a snapshot in %v that cannot be: %v", u.name, u.c.State(), err)
	}
	if seldom(t, 2) {
		snap.Extra = nil
	}
	var file bytes.Buffer
	if _, err := snap.WriteTo(&file); err != nil {
		m.w.t.Fatalf("%s: writing a snapshot: %v", u.name, err)
	}
	if snap, err = repair.Read(&file, repair.Limits{}); err != nil {
		m.w.t.Fatalf("%s: reading a snapshot: %v", u.name, err)
	}
	u.c.Close(m.w.now)
	u.c.Release()
	u.c = Conn{}
	cfg := m.configs[0]
	if u.host == m.w.b {
		cfg = m.configs[1]
	}
	if snap.Extra != nil { // the buffers' sizes are the snapshot's
		cfg.RcvBufMax, cfg.SndBufMax = 1<<20, 1<<20
	}
	if err := u.c.Restore(m.w.now, &cfg, snap); err != nil {
		m.w.t.Fatalf("%s: restore: %v", u.name, err)
	}
	m.settle()
	if !wasFrozen {
		m.thaw(u, rapid.SampledFrom(thaws).Draw(t, "mode"))
	}
}

func (m *model) thaw(u *user, how repair.Mode) {
	if !u.c.Frozen() {
		return
	}
	if err := u.c.SetRepair(m.w.now, how); err != nil {
		m.w.t.Fatalf("%s: thaw: %v", u.name, err)
	}
	m.settle()
}

// finish has both users close and read to the end, on a path not quite so bad,
// and sees that everything ends. They act when they are told that they can.
func (m *model) finish() {
	for _, l := range m.links {
		c := l.Config()
		c.Loss, c.BurstLength = min(c.Loss, 0.1), 0 // at more, timeouts that back off take hours
		if err := l.SetConfig(c); err != nil {
			m.w.t.Fatal(err)
		}
	}
	for _, u := range m.users {
		m.thaw(u, repair.Off)
		o := u.c.Options()
		o.Cork, o.Clamp = false, 0
		u.c.SetOptions(m.w.now, o)
	}
	const patience = 6 * time.Hour
	m.until(patience, "both have read everything", func() bool {
		done := true
		for _, u := range m.users {
			done = m.conclude(u) && done
		}
		return done
	})
	for _, u := range m.users {
		if u.host == m.w.b && !m.accepted {
			continue
		}
		if from := m.other(u); !m.over && u.compared != from.sent {
			m.w.t.Fatalf("%s read %d bytes, %s wrote %d", u.name, u.compared, from.name, from.sent)
		}
		u.c.Close(m.w.now)
	}
	m.until(patience, "both are closed", func() bool {
		return m.w.a.c.State() == StateClosed && m.w.b.c.State() == StateClosed
	})
	for _, u := range m.users {
		if u.c.Deadline() != Never {
			m.w.t.Fatalf("%s is closed and has a timer", u.name)
		}
	}
}

// conclude has a user close its direction when it is connected, and read to the
// end. It reports whether that is done.
func (m *model) conclude(u *user) bool {
	if u.host == m.w.b && !m.accepted {
		return m.over
	}
	if !u.roomy && u.c.State().Synchronized() {
		const enough = 5000 // a byte at a time takes for ever, rightly
		rcv, snd := u.c.Buffers()
		u.c.SetBuffers(m.w.now, max(rcv, enough), max(snd, enough))
		u.roomy = true
	}
	if !u.shut && u.c.State().Synchronized() && u.c.State() != StateClosed {
		m.lastWords(u)
	}
	if u.events&EventReadable != 0 || u.c.Readable() == 0 {
		u.events &^= EventReadable
		for m.read(u, 1<<20) > 0 {
		}
	}
	if m.over {
		return true
	}
	return u.closed && u.shut && u.c.Unacked() == 0
}

// lastWords has a user write a little more, as it is told that there is room,
// and then close its direction.
func (m *model) lastWords(u *user) {
	const words = 3000
	if u.lastSaid > 0 && u.events&EventWritable == 0 {
		return
	}
	u.events &^= EventWritable
	u.lastSaid += max(m.write(u, words-u.lastSaid), 1) // 1: it has tried
	if u.lastSaid >= words || m.over {
		m.shutdown(u)
	}
}

// until lets time pass until done, which must come within limit.
func (m *model) until(limit time.Duration, what string, done func() bool) {
	w := m.w
	end := w.now.Add(limit)
	for {
		m.settle()
		if done() {
			return
		}
		next := min(w.a.c.Deadline(), w.b.c.Deadline())
		if len(w.path) > 0 {
			next = min(next, w.path[0].at)
		}
		if next > end {
			w.t.Fatalf("not in %v: %s\na %s: %+v\nb %s: %+v", limit, what, w.a.c.State(), w.a.c.Info(w.now), w.b.c.State(), w.b.c.Info(w.now))
		}
		w.now = max(w.now, next)
		m.step()
	}
}
