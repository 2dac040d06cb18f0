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

// A connection that has something to do and nothing under way that could make
// it do so has stopped for good, and nothing but a test like this one sees it.

// stuck says why a connection whose output is drained will never go on by
// itself, or returns "".
func (c *Conn) stuck() string {
	if c.frozen || c.State() == StateClosed {
		return ""
	}
	acting := func(list ...timer) bool {
		for _, k := range list {
			if c.timers.running(k) {
				return true
			}
		}
		return false
	}
	switch {
	case !c.state.Synchronized():
		if !acting(timerRTO) {
			return "the handshake has no timer"
		}
		return ""
	case !c.board.empty() && !acting(timerRTO):
		return "data is outstanding and no timeout runs"
	case c.board.empty() && c.hasUnsent() && !acting(timerPersist, timerCork, timerPace):
		return fmt.Sprintf("%d bytes are unsent, nothing is outstanding, and no timer runs", c.unsent())
	case c.board.empty() && c.hasUnsent() && c.unsent() >= seqnum.Size(c.segmentSize()) &&
		c.usableWindow() >= seqnum.Size(c.segmentSize()) && !acting(timerPace):
		return fmt.Sprintf("%d bytes are unsent, the window has room for %d, nothing is outstanding, and nothing was sent", c.unsent(), c.usableWindow())
	case c.finSent() && !c.finAcked() && !acting(timerRTO):
		return "the FIN is outstanding and no timeout runs"
	case c.rcv.nxt != c.delack.acked && !acting(timerDelayedACK):
		return fmt.Sprintf("%d bytes received are not acknowledged, and no timer runs", c.delack.acked.Size(c.rcv.nxt))
	case c.Deadline() == Never && c.timers.earliest() != Never:
		return "a timer runs and there is no deadline"
	}
	return ""
}

// A voyage is a conversation in which anything may happen for a while, and then
// nothing bad any more.
type voyage struct {
	*world
	r     *rand.Rand
	edge  map[*host]seqnum.Value // the right-most window edge each host's peer has been told
	acked map[*host]seqnum.Value // the highest acknowledgement each has sent
	top   map[*host]seqnum.Value // the end of the highest data each has sent
	wrong error                  // what a segment on its way has violated
	trace []string
}

func (v *voyage) note(format string, args ...any) {
	v.trace = append(v.trace, fmt.Sprintf("%v ", v.now.Sub(Time(time.Hour)))+fmt.Sprintf(format, args...))
}

// chance is true once in n times.
func (v *voyage) chance(n int) bool { return v.r.IntN(n) == 0 }

// watch is called whenever both ends have come to rest.
func (v *voyage) watch() error {
	for _, h := range []*host{v.a, v.b} {
		c := &h.c
		if why := c.stuck(); why != "" {
			return fmt.Errorf("%s in %s: %s", h.name, c.State(), why)
		}
		edge, told := v.edge[h]
		if c.frozen || !told || c.State() != StateEstablished || c.recvq.size() > 0 || !c.reasm.empty() {
			continue
		}
		// Nothing is unread: what the peer may send must not be less than what
		// makes a sender send (RFC 1122 section 4.2.3.4), unless the buffer is.
		open := 0
		if c.rcv.nxt.LessThan(edge) {
			open = int(c.rcv.nxt.Size(edge))
		}
		free := int(min(c.recvq.limit(), c.clamp(), maxUnscaledWindow<<c.rcv.wscale))
		if least := min(free/2, int(c.rcv.mss)) - 1<<c.rcv.wscale; open < least {
			return fmt.Errorf("%s has read everything, and the peer knows of a window of %d; the buffer is %d", h.name, open, free)
		}
	}
	return nil
}

