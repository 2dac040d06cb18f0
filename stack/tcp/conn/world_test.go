package conn

import (
	"bytes"
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// A world is two connections and the path between them, in virtual time. After
// every step of either connection check is called.
type world struct {
	t     testing.TB
	now   Time
	delay time.Duration
	// fate, if set, decides what becomes of a packet: how late it is, and how
	// many copies arrive (0: it is lost).
	fate func(from *host, s *Segment) (late time.Duration, copies int)
	// wiretap, if set, sees each packet as it leaves.
	wiretap func(from *host, s *Segment)
	a, b    *host
	path    inTransit
	order   int
}

// host is one end.
type host struct {
	name   string
	c      Conn
	peer   *host
	sent   int // packets
	wrote  []byte
	got    []byte
	events Event
	closed bool
}

type packet struct {
	at    Time
	order int
	to    *host
	s     *Segment
}

type inTransit []packet

func (p inTransit) Len() int { return len(p) }
func (p inTransit) Less(i, j int) bool {
	return p[i].at < p[j].at || p[i].at == p[j].at && p[i].order < p[j].order
}
func (p inTransit) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *inTransit) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *inTransit) Pop() any     { l := *p; x := l[len(l)-1]; *p = l[:len(l)-1]; return x }

// testConfig is what a modern host asks for.
func testConfig(iss uint32) Config {
	return Config{
		ISS: seqnum.Value(iss), TSOffset: iss, MSS: 1460, GSOMax: 65535,
		WindowScaling: true, Timestamps: true, SACK: true, RACK: true, DelayedACK: true,
	}
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, now: Time(time.Hour), delay: 10 * time.Millisecond, a: &host{name: "a"}, b: &host{name: "b"}}
	w.a.peer, w.b.peer = w.b, w.a
	t.Cleanup(func() { w.a.c.Release(); w.b.c.Release() })
	return w
}

// Both ends' sequence numbers begin in awkward places: a's in the upper half
// of the space, b's just before its end.
const issA, issB = 0xc0000000, 0xfffffff0

// established returns a world whose handshake is done: a dialled b.
func established(t testing.TB, tune ...func(a, b *Config)) *world {
	w := newWorld(t)
	ca, cb := testConfig(issA), testConfig(issB)
	for _, f := range tune {
		f(&ca, &cb)
	}
	w.open(ca, cb)
	return w
}

func (w *world) open(ca, cb Config) {
	w.t.Helper()
	w.a.c.Connect(w.now, &ca)
	var syn Segment
	if !w.a.c.Output(w.now, &syn) || !syn.Has(header.TCPFlagSyn) {
		w.t.Fatal("no SYN")
	}
	w.now = w.now.Add(w.delay)
	w.b.c.Accept(w.now, &cb, &syn)
	w.run(time.Second, func() bool {
		return w.a.c.State() == StateEstablished && w.b.c.State() == StateEstablished
	})
	if w.a.c.State() != StateEstablished || w.b.c.State() != StateEstablished {
		w.t.Fatalf("after the handshake: %s and %s", w.a.c.State(), w.b.c.State())
	}
}

// settle verifies a host's connection and puts what it has to send on the path.
func (w *world) settle(h *host) {
	w.t.Helper()
	var s Segment
	for n := 0; h.c.Output(w.now, &s); n++ {
		if n > 10000 {
			w.t.Fatalf("%s does not stop sending: %s", h.name, s.String())
		}
		w.send(h, &s)
	}
	if err := h.c.check(); err != nil {
		w.t.Fatalf("%s at %v: %v", h.name, w.now, err)
	}
	h.events |= h.c.Events()
}

// send cuts a large segment as a link would and hands the pieces to the path.
func (w *world) send(h *host, s *Segment) {
	for {
		piece := *s
		last := s.GSOSize == 0 || s.Payload.Size() <= int64(s.GSOSize)
		if !last {
			piece.Payload = s.Payload.Clone()
			piece.Payload.Truncate(int64(s.GSOSize))
			piece.Flags &^= header.TCPFlagFin | header.TCPFlagPsh
			s.Payload.TrimFront(int64(s.GSOSize))
			s.Seq = s.Seq.Add(seqnum.Size(s.GSOSize))
		}
		piece.GSOSize = 0
		w.emit(h, &piece)
		if last {
			return
		}
		s.Flags &^= header.TCPFlagCwr // the first piece says it for all
	}
}

