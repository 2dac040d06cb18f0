package inmemory

import (
	"fmt"
	"io"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// mss is an Ethernet frame's, and full what is left of it beside timestamps.
const (
	mss  = 1460
	full = mss - 12
)

// link is one established connection and a hand-made peer.
type link struct {
	b    *testing.B
	c    conn.Conn
	now  conn.Time
	seq  seqnum.Value // the peer's next
	tick uint32       // the peer's timestamp clock
}

// window is large enough for ten thousand holes with as many segments between.
const window = 256 << 20

// establish opens a connection to a peer that scales its window to the utmost.
func establish(b *testing.B) *link {
	l := &link{b: b, now: conn.Time(time.Hour), seq: 1000, tick: 1}
	l.c.Connect(l.now, &conn.Config{
		ISS: 1, MSS: mss, GSOMax: 65535, RcvBuf: window, SndBuf: window,
		WindowScaling: true, Timestamps: true, SACK: true, RACK: true, DelayedACK: true,
		Congestion: "reno",
	})
	var out conn.Segment
	if !l.c.Output(l.now, &out) {
		b.Fatal("no SYN")
	}
	syn := l.segment(header.TCPFlagSyn|header.TCPFlagAck, out.End())
	syn.Options.MSS, syn.Options.HasWScale, syn.Options.WScale, syn.Options.SACKPermitted = mss, true, 14, true
	l.input(&syn)
	l.seq++
	l.drain()
	if l.c.State() != conn.StateEstablished {
		b.Fatalf("after the handshake: %v", l.c.State())
	}
	return l
}

// segment is one of the peer's, without data.
func (l *link) segment(flags header.TCPFlags, ack seqnum.Value) conn.Segment {
	s := conn.Segment{Seq: l.seq, Ack: ack, Flags: flags, Window: window >> 14}
	s.Options.HasTS, s.Options.TSVal = true, l.tick
	return s
}

func (l *link) input(s *conn.Segment) {
	if r := l.c.Input(l.now, s); r != conn.NotDropped {
		l.b.Fatalf("dropped: %v", r)
	}
}

// drain takes what the connection has to send and returns where it ended.
func (l *link) drain() (end seqnum.Value) {
	var out conn.Segment
	for l.c.Output(l.now, &out) {
		end = out.End()
		out.Release()
	}
	return end
}

// write queues n bytes.
func (l *link) write(n int) {
	if done, err := l.c.Write(l.now, zeros{}, n, false); err != nil || done != n {
		l.b.Fatalf("wrote %d of %d: %v", done, n, err)
	}
}

// zeros is an endless source.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// SegmentIn is a full segment that comes in order, is acknowledged, and is read.
func SegmentIn(b *testing.B) {
	l := establish(b)
	ack := l.c.Info(l.now).SndNxt
	data := buffer.NewViewSize(full)
	b.SetBytes(full)
	b.ReportAllocs()
	for b.Loop() {
		s := l.segment(header.TCPFlagAck, ack)
		s.Payload = buffer.MakeWithView(data.Clone())
		l.input(&s)
		l.seq = l.seq.Add(full)
		if _, err := l.c.Read(l.now, io.Discard, full, false); err != nil {
			b.Fatal(err)
		}
		l.drain()
	}
}

// SegmentOut is a full segment that is written, sent and acknowledged.
func SegmentOut(b *testing.B) { out(b, full) }

// BurstOut is the same for as much as a link with offload takes at once.
func BurstOut(b *testing.B) { out(b, 44*full) }

func out(b *testing.B, n int) {
	l := establish(b)
	l.grow(2 * n)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	// There is always as much in flight as is written, as in a stream.
	l.write(n)
	flying := l.drain()
	for b.Loop() {
		l.write(n)
		end := l.drain()
		s := l.segment(header.TCPFlagAck, flying)
		l.input(&s)
		flying = end
	}
}

// grow opens the congestion window for n bytes.
func (l *link) grow(n int) {
	for round := 0; ; round++ {
		l.write(n)
		end := l.drain()
		if l.c.Unsent() == 0 {
			l.acknowledge(end)
			return
		}
		if round > 100 {
			l.b.Fatalf("the window stays below %d bytes", n)
		}
		for l.c.Unacked() > 0 {
			l.acknowledge(end)
			end = l.drain()
		}
	}
}

// acknowledge acknowledges everything up to end a round trip later.
func (l *link) acknowledge(end seqnum.Value) {
	l.now = l.now.Add(10 * time.Millisecond)
	l.tick += 10
	s := l.segment(header.TCPFlagAck, end)
	l.input(&s)
}

// reassembly is a segment that comes early and leaves another hole, among as
// many holes as that.
func reassembly(holes int) func(*testing.B) {
	return func(b *testing.B) {
		const batch = 1000
		data := buffer.NewViewSize(full)
		var l *link
		var at, ack seqnum.Value
		early := func() {
			s := l.segment(header.TCPFlagAck, ack)
			s.Seq = at
			s.Payload = buffer.MakeWithView(data.Clone())
			l.input(&s)
			at = at.Add(2 * full)
			l.drain()
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if i%batch == 0 {
				b.StopTimer()
				if l != nil {
					l.c.Release()
				}
				l = establish(b)
				at, ack = l.seq.Add(full), l.c.Info(l.now).SndNxt
				for range holes {
					early()
				}
				b.StartTimer()
			}
			early()
		}
	}
}

// scoreboard is an acknowledgement that reports one more segment, among as many
// holes as that.
func scoreboard(holes int) func(*testing.B) {
	return func(b *testing.B) {
		const batch = 1000
		var l *link
		var una, at seqnum.Value
		sack := func() {
			s := l.segment(header.TCPFlagAck, una)
			for i := range seqnum.Size(3) {
				// The newest first, then those reported before, as RFC 2018
				// section 4 has it.
				start := at - seqnum.Value(i*2*full)
				if start.LessThan(una) {
					break
				}
				s.Options.SACK[i] = header.SACKBlock{Start: start, End: start.Add(full)}
				s.Options.NumSACK++
			}
			at = at.Add(2 * full)
			l.now = l.now.Add(time.Microsecond)
			l.input(&s)
			l.drain()
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if i%batch == 0 {
				b.StopTimer()
				if l != nil {
					l.c.Release()
				}
				l = establish(b)
				n := 2 * (holes + batch + 1) * full
				l.grow(n)
				una = l.c.Info(l.now).SndNxt
				l.write(n)
				if l.drain(); l.c.Unsent() != 0 {
					b.Fatal(fmt.Errorf("%d bytes do not fit the window", l.c.Unsent()))
				}
				l.now = l.now.Add(10 * time.Millisecond)
				at = una.Add(full)
				for range holes {
					sack()
				}
				b.StartTimer()
			}
			sack()
		}
	}
}
