package conn

import (
	"bytes"
	"io"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/repair"
)

// tape reads a fuzzer's bytes as numbers; past its end everything is zero.
type tape struct{ b []byte }

func (t *tape) more() bool { return len(t.b) > 0 }

func (t *tape) byte() byte {
	if len(t.b) == 0 {
		return 0
	}
	v := t.b[0]
	t.b = t.b[1:]
	return v
}

func (t *tape) word() uint16 { return uint16(t.byte())<<8 | uint16(t.byte()) }

// near returns a sequence number at a distance of v from a place of interest.
func (t *tape) near(places ...seqnum.Value) seqnum.Value {
	k := t.byte()
	return places[int(k>>4)%len(places)].Add(seqnum.Size(int32(int8(t.byte()))) << (k & 15))
}

// A driven connection is one under a fuzzer's hands.
type driven struct {
	t   testing.TB
	c   Conn
	now Time
}

// newDriven opens a connection as the tape says: actively, passively, or from a
// cookie, with any mix of options.
func newDriven(t testing.TB, in *tape) *driven {
	d := &driven{t: t, now: Time(time.Hour)}
	how := in.byte()
	bits := in.byte()
	cfg := Config{
		// The last numbers before an overflow: both spaces wrap within a few bytes.
		ISS: seqnum.Value(uint32(in.word())<<16 | 0xfff8), TSOffset: uint32(in.word())<<16 | 0xff00,
		MSS: in.word(), GSOMax: int(bits&1) * 65535,
		RcvBuf: 1 + int(in.word())<<(bits>>6), SndBuf: 1 + int(in.word()),
		WindowScaling: bits&2 != 0, Timestamps: bits&4 != 0, SACK: bits&8 != 0,
		ECN: bits&16 != 0, RACK: bits&32 != 0, DelayedACK: how&4 != 0,
		LikeLinux: how&16 != 0,
		Options:   UserOptions{NoDelay: how&8 != 0, Keepalive: Keepalive{On: how&16 != 0}, Pacing: how&64 != 0},
	}
	fastOpen := how&128 != 0
	if fastOpen {
		cfg.FastOpen = &FastOpen{Cookie: make([]byte, 8)}
		cfg.SYNData, cfg.Early = int(in.byte())<<2, how&2 != 0
	}
	if cfg.MSS != 0 {
		cfg.MSS = max(cfg.MSS, 100)
	}
	syn := Segment{Seq: seqnum.Value(uint32(in.word())<<16 | 0xfff0), Flags: header.TCPFlagSyn, Window: in.word()}
	d.options(in, &syn)
	if fastOpen {
		syn.Payload = payload(make([]byte, in.byte()))
	}
	switch how & 3 {
	case 0, 1:
		d.c.Connect(d.now, &cfg)
		if fastOpen {
			d.c.WriteSYN(bytes.NewReader(make([]byte, 1<<16)), 1<<16, how&32 != 0)
		}
		d.drain()
		syn.Flags |= header.TCPFlagAck
		syn.Ack = cfg.ISS.Add(1)
		syn.Options.TSEcr = d.c.tstamp.value(d.now)
		if how&1 == 1 {
			d.input(&syn)
		}
	case 2:
		d.c.Accept(d.now, &cfg, &syn)
		d.drain()
		if how&32 == 0 {
			d.input(&Segment{Seq: syn.Seq.Add(1), Ack: cfg.ISS.Add(1), Flags: header.TCPFlagAck, Window: syn.Window})
		}
	case 3:
		d.c.AcceptCookie(d.now, &cfg, &syn)
		d.input(&Segment{Seq: syn.Seq.Add(1), Ack: cfg.ISS.Add(1), Flags: header.TCPFlagAck, Window: syn.Window})
	}
	return d
}

// options puts options of the tape's choice on a segment.
func (d *driven) options(in *tape, s *Segment) {
	bits := in.byte()
	o := &s.Options
	if bits&1 != 0 {
		o.HasTS = true
		o.TSVal = d.c.tstamp.recent + uint32(int32(int8(in.byte())))
		o.TSEcr = d.c.tstamp.value(d.now) - uint32(in.byte())
	}
	if s.Has(header.TCPFlagSyn) {
		o.SACKPermitted = bits&2 != 0
		o.HasWScale, o.WScale = bits&4 != 0, bits>>4&15%15
		if bits&8 != 0 {
			o.MSS = in.word()
		}
		return
	}
	for range bits >> 1 & 3 {
		o.SACK[o.NumSACK] = header.SACKBlock{
			Start: in.near(d.c.snd.una, d.c.snd.nxt), End: in.near(d.c.snd.nxt, d.c.snd.una),
		}
		o.NumSACK++
	}
	s.CE = bits&8 != 0
}

