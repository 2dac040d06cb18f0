package conn

import (
	"bytes"
	"container/heap"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// A scripted peer: segments by hand to one connection.
type scripted struct {
	t   *testing.T
	c   Conn
	now Time
	seq seqnum.Value // the peer's next
	ts  uint32
	wnd uint16
}

func newScripted(t *testing.T, tune ...func(*Config)) *scripted {
	return newScriptedSYN(t, nil, tune...)
}

func newScriptedSYN(t *testing.T, synopt func(*Options), tune ...func(*Config)) *scripted {
	s := &scripted{t: t, now: Time(time.Hour), seq: 5000, wnd: 0xffff, ts: 777}
	cfg := testConfig(1000)
	for _, f := range tune {
		f(&cfg)
	}
	s.c.Connect(s.now, &cfg)
	var syn Segment
	if !s.c.Output(s.now, &syn) {
		t.Fatal("no SYN")
	}
	s.now = s.now.Add(10 * time.Millisecond)
	sa := Segment{Seq: s.seq, Ack: cfg.ISS.Add(1), Flags: header.TCPFlagSyn | header.TCPFlagAck, Window: 0xffff,
		Options: Options{MSS: 1460, HasWScale: cfg.WindowScaling, WScale: 7, SACKPermitted: cfg.SACK, HasTS: cfg.Timestamps, TSVal: s.ts, TSEcr: syn.Options.TSVal}}
	if cfg.ECN {
		sa.Flags |= header.TCPFlagEce
	}
	if synopt != nil {
		synopt(&sa.Options)
	}
	s.c.Input(s.now, &sa)
	s.seq++
	s.drain()
	if s.c.State() != StateEstablished {
		t.Fatal(s.c.State())
	}
	t.Cleanup(s.c.Release)
	return s
}

func (s *scripted) drain() (out []Segment) {
	var o Segment
	for s.c.Output(s.now, &o) {
		p := o
		p.Payload = buffer.MakeWithData(o.Payload.Flatten())
		o.Release()
		out = append(out, p)
		if len(out) > 100000 {
			s.t.Fatal("endless output")
		}
	}
	if err := s.c.check(); err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *scripted) seg(flags header.TCPFlags, ack seqnum.Value, data string) *Segment {
	g := &Segment{Seq: s.seq, Ack: ack, Flags: flags | header.TCPFlagAck, Window: s.wnd}
	if s.c.tstamp.on {
		s.ts++
		g.Options.HasTS, g.Options.TSVal, g.Options.TSEcr = true, s.ts, s.c.tstamp.value(s.now)
	}
	if data != "" {
		g.Payload = payload([]byte(data))
	}
	return g
}

func (s *scripted) in(g *Segment) DropReason { return s.c.Input(s.now, g) }

func (s *scripted) write(n int) int {
	k, err := s.c.Write(s.now, bytes.NewReader(make([]byte, n)), n, false)
	if err != nil && err != ErrWouldBlock {
		s.t.Fatal(err)
	}
	return k
}

// tick lets time pass to the deadline, not beyond end; reports whether one came.
func (s *scripted) tick(end Time) bool {
	d := s.c.Deadline()
	if d > end {
		s.now = max(s.now, end)
		return false
	}
	s.now = max(s.now, d)
	s.c.Tick(s.now)
	return true
}

// RACK's cursor must not go stale: a bulk transfer whose scoreboard never
// empties passes 2^31 bytes; then one loss must be found by RACK, not by RTO.
func TestSubtleScanStale(t *testing.T) {
	for _, rack := range []bool{true, false} {
		w := established(t, func(a, b *Config) {
			a.RACK = rack
			a.SndBuf, b.RcvBuf, a.RcvBuf = 8<<20, 8<<20, 8<<20
		})
		chunk := make([]byte, 1<<20)
		total, limit := int64(0), int64(1)<<31+64<<20
		drop := false
		w.fated(func(from *host, s *Segment, n int) (time.Duration, int) {
			if drop && n >= 0 {
				drop = false
				return 0, 0
			}
			return 0, 1
		})
		emptied := 0
		fill := func() {
			emptied += boolInt(w.a.c.board.empty())
			for {
				n, err := w.a.c.Write(w.now, bytes.NewReader(chunk), len(chunk), false)
				total += int64(n)
				if err != nil || n < len(chunk) {
					break
				}
			}
			for w.b.c.Readable() > 0 {
				w.b.c.Read(w.now, discard{}, 1<<20, false)
			}
			w.bulkSettle(w.a)
			w.bulkSettle(w.b)
		}
		w.bulkRun(func() bool { fill(); return total > limit })
		c := w.a.c.Counters()
		before := c.Timeouts
		drop = true
		end := total + 30<<20
		w.bulkRun(func() bool { fill(); return total > end })
		c = w.a.c.Counters()
		t.Logf("rack %v: total %d emptied %d counters %+v", rack, total, emptied, c)
		if c.Timeouts != before || c.SACKRecoveries == 0 {
			t.Errorf("RACK %v: one loss after 2 GiB: %d timeouts, %d recoveries; scan %d una %d", rack, c.Timeouts-before, c.SACKRecoveries, w.a.c.board.scan, w.a.c.snd.una)
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// bulkSettle puts large segments on the path whole.
func (w *world) bulkSettle(h *host) {
	var s Segment
	for h.c.Output(w.now, &s) {
		w.emit(h, &s)
	}
}

func (w *world) bulkRun(done func() bool) {
	for !done() {
		next := min(w.a.c.Deadline(), w.b.c.Deadline())
		if len(w.path) > 0 {
			next = min(next, w.path[0].at)
		}
		if next == Never {
			w.t.Fatal("nothing happens")
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

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// ECE on the ACK that empties the flight.
func TestSubtleECEWithNothingOut(t *testing.T) {
	s := newScripted(t, func(c *Config) { c.ECN = true })
	s.write(3000)
	s.drain()
	s.now = s.now.Add(10 * time.Millisecond)
	s.in(s.seg(header.TCPFlagEce, s.c.snd.nxt, ""))
	s.drain()
	s.write(3000)
	out := s.drain()
	if len(out) == 0 {
		t.Errorf("nothing is in flight, the window is open, and nothing is sent: cwnd %d phase %d", s.c.cwnd(), s.c.loss.phase)
		for i := 0; i < 100 && s.tick(s.now.Add(time.Hour)); i++ {
			out = append(out, s.drain()...)
		}
		t.Errorf("in the end: %s, %v, sent %d", s.c.State(), s.c.Err(), len(out))
	}
}

// A FIN that overtakes the data before it counts when the data comes.
func TestSubtleFINOvertakesData(t *testing.T) {
	s := newScripted(t)
	fin := s.seg(header.TCPFlagFin, s.c.snd.nxt, "")
	fin.Seq = s.seq.Add(5)
	data := s.seg(header.TCPFlagPsh, s.c.snd.nxt, "hello")
	data.Options.TSVal = fin.Options.TSVal
	s.in(fin)
	s.drain()
	s.in(data)
	s.drain()
	if s.c.State() != StateCloseWait {
		t.Errorf("state %s after FIN (early) and the data before it", s.c.State())
	}
}

// A peer may take its window back to zero without new acknowledgement.
func TestSubtleZeroWindowSameAck(t *testing.T) {
	s := newScripted(t)
	s.write(1000)
	s.drain()
	s.now = s.now.Add(10 * time.Millisecond)
	s.in(s.seg(0, s.c.snd.nxt, ""))
	s.write(10000)
	s.drain()
	una := s.c.snd.una
	s.wnd = 0
	for i := 0; i < 60; i++ {
		s.now = s.now.Add(time.Millisecond)
		s.in(s.seg(0, una, ""))
		s.drain()
		if s.c.State() == StateClosed {
			break
		}
		s.tick(s.now.Add(time.Hour))
		s.drain()
	}
	if s.c.State() != StateEstablished || s.c.snd.wnd != 0 {
		t.Errorf("state %s, %v, SND.WND %d: the peer answers every segment with a closed window", s.c.State(), s.c.Err(), s.c.snd.wnd)
	}
}

// The user timeout counts from when data began to wait.
func TestSubtleUserTimeoutZeroWindow(t *testing.T) {
	s := newScripted(t, func(c *Config) { c.Options.UserTimeout = 30 * time.Second })
	s.write(1000)
	s.drain()
	s.now = s.now.Add(10 * time.Millisecond)
	s.wnd = 0
	s.in(s.seg(0, s.c.snd.nxt, ""))
	s.drain()
	s.now = s.now.Add(time.Hour)
	s.write(1000)
	start := s.now
	s.drain()
	for s.c.State() == StateEstablished && s.tick(start.Add(10*time.Minute)) {
		s.drain()
	}
	if took := s.now.Sub(start); took < 29*time.Second {
		t.Errorf("given up %v after %v; the user timeout is 30s", s.c.Err(), took)
	}
}

// The backoff must not wrap.
func TestSubtleBackoffWraps(t *testing.T) {
	s := newScripted(t, func(c *Config) { c.Options.UserTimeout = 48 * time.Hour })
	s.write(100)
	s.drain()
	last := s.now
	for i := 0; i < 400; i++ {
		if !s.tick(s.now.Add(time.Hour)) {
			break
		}
		if len(s.drain()) > 0 {
			if i > 20 && s.now.Sub(last) < 100*time.Second {
				t.Fatalf("retransmission %d came %v after the one before (backoff %d)", i, s.now.Sub(last), s.c.rtt.backoff)
			}
			last = s.now
		}
	}
}

// Karn: the backed-off timeout stays until a segment sent once is acknowledged.
func TestSubtleKarnKeepsBackoff(t *testing.T) {
	w := established(t, func(a, b *Config) { a.Timestamps = false })
	w.pump(w.a, noise(1000, 1), time.Minute)
	w.delay = 750 * time.Millisecond // the path got longer: 1.5 s
	n := w.a.c.Counters().Retransmits
	for i := range 40 {
		if i == 20 {
			n = w.a.c.Counters().Retransmits
		}
		w.pump(w.a, noise(100, uint64(i)), time.Minute)
	}
	t.Logf("%+v", w.a.c.Info(w.now))
	if d := w.a.c.Counters().Retransmits - n; d > 5 {
		t.Errorf("%d of the last 20 segments were sent again on a loss-free path of 1.5 s; SRTT %v", d, w.a.c.Info(w.now).RTT)
	}
}

// Window updates do not put off the retransmission timeout.
func TestSubtleWindowUpdatesPutOffRTO(t *testing.T) {
	s := newScripted(t, func(c *Config) { c.SACK = false })
	s.write(1000)
	s.drain()
	una := s.c.snd.una
	start := s.now
	for i := 0; i < 200; i++ {
		next := s.now.Add(100 * time.Millisecond)
		for s.tick(next) {
			if len(s.drain()) > 0 {
				if s.now.Sub(start) > 2*time.Second {
					t.Errorf("first retransmission after %v", s.now.Sub(start))
				}
				return
			}
		}
		s.now = next
		s.wnd = 1000 + uint16(i)
		s.in(s.seg(0, una, ""))
		s.drain()
	}
	t.Errorf("no retransmission in %v", s.now.Sub(start))
}

// A small buffer with a large scale must not close the window for ever.
func TestSubtleScaleLargerThanBuffer(t *testing.T) {
	w := established(t, func(a, b *Config) { b.RcvBuf, b.RcvBufMax = 1<<16, 1<<30 })
	w.b.c.SetBuffers(w.now, 8192, 0)
	data := noise(300_000, 1)
	done := w.run(10*time.Minute, func() bool {
		if len(data) > 0 {
			data = data[w.a.write(w, data):]
			w.settle(w.a)
		}
		if w.b.c.Readable() > 0 {
			w.b.read(w)
			w.settle(w.b)
		}
		return len(w.b.got) == 300_000
	})
	if !done {
		t.Errorf("%d of 300000 bytes in 10 minutes; window %d, buffer empty", len(w.b.got), w.a.c.snd.wnd)
	}
}

// Without SACK the queue of retransmissions must not grow.
func TestSubtleRtxqGrows(t *testing.T) {
	w := established(t, func(a, b *Config) { a.SACK = false; a.SndBuf = 4 << 20; b.RcvBuf = 4 << 20 })
	w.fated(func(from *host, s *Segment, n int) (time.Duration, int) {
		if n%500 == 499 {
			return 0, 0
		}
		return 0, 1
	})
	chunk := make([]byte, 1<<20)
	total := 0
	worst := 0
	w.bulkRun(func() bool {
		for {
			k, err := w.a.c.Write(w.now, bytes.NewReader(chunk), len(chunk), false)
			total += k
			if err != nil || k < len(chunk) {
				break
			}
		}
		for w.b.c.Readable() > 0 {
			w.b.c.Read(w.now, discard{}, 1<<20, false)
		}
		w.bulkSettle(w.a)
		w.bulkSettle(w.b)
		worst = max(worst, len(w.a.c.board.rtxq)-len(w.a.c.board.recs))
		return total > 400<<20
	})
	t.Logf("%+v", w.a.c.Counters())
	if worst > 10 {
		t.Errorf("rtxq holds %d more entries than there are records", worst)
	}
}

// An orphan before a closed window does not live for ever.
func TestSubtleOrphanZeroWindow(t *testing.T) {
	s := newScripted(t)
	s.write(10000)
	s.wnd = 0
	s.drain()
	s.now = s.now.Add(time.Millisecond)
	s.in(s.seg(0, s.c.snd.una.Add(1448), ""))
	s.in(s.seg(0, s.c.snd.nxt, ""))
	s.drain()
	s.write(10000)
	s.c.Close(s.now)
	s.drain()
	start := s.now
	for s.c.State() != StateClosed && s.now.Sub(start) < 24*time.Hour {
		if !s.tick(start.Add(24 * time.Hour)) {
			break
		}
		if len(s.drain()) > 0 {
			s.in(s.seg(0, s.c.snd.una, ""))
			s.drain()
		}
	}
	if s.c.State() != StateClosed {
		t.Errorf("after a day: %s, %d bytes queued", s.c.State(), s.c.Unacked())
	}
}

// A connection closed before its SYN left, or reset while the SYN is due, sends none.
func TestSubtleSYNFromClosed(t *testing.T) {
	var c Conn
	cfg := testConfig(1)
	now := Time(time.Hour)
	c.Connect(now, &cfg)
	c.Close(now)
	var s Segment
	if c.Output(now, &s) {
		t.Errorf("sent %s in %s, deadline %v", s.String(), c.State(), c.Deadline())
	}
	c = Conn{}
	c.Connect(now, &cfg)
	c.Output(now, &s)
	now = c.Deadline()
	c.Tick(now)
	c.Input(now, &Segment{Ack: 2, Flags: header.TCPFlagRst | header.TCPFlagAck})
	if c.Output(now, &s) {
		t.Errorf("sent %s in %s, deadline %v", s.String(), c.State(), c.Deadline())
	}
}

// CWR after any reduction, RFC 3168 6.1.2.
func TestSubtleCWRAfterLoss(t *testing.T) {
	for _, why := range []string{"fast", "rto"} {
		w := established(t, func(a, b *Config) { a.ECN, b.ECN = true, true })
		w.pump(w.a, noise(100000, 1), time.Minute)
		n, cwr := 0, 0
		w.fate = func(from *host, s *Segment) (time.Duration, int) {
			if from == w.a && s.DataLen() > 0 {
				n++
				if why == "fast" && n == 2 || why == "rto" && n < 5 {
					return 0, 0
				}
			}
			return 0, 1
		}
		w.wiretap = func(from *host, s *Segment) {
			if from == w.a && s.Has(header.TCPFlagCwr) {
				cwr++
			}
		}
		if why == "rto" {
			w.pump(w.a, noise(1000, 1), time.Minute)
			w.pump(w.a, noise(100000, 1), time.Minute)
		} else {
			w.pump(w.a, noise(300000, 1), time.Minute)
		}
		if cwr == 0 {
			t.Errorf("%s: no CWR; %+v", why, w.a.c.Counters())
		}
	}
}

// Linux takes a SYN-ACK whose TSecr is zero.
func TestSubtleSYNACKWithoutEcho(t *testing.T) {
	newScriptedSYN(t, func(o *Options) { o.TSEcr = 0 })
}

// With a tiny MSS and something to SACK a segment must not exceed the MSS.
func TestSubtleTinyMSS(t *testing.T) {
	for _, mss := range []uint16{48, 60, 88, 100} {
		s := newScriptedSYN(t, func(o *Options) { o.MSS = mss }, func(c *Config) { c.GSOMax = 0 })
		g := s.seg(0, s.c.snd.nxt, "early")
		g.Seq = g.Seq.Add(100)
		s.in(g)
		s.write(5000)
		for _, o := range s.drain() {
			if int(o.DataLen())+o.Options.Len() > int(mss) || o.GSOSize != 0 {
				t.Errorf("MSS %d: sent %s, GSO %d", mss, o.String(), o.GSOSize)
				break
			}
		}
	}
}
