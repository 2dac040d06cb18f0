package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// dialled opens a connection whose SYN is answered after it was sent n times.
func dialled(t *testing.T, n int, tune func(*Config)) *scripted {
	s := &scripted{t: t, now: Time(time.Hour), seq: 5000, wnd: 0xffff, ts: 777}
	cfg := testConfig(1000)
	tune(&cfg)
	s.c.Connect(s.now, &cfg)
	t.Cleanup(s.c.Release)
	var syn Segment
	for i := range n {
		if i > 0 {
			s.tick(s.now.Add(time.Minute))
		}
		if !s.c.Output(s.now, &syn) {
			t.Fatal("no SYN")
		}
	}
	s.now = s.now.Add(10 * time.Millisecond)
	s.c.Input(s.now, &Segment{
		Seq: s.seq, Ack: cfg.ISS.Add(1), Flags: header.TCPFlagSyn | header.TCPFlagAck, Window: 0xffff,
		Options: Options{MSS: 1460, HasWScale: true, WScale: 7, SACKPermitted: true, HasTS: cfg.Timestamps, TSVal: s.ts, TSEcr: syn.Options.TSVal},
	})
	s.seq++
	s.drain()
	return s
}

// accepted is dialled for a passive open.
func accepted(t *testing.T, n int, timestamps bool) *scripted {
	s := &scripted{t: t, now: Time(time.Hour), seq: 5000, wnd: 0xffff, ts: 777}
	cfg := testConfig(1000)
	cfg.Timestamps = timestamps
	s.c.Accept(s.now, &cfg, &Segment{Seq: s.seq, Flags: header.TCPFlagSyn, Window: 0xffff,
		Options: Options{MSS: 1460, HasWScale: true, WScale: 7, SACKPermitted: true, HasTS: timestamps, TSVal: s.ts}})
	t.Cleanup(s.c.Release)
	s.seq++
	for i := range n {
		if i > 0 {
			s.tick(s.now.Add(time.Minute))
		}
		s.drain()
	}
	s.now = s.now.Add(10 * time.Millisecond)
	s.in(s.seg(0, cfg.ISS.Add(1), ""))
	s.drain()
	return s
}

// After a handshake that timed out and gave no sample the first data's timeout
// is 3 s; with a sample it is what that makes it.
// https://www.rfc-editor.org/rfc/rfc6298#section-5 (5.7)
func TestTimeoutAfterLostSYN(t *testing.T) {
	for _, tc := range []struct {
		name       string
		sent       int
		timestamps bool
		least      time.Duration
		most       time.Duration
	}{
		{"SYN answered", 1, false, 0, time.Second},
		{"SYN lost", 2, false, 3 * time.Second, 3 * time.Second},
		{"SYN lost thrice", 4, false, 3 * time.Second, 3 * time.Second},
		{"SYN lost, timestamps", 2, true, 0, time.Second},
	} {
		for _, passive := range []bool{false, true} {
			t.Run(tc.name+map[bool]string{true: ", passive"}[passive], func(t *testing.T) {
				var s *scripted
				if passive {
					s = accepted(t, tc.sent, tc.timestamps)
				} else {
					s = dialled(t, tc.sent, func(c *Config) { c.Timestamps = tc.timestamps })
				}
				s.write(100)
				if out := s.drain(); len(out) != 1 {
					t.Fatalf("%d segments, want the data", len(out))
				}
				start := s.now
				for range 3 { // tail loss probes come before
					s.tick(start.Add(time.Minute))
					if s.c.Counters().Timeouts > uint64(tc.sent-1) {
						break
					}
					s.drain()
				}
				if took := s.now.Sub(start); took < tc.least || took > tc.most {
					t.Errorf("the data timed out after %v, want %v to %v", took, tc.least, tc.most)
				}
			})
		}
	}
}

// The initial window is ten segments, after several lost SYNs one.
// https://www.rfc-editor.org/rfc/rfc6928#section-2
func TestInitialWindowAfterLostSYNs(t *testing.T) {
	for sent, segments := range map[int]int{1: 10, 2: 10, 3: 1, 5: 1} {
		for _, congestion := range []string{"reno", "cubic"} {
			s := dialled(t, sent, func(c *Config) { c.Congestion = congestion })
			s.write(100_000)
			sum := 0
			for _, seg := range s.drain() {
				sum += int(seg.DataLen())
			}
			if want := segments * s.c.segmentSize(); sum != want {
				t.Errorf("%s, SYN sent %d times: %d bytes leave, want %d", congestion, sent, sum, want)
			}
		}
	}
}

// A connection that is aborted after the SYNs crossed refuses the peer's, and
// resets what the peer may have by now.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.5
func TestAbortAfterCrossingSYNs(t *testing.T) {
	s := &scripted{t: t, now: Time(time.Hour), seq: 5000, wnd: 0xffff}
	cfg := testConfig(1000)
	s.c.Connect(s.now, &cfg)
	t.Cleanup(s.c.Release)
	s.drain()
	s.in(&Segment{Seq: s.seq, Flags: header.TCPFlagSyn, Window: 0xffff, Options: Options{MSS: 1460}})
	if out := s.drain(); len(out) != 1 || s.c.State() != StateSynReceived {
		t.Fatalf("%s, %d segments", s.c.State(), len(out))
	}
	s.c.Abort(s.now)
	out := s.drain()
	if len(out) != 2 || s.c.State() != StateClosed {
		t.Fatalf("%s, %d segments, want two resets", s.c.State(), len(out))
	}
	for i, want := range []seqnum.Value{0, cfg.ISS + 1} {
		if o := &out[i]; o.Flags != header.TCPFlagRst|header.TCPFlagAck || o.Seq != want || o.Ack != s.seq+1 {
			t.Errorf("reset %d: flags %s, seq %d, ack %d; want RST and ACK, %d, %d", i, o.Flags, o.Seq, o.Ack, want, s.seq+1)
		}
	}
}