// hear holds a segment to what must be true of every segment of a connection,
// and notes the window that it tells of.
func (v *voyage) hear(from *host, s *Segment) {
	if !from.c.state.Synchronized() || s.Has(header.TCPFlagSyn) || s.Has(header.TCPFlagRst) {
		return
	}
	fail := func(format string, args ...any) {
		if v.wrong == nil {
			v.wrong = fmt.Errorf("%s sent %s: "+format, append([]any{from.name, s.String()}, args...)...)
		}
	}
	unit := seqnum.Size(1) << from.c.rcv.wscale
	edge := s.Ack.Add(seqSize(s.Window) << from.c.rcv.wscale)
	if old, ok := v.edge[from]; !ok || old.LessThan(edge) {
		v.edge[from] = edge
	} else if edge.Add(unit).LessThanEq(old) {
		fail("the window's edge retreats from %d to %d", old, edge)
	}
	if old, ok := v.acked[from]; !ok || old.LessThan(s.Ack) {
		v.acked[from] = s.Ack
	} else if s.Ack != old {
		fail("the acknowledgement goes back from %d", old)
	}
	if s.DataLen() == 0 {
		return
	}
	end := s.Seq.Add(s.DataLen())
	if limit, ok := v.edge[from.peer]; ok && limit.LessThan(end) {
		fail("beyond the peer's window, which ends at %d", limit)
	}
	if n := int(s.DataLen()) + s.Options.Len(); n > int(testMSS) {
		fail("%d bytes of payload and options", n)
	}
	if old, ok := v.top[from]; !ok || old.LessThan(end) {
		if ok && old.LessThan(s.Seq) {
			fail("data from %d on is left out", old)
		}
		v.top[from] = end
	}
}

// testMSS is what testConfig's path carries.
const testMSS = 1460

// pass lets time pass, for d at most, and reports what is wrong.
func (v *voyage) pass(d time.Duration, done func() bool) (finished bool, err error) {
	finished = v.run(d, func() bool {
		if err = v.wrong; err == nil {
			err = v.watch()
		}
		if err != nil {
			return true
		}
		return done != nil && done()
	})
	return finished && err == nil, err
}

// weather makes the path as bad as it will be for now.
func (v *voyage) weather() {
	loss, dup, late, ce := v.r.IntN(4)*v.r.IntN(8), v.r.IntN(3), v.r.IntN(20), v.r.IntN(4)*v.r.IntN(10)
	blackout := v.chance(8)
	v.note("loss %d%%, duplicates %d%%, up to %d ms late, marks %d%%, blackout %v", loss, dup, late, ce, blackout)
	v.fate = func(_ *host, s *Segment) (time.Duration, int) {
		s.CE = s.ECT && v.r.IntN(100) < ce
		switch n := v.r.IntN(100); {
		case blackout || n < loss:
			return 0, 0
		case n < loss+dup:
			return 0, 2
		}
		return time.Duration(v.r.IntN(late+1)) * time.Millisecond, 1
	}
}

// whim is something that one end's user does.
func (v *voyage) whim(h *host) {
	c := &h.c
	pick := func(list ...int) int { return list[v.r.IntN(len(list))] }
	switch v.r.IntN(14) {
	case 0, 1, 2, 3:
		n, more := pick(1, 10, 100, 1000, 1448, 3000, 20_000, 200_000), v.chance(4)
		data := noise(n, v.r.Uint64())
		k, _ := c.Write(v.now, bytes.NewReader(data), n, more)
		h.wrote = append(h.wrote, data[:k]...)
		v.note("%s writes %d, more %v", h.name, k, more)
	case 4, 5, 6:
		n := pick(1, 100, 2000, 50_000, 1<<20)
		var b bytes.Buffer
		c.Read(v.now, &b, n, false)
		h.got = append(h.got, b.Bytes()...)
		v.note("%s reads %d of %d", h.name, b.Len(), n)
	case 7:
		o := c.Options()
		o.Cork, o.NoDelay = v.chance(3), v.chance(2)
		c.SetOptions(v.now, o)
		v.note("%s cork %v, nodelay %v", h.name, o.Cork, o.NoDelay)
	case 8:
		rcv, snd := pick(0, 2048, 10_000, 100_000, 1<<20), pick(0, 4096, 100_000)
		c.SetBuffers(v.now, rcv, snd)
		v.note("%s buffers %d %d", h.name, rcv, snd)
	case 9:
		if v.chance(3) {
			mss := uint16(pick(500, 1000, 1400))
			c.PathMTU(v.now, c.snd.una, mss)
			v.note("%s path %d", h.name, mss)
		}
	case 10:
		mode := []repair.Mode{repair.On, repair.Off, repair.OffNoProbe}[v.r.IntN(3)]
		c.SetRepair(v.now, mode)
		v.note("%s repair %s", h.name, mode)
	case 11:
		if v.chance(6) {
			c.Shutdown(v.now, false, true)
			v.note("%s shuts", h.name)
		}
	case 12:
		o := c.Options()
		o.Clamp = pick(0, 0, 3000, 100_000)
		c.SetOptions(v.now, o)
		v.note("%s clamp %d", h.name, o.Clamp)
	}
}

