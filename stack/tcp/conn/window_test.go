package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// A peer that sends less than a unit of the window scale at a time cannot push
// the edge on for ever while nobody reads: what is taken stays bounded by the
// buffer, a quarter of it, and a unit.
func TestTinySegmentsCannotPushTheWindow(t *testing.T) {
	w := established(t, func(a, b *Config) { b.RcvBuf, b.ScaleFor = 100_000, 8<<20 })
	c := &w.b.c
	unit := int64(1) << c.rcv.wscale
	if unit < 64 {
		t.Fatalf("window unit %d is too small for this test", unit)
	}
	for range 20_000 {
		s := Segment{Seq: c.rcv.nxt, Ack: c.snd.una, Flags: header.TCPFlagAck, Window: 1000, Payload: payload(make([]byte, 17))}
		s.Options.HasTS, s.Options.TSVal = true, c.tstamp.recent
		c.Input(w.now, &s)
		var out Segment
		for c.Output(w.now, &out) {
			out.Release()
		}
	}
	if got := c.recvq.size(); got > 125_000+2*unit || got < 100_000-unit {
		t.Errorf("%d bytes taken into a buffer of 100000 with a unit of %d", got, unit)
	}
	if c.drops[DropZeroWindow] == 0 {
		t.Error("nothing was refused")
	}
}

// The right edge never retreats, whatever the user does to the buffer.
func TestWindowEdgeNeverRetreats(t *testing.T) {
	w := established(t)
	var edge seqnum.Value
	scale := w.b.c.rcv.wscale
	w.wiretap = func(from *host, s *Segment) {
		if from != w.b || s.Has(header.TCPFlagSyn) {
			return
		}
		now := s.Ack.Add(seqnum.Size(s.Window) << scale)
		if edge != 0 && now.LessThan(edge) {
			t.Errorf("edge went back by %d", edge-now)
		}
		edge = now
	}
	data := noise(3<<20, 1)
	for i := range 60 {
		data = data[w.a.write(w, data):]
		w.run(30*time.Millisecond, nil)
		w.b.c.SetBuffers(w.now, 30_000+i%3*200_000, 0)
		if i%4 == 0 {
			w.b.read(w)
		}
	}
	if edge == 0 {
		t.Fatal("nothing was sent")
	}
}