func (d *driven) input(s *Segment) {
	frozen := d.c.Frozen()
	v := d.c.Input(d.now, s)
	if frozen && v != DropSocketRepair && d.c.State() != StateClosed {
		d.t.Fatalf("frozen, and the verdict on %s is %s", s.String(), v)
	}
	d.drain()
}

// drain takes what the connection sends, and holds it to its limits.
func (d *driven) drain() {
	d.t.Helper()
	queued := d.c.sendq.size()
	var s Segment
	for n, bytesOut := 0, int64(0); d.c.Output(d.now, &s); n++ {
		if d.c.Frozen() {
			d.t.Fatalf("frozen, and sent %s", s.String())
		}
		bytesOut += s.Payload.Size()
		s.Release()
		if s.Options.Len() > MaxOptionsLen {
			d.t.Fatalf("%d bytes of options", s.Options.Len())
		}
		if bytesOut > int64(queued) {
			d.t.Fatalf("sent %d bytes in one go; %d are queued", bytesOut, queued)
		}
		if limit := maxOwedAcks + 4 + 2*(queued/minPayload(&d.c)+1); n > limit {
			d.t.Fatalf("more than %d segments in one go", limit)
		}
	}
	if err := d.c.check(); err != nil {
		d.t.Fatal(err)
	}
}

// minPayload is the least a connection cuts its data into, Nagle aside.
func minPayload(c *Conn) int { return max(1, min(minMSS-12-36, c.segmentSize())) }

// step does what the tape says next.
func (d *driven) step(in *tape) {
	c := &d.c
	switch op := in.byte(); op % 16 {
	default: // a segment
		s := Segment{
			Flags:  header.TCPFlags(in.byte()),
			Seq:    in.near(c.rcv.nxt, c.rcv.adv, c.rcv.irs),
			Ack:    in.near(c.snd.una, c.snd.nxt, c.snd.iss),
			Window: in.word(),
		}
		if op&16 != 0 {
			s.Flags |= header.TCPFlagAck
			s.Flags &^= header.TCPFlagRst | header.TCPFlagSyn
		}
		d.options(in, &s)
		if n := int(in.byte()); n > 0 {
			s.Payload = payload(bytes.Repeat([]byte{byte(n)}, n<<(op>>5)))
		}
		d.input(&s)
		return
	case 8:
		d.now = d.now.Add(time.Duration(in.word()) << (op >> 4) * time.Microsecond)
		c.Tick(d.now)
	case 9:
		if at := c.Deadline(); at != Never {
			d.now = max(d.now, at)
			c.Tick(d.now)
		}
	case 10:
		c.Write(d.now, bytes.NewReader(make([]byte, in.word())), 1<<16, op&16 != 0)
		if op&32 != 0 {
			c.EndRecord()
		}
	case 11:
		c.Read(d.now, io.Discard, int(in.word()), op&16 != 0)
	case 12:
		c.Shutdown(d.now, op&32 != 0, op&16 != 0)
	case 13:
		if op&16 != 0 {
			c.Close(d.now)
		} else {
			c.SetBuffers(d.now, int(in.word()), int(in.word()))
		}
	case 14:
		c.SetRepair(d.now, repair.Mode(int(op>>4)%3-1))
	case 15:
		switch op >> 4 % 4 {
		case 0:
			c.PathMTU(d.now, in.near(c.snd.una, c.snd.nxt), in.word())
		case 1:
			c.SetOptions(d.now, UserOptions{NoDelay: in.byte()&1 != 0, Cork: in.byte()&1 != 0, MaxSegment: in.word(),
				UserTimeout: time.Duration(in.byte()) * time.Second, Keepalive: Keepalive{On: in.byte()&1 != 0}, NotSentLowat: int64(in.byte()) << 4})
			c.Push()
		case 2:
			c.PathError(d.now, in.near(c.snd.una, c.snd.nxt), ErrHostUnreachable)
		case 3:
			c.Abort(d.now)
		}
	}
	d.drain()
}

// FuzzSegment turns bytes into segments, time, user calls, freezes and thaws,
// and drives one connection with them. After each step check finds what must
// always hold, replies are counted, and a frozen connection must be silent.
func FuzzSegment(f *testing.F) {
	const linux, fastOpen = 16, 128
	for _, how := range []int{0, 1, 2, 3, linux | 1, linux | fastOpen, fastOpen | 1, fastOpen | 2, fastOpen | 32 | 2} {
		f.Add([]byte{byte(how), 0x3f, 0, 1, 0, 2, 5, 180, 255, 255, 255, 255, 0, 9, 255, 255, 15, 5, 7, 5, 180,
			10, 40, 0, 16, 0x10, 0, 0, 0, 0x20, 1, 0, 0, 0, 200, 9, 9, 30, 14, 9, 12 + 16, 9, 9})
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := &tape{b}
		d := newDriven(t, in)
		defer d.c.Release()
		for n := 0; in.more() && n < 500; n++ {
			d.step(in)
		}
	})
}