func (w *world) emit(h *host, s *Segment) {
	h.sent++
	if w.wiretap != nil {
		w.wiretap(h, s)
	}
	late, copies := time.Duration(0), 1
	if w.fate != nil {
		late, copies = w.fate(h, s)
	}
	for range copies {
		c := *s
		c.Payload = s.Payload.Clone()
		w.order++
		heap.Push(&w.path, packet{w.now.Add(w.delay + late), w.order, h.peer, &c})
	}
	s.Release()
}

// run lets time pass until done, or for d. It reports whether done.
func (w *world) run(d time.Duration, done func() bool) bool {
	w.t.Helper()
	end := w.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 5_000_000 {
			w.t.Fatal("the world does not come to rest")
		}
		w.settle(w.a)
		w.settle(w.b)
		if done != nil && done() {
			return true
		}
		next := min(w.a.c.Deadline(), w.b.c.Deadline())
		if len(w.path) > 0 {
			next = min(next, w.path[0].at)
		}
		if next > end {
			w.now = end
			return false
		}
		w.now = max(w.now, next)
		w.a.c.Tick(w.now)
		w.b.c.Tick(w.now)
		for len(w.path) > 0 && w.path[0].at <= w.now {
			p := heap.Pop(&w.path).(packet)
			p.to.c.Input(w.now, p.s)
		}
	}
}

// write queues as much of p as there is room for.
func (h *host) write(w *world, p []byte) int {
	w.t.Helper()
	n, err := h.c.Write(w.now, bytes.NewReader(p), len(p), false)
	if err != nil && err != ErrWouldBlock {
		w.t.Fatalf("%s: write: %v", h.name, err)
	}
	h.wrote = append(h.wrote, p[:n]...)
	return n
}

// read takes everything there is to read, and notes the end.
func (h *host) read(w *world) {
	w.t.Helper()
	for {
		var b bytes.Buffer
		_, err := h.c.Read(w.now, &b, 1<<20, false)
		h.got = append(h.got, b.Bytes()...)
		if err == nil {
			continue
		}
		if err == ErrClosedForReceive {
			h.closed = true
		}
		if err != ErrWouldBlock && err != ErrClosedForReceive && !errors.Is(err, h.c.Err()) {
			w.t.Fatalf("%s: read: %v", h.name, err)
		}
		return
	}
}

// pump moves data from one host's user to the other's until it is all there.
func (w *world) pump(from *host, data []byte, limit time.Duration) {
	w.t.Helper()
	to := from.peer
	had := len(to.got)
	done := w.run(limit, func() bool {
		for len(data) > 0 {
			n := from.write(w, data)
			if n == 0 {
				break
			}
			data = data[n:]
			w.settle(from)
		}
		before := len(to.got)
		to.read(w)
		if len(to.got) != before {
			w.settle(to)
		}
		return len(data) == 0 && from.c.Unacked() == 0
	})
	if !done {
		w.t.Fatalf("%s -> %s: %d bytes of %d after %v\n%s: %+v\n%s: %+v", from.name, to.name, len(to.got)-had,
			len(from.wrote), limit, from.name, from.c.Info(w.now), to.name, to.c.Info(w.now))
	}
	w.same(from)
}

// same verifies that what was read is what was written.
func (w *world) same(from *host) {
	w.t.Helper()
	if !bytes.Equal(from.wrote, from.peer.got) {
		w.t.Fatalf("%s -> %s: wrote %d bytes, read %d, which differ", from.name, from.peer.name, len(from.wrote), len(from.peer.got))
	}
}

// noise returns n bytes that repeat nowhere.
func noise(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// states says in one string where both ends are.
func (w *world) states() string { return fmt.Sprintf("%s %s", w.a.c.State(), w.b.c.State()) }

// payload makes a buffer of p.
func payload(p []byte) buffer.Buffer { return buffer.MakeWithData(p) }

// newBytes returns a reader of n bytes.
func newBytes(n int) *bytes.Reader { return bytes.NewReader(make([]byte, n)) }
