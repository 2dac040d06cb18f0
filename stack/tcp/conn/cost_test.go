package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/repair"
)

// inPacket is a payload as a link delivers it: a window into the packet's memory.
func inPacket(n, memory int) buffer.Buffer {
	v := buffer.NewViewSize(memory)
	v.TrimFront(memory - n)
	return buffer.MakeWithView(v)
}

func (c *Conn) memory() int64 {
	n := retained(&c.recvq.data)
	for i := range c.reasm.spans {
		n += retained(&c.reasm.spans[i].data) + 32
	}
	return n
}

// What is kept for the user must cost about what the buffer says.
func TestCostTinySegmentsInOrder(t *testing.T) {
	const buf, link = 64 << 10, 2048
	s := newScripted(t, func(c *Config) { c.RcvBuf = buf })
	for range buf - 1000 {
		g := s.seg(0, s.c.snd.nxt, "")
		g.Payload = inPacket(1, link)
		s.in(g)
		s.seq++
		s.drain()
	}
	t.Logf("%d spans, memory %d", len(s.c.reasm.spans), s.c.memory())
	if m := s.c.memory(); m > 4*buf {
		t.Errorf("%d bytes unread in a buffer of %d keep %d bytes of memory (%d times)", s.c.Readable(), buf, m, m/buf)
	}
}

func TestCostTinySegmentsOutOfOrder(t *testing.T) {
	const buf, link = 64 << 10, 2048
	s := newScripted(t, func(c *Config) { c.RcvBuf = buf })
	for i := range (buf - 1000) / 2 {
		g := s.seg(0, s.c.snd.nxt, "")
		g.Seq = s.seq.Add(seqnum.Size(1 + 2*i))
		g.Payload = inPacket(1, link)
		s.in(g)
		s.drain()
	}
	t.Logf("%d spans, memory %d", len(s.c.reasm.spans), s.c.memory())
	if m := s.c.memory(); m > 4*buf {
		t.Errorf("%d spans in a buffer of %d keep %d bytes of memory (%d times)", len(s.c.reasm.spans), buf, m, m/buf)
	}
}

// SACK blocks of single bytes must not multiply the records.
func TestCostSACKShreds(t *testing.T) {
	s := newScripted(t, func(c *Config) { c.SndBuf = 4 << 20 })
	for s.c.flight() < 1<<20 { // grow the window
		s.write(1 << 20)
		s.drain()
		s.now = s.now.Add(10 * time.Millisecond)
		if s.c.flight() < 1<<20 {
			s.in(s.seg(0, s.c.snd.nxt, ""))
		}
		s.drain()
	}
	before, una := len(s.c.board.recs), s.c.snd.una
	at := s.c.snd.nxt - 3 // from the end backwards: every insertion moves all that was cut before
	n := 0
	for ; una.Add(8).LessThan(at) && n < 10_000; n++ {
		g := s.seg(0, una, "")
		for range 3 {
			g.Options.SACK[g.Options.NumSACK] = header.SACKBlock{Start: at, End: at.Add(1)}
			g.Options.NumSACK++
			at -= 2
		}
		s.c.Input(s.now, g)
	}
	after := len(s.c.board.recs)
	if after > 2*before+10 {
		t.Errorf("%d records of %d bytes in flight became %d after %d acknowledgements", before, s.c.flightBefore(), after, n)
	}
}

// A forged packet-too-big must not cut what is in flight into crumbs.
func TestCostForgedPacketTooBig(t *testing.T) {
	s := newScripted(t)
	s.write(1 << 20)
	s.drain()
	n := len(s.c.board.recs)
	s.c.PathMTU(s.now, s.c.snd.una, 28)
	if got := len(s.c.board.recs); got > 4*n {
		t.Errorf("%d records became %d, segment size %d", n, got, s.c.segmentSize())
	}
}

// Time in a freeze does not count for CUBIC.
func TestCostFreezeAndCUBIC(t *testing.T) {
	run := func(freeze time.Duration) int64 {
		w := established(t, func(a, b *Config) { a.SndBuf, b.RcvBuf = 8<<20, 8<<20 })
		w.losing(func(n int) bool { return n == 300 })
		w.pump(w.a, noise(4<<20, 1), time.Minute)
		data := noise(8<<20, 2)
		w.a.write(w, data)
		w.run(25*time.Millisecond, nil)
		if freeze > 0 {
			w.a.c.SetRepair(w.now, repair.On)
			w.run(freeze, nil)
			w.a.c.SetRepair(w.now, repair.OffNoProbe)
		}
		w.run(100*time.Millisecond, func() bool { w.b.read(w); return false })
		return w.a.c.cc.Window()
	}
	with, without := run(1000*time.Second), run(0)
	t.Logf("window with a freeze of 1000 s: %d, without %d", with, without)
	if with > without*3/2 {
		t.Errorf("window with a freeze of 1000 s: %d, without %d", with, without)
	}
}