// home lets both ends finish: the weather is fine, nobody is frozen, and the
// users read what comes and close when all is said.
func (v *voyage) home(limit time.Duration) error {
	v.fate = nil
	for _, h := range []*host{v.a, v.b} {
		h.c.SetRepair(v.now, repair.Off)
	}
	v.note("fine weather")
	finished, err := v.pass(limit, func() bool {
		for _, h := range []*host{v.a, v.b} {
			h.read(v.world)
			h.c.Shutdown(v.now, false, true)
			v.settle(h)
		}
		return v.a.closed && v.b.closed
	})
	switch {
	case err != nil:
		return err
	case !finished:
		return fmt.Errorf("not done %v after the weather turned fine:\na: %+v\nb: %+v", limit, v.a.c.Info(v.now), v.b.c.Info(v.now))
	}
	for _, h := range []*host{v.a, v.b} {
		if h.c.Err() != nil {
			return fmt.Errorf("%s: %v", h.name, h.c.Err())
		}
		if !bytes.Equal(h.wrote, h.peer.got) {
			return fmt.Errorf("%s wrote %d bytes, the peer read %d, which differ", h.name, len(h.wrote), len(h.peer.got))
		}
	}
	return nil
}

// sail makes one voyage.
func sail(t *testing.T, seed uint64) error {
	r := rand.New(rand.NewPCG(seed, 3))
	v := &voyage{r: r, edge: map[*host]seqnum.Value{}, acked: map[*host]seqnum.Value{}, top: map[*host]seqnum.Value{}}
	tune := func(c *Config) {
		c.SACK, c.Timestamps, c.WindowScaling = !v.chance(4), !v.chance(4), !v.chance(4)
		c.RACK, c.DelayedACK = !v.chance(4), !v.chance(4)
		c.ECN = v.chance(2)
		c.RcvBuf = []int{2048, 10_000, 64 << 10, 1 << 20}[r.IntN(4)]
		c.SndBuf = []int{4096, 64 << 10, 1 << 20}[r.IntN(3)]
		c.GSOMax = r.IntN(2) * 65535
		c.Retries = 1000 // blackouts are long
		if v.chance(2) {
			c.RcvBufMax, c.SndBufMax = 4<<20, 4<<20
		}
	}
	v.world = established(t, func(a, b *Config) { tune(a); tune(b) })
	v.wiretap = v.hear
	v.trace = nil
	var err error
	for range 30 {
		if v.chance(4) {
			v.weather()
		}
		for range 1 + r.IntN(3) {
			v.whim([]*host{v.a, v.b}[r.IntN(2)])
		}
		d := time.Duration(1+r.IntN(50)) * time.Millisecond
		if v.chance(6) {
			d *= 100
		}
		if _, err = v.pass(d, nil); err != nil {
			break
		}
	}
	if err == nil {
		err = v.home(5 * time.Minute)
	}
	if err != nil {
		for _, line := range v.trace {
			t.Log(line)
		}
	}
	return err
}

// Nothing ever stops for good.
func TestProgress(t *testing.T) {
	n := 250
	if testing.Short() {
		n = 50
	}
	base := uint64(time.Now().UnixNano())
	for i := range n {
		seed := base + uint64(i)
		if err := sail(t, seed); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// Seeds that stay the same, so that a change that breaks something shows at once.
func TestProgressAgain(t *testing.T) {
	for seed := range uint64(100) {
		if err := sail(t, seed); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}
