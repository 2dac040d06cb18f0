package conn

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/tcprepair/ustack/stack/repair"
)

// move carries a host's connection away and sets it down again on another
// clock, after the origin's memory has gone. It leaves it frozen.
func (w *world) move(h *host, cfg Config, core bool) *repair.Snapshot {
	w.t.Helper()
	if !h.c.Frozen() {
		if err := h.c.SetRepair(w.now, repair.On); err != nil {
			w.t.Fatal(err)
		}
	}
	snap, err := h.c.Snapshot(w.now, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if core {
		snap.Extra = nil
	}
	h.c.Close(w.now)
	h.c.Release()
	h.c = Conn{}
	if err := h.c.Restore(w.now, &cfg, snap); err != nil {
		w.t.Fatalf("restore: %v", err)
	}
	snap.Release()
	if err := h.c.check(); err != nil {
		w.t.Fatalf("restored: %v", err)
	}
	if !h.c.Frozen() {
		w.t.Fatal("restored and not frozen")
	}
	return snap
}

// describe is everything that can be seen of a frozen connection. Its clock may
// be another's, and which segments ask the peer to deliver is nothing to either.
func describe(c *Conn, now Time) string {
	i := c.Info(now)
	i.RACK.Sent = 0
	i.ResentTS, i.Spurious = 0, false
	rcv := c.rcv
	user := c.user
	if !user.more {
		user.moreAt = 0
	}
	rcv.base = rcv.adv // what remains of rounding is of no account
	s := fmt.Sprintf("%+v\nsnd %+v\nrcv %+v\nuser %+v\n", i, c.snd, rcv, user)
	for _, r := range c.board.recs {
		s += fmt.Sprintf("%d+%d %#x %v\n", r.seq, r.size, r.flags&^recPushed, c.frozenAt.Sub(r.sent))
	}
	for _, p := range c.reasm.spans {
		s += fmt.Sprintf("held %d:%d\n", p.seq, p.end())
	}
	for k := range numTimers {
		if at := c.timers.at(k); at != Never {
			s += fmt.Sprintf("timer %d in %v\n", k, at.Sub(c.frozenAt))
		}
	}
	return s + fmt.Sprintf("sack %v early FIN %t ts %v %d\n", c.sacks.recent, c.reasm.hasFIN, c.tstamp.on, c.tstamp.recent)
}

// A connection in any state is the same after it was moved.
func TestRestoreIsFaithful(t *testing.T) {
	for _, s := range liveStates {
		t.Run(s.String(), func(t *testing.T) {
			w := inState(t, s)
			w.now = w.now.Add(7 * time.Millisecond)
			w.a.c.SetRepair(w.now, repair.On)
			want := describe(&w.a.c, w.now)
			cfg := testConfig(5)
			w.move(w.a, cfg, false)
			if got := describe(&w.a.c, w.now); got != want {
				t.Errorf("restored as\n%s\nwas\n%s", got, want)
			}
		})
	}
}

// A connection that is moved at rest shares what it has in common with others as
// it did before.
func TestRestoredAtRestIsOrdinary(t *testing.T) {
	w := established(t)
	w.a.write(w, noise(10_000, 1))
	w.run(time.Second, func() bool { return w.a.c.Unacked() == 0 })
	w.a.c.SetRepair(w.now, repair.On)
	cfg := testConfig(5)
	cfg.Profile = cfg.Share()
	w.move(w.a, cfg, false)
	c := &w.a.c
	if c.cfg.Profile != cfg.Profile {
		t.Errorf("it has a profile of its own: %+v, the host's is %+v", *c.cfg.Profile, *cfg.Profile)
	}
	if c.disorder != &inOrder || c.board.holes != &noHoles || c.loss.reduction != &noReduction || c.timers.unusual != &noUnusual {
		t.Error("it has records of what it has not met")
	}
}

// busyWorld returns a world in which a has data in every place there is:
// unread, out of order, unacknowledged, SACKed, lost and never sent.
func busyWorld(t *testing.T, tune ...func(a, b *Config)) *world {
	w := established(t, tune...)
	n := 0
	w.fate = func(from *host, s *Segment) (time.Duration, int) {
		if s.DataLen() == 0 {
			return 0, 1
		}
		if n++; n%7 == 3 {
			return 0, 0
		}
		return 0, 1
	}
	w.a.write(w, noise(300_000, 1))
	w.b.write(w, noise(200_000, 2))
	w.run(35*time.Millisecond, nil)
	w.a.read(w)
	w.run(time.Second, func() bool {
		return w.a.c.Unsent() > 0 && w.a.c.Unread() > 0 && !w.a.c.reasm.empty() && w.a.c.board.sacked.segs > 0
	})
	return w
}

// carryOn thaws a and has both ends say the rest, read everything and close.
func (w *world) carryOn(mode repair.Mode) {
	w.t.Helper()
	resets := 0
	w.wiretap = func(from *host, s *Segment) {
		if s.Flags.Contains(4) { // RST
			resets++
		}
	}
	w.fate = nil
	if err := w.a.c.SetRepair(w.now, mode); err != nil {
		w.t.Fatal(err)
	}
	sent := map[*host]bool{}
	ok := w.run(5*time.Minute, func() bool {
		for _, h := range []*host{w.a, w.b} {
			h.read(w)
			if !sent[h] && h.c.State() != StateSynSent && h.c.State() != StateSynReceived {
				if canSend.has(h.c.State()) {
					h.write(w, []byte("the last words of "+h.name))
				}
				sent[h] = true
				h.c.Shutdown(w.now, false, true)
			}
		}
		w.settle(w.a)
		w.settle(w.b)
		over := func(s State) bool { return s == StateClosed || s == StateTimeWait }
		return over(w.a.c.State()) && over(w.b.c.State())
	})
	if !ok {
		w.t.Fatalf("not at the end: %s\n%+v\n%+v", w.states(), w.a.c.Info(w.now), w.b.c.Info(w.now))
	}
	w.a.read(w)
	w.b.read(w)
	w.same(w.a)
	w.same(w.b)
	if !w.a.closed || !w.b.closed || resets > 0 {
		w.t.Errorf("a has read the end: %t, b: %t; %d resets", w.a.closed, w.b.closed, resets)
	}
}

// A busy connection that is moved in the middle of everything loses nothing.
func TestRestoreBusy(t *testing.T) {
	for _, core := range []bool{false, true} {
		for _, mode := range []repair.Mode{repair.Off, repair.OffNoProbe} {
			for name, tune := range map[string]func(a, b *Config){
				"modern":        func(a, b *Config) {},
				"no SACK":       func(a, b *Config) { a.SACK = false },
				"no timestamps": func(a, b *Config) { a.Timestamps = false },
				"no RACK":       func(a, b *Config) { a.RACK = false },
				"plain":         func(a, b *Config) { a.SACK, a.Timestamps, a.WindowScaling = false, false, false },
				"reno":          func(a, b *Config) { a.Congestion = "reno" },
			} {
				t.Run(fmt.Sprintf("%s/%s/core only %t", name, mode, core), func(t *testing.T) {
					w := busyWorld(t, tune)
					edge, una := w.a.c.rcv.adv, w.a.c.snd.una
					cfg := testConfig(5)
					w.move(w.a, cfg, core)
					if w.a.c.rcv.adv.LessThan(edge) {
						t.Errorf("the window's edge went back from %d to %d", edge, w.a.c.rcv.adv)
					}
					if w.a.c.snd.una != una {
						t.Errorf("SND.UNA moved by %d", una.Size(w.a.c.snd.una))
					}
					w.carryOn(mode)
				})
			}
		}
	}
}

// Every state, moved, comes to its end.
func TestRestoreEndsWell(t *testing.T) {
	for _, core := range []bool{false, true} {
		for _, s := range liveStates {
			if s == StateSynSent || s == StateSynReceived {
				continue // TestRestoreHandshake
			}
			t.Run(fmt.Sprintf("%s/core only %t", s, core), func(t *testing.T) {
				w := inState(t, s)
				w.a.wrote, w.a.got, w.b.got = nil, nil, nil
				sent := noise(100_000, 1)
				if n := w.a.c.Unacked(); n > 0 {
					w.a.wrote = append(w.a.wrote, sent[:n]...)
				}
				cfg := testConfig(5)
				w.move(w.a, cfg, core)
				w.carryOn(repair.Off)
			})
		}
	}
}

// A handshake that is moved half way completes.
func TestRestoreHandshake(t *testing.T) {
	for _, core := range []bool{false, true} {
		for _, passive := range []bool{false, true} {
			for _, lost := range []bool{false, true} {
				t.Run(fmt.Sprintf("passive %t/lost %t/core only %t", passive, lost, core), func(t *testing.T) {
					w := newWorld(t)
					ca, cb := testConfig(issA), testConfig(issB)
					opener, other := w.a, w.b
					if passive {
						opener, other = w.b, w.a
						ca, cb = cb, ca
					}
					opener.c.Connect(w.now, &ca)
					var syn Segment
					opener.c.Output(w.now, &syn)
					w.now = w.now.Add(w.delay)
					if passive {
						other.c.Accept(w.now, &cb, &syn) // other is a
						if !lost {
							w.settle(w.a)
						}
						w.move(w.a, testConfig(5), core)
					} else {
						w.move(w.a, testConfig(5), core)
						if !lost {
							w.b.c.Accept(w.now, &cb, &syn)
						}
					}
					if !passive && lost {
						// The SYN never arrived: it has to come again.
						w.a.c.SetRepair(w.now, repair.OffNoProbe)
						w.wiretap = func(from *host, s *Segment) {
							if from == w.a && w.b.c.state == 0 {
								again := *s
								w.b.c.Accept(w.now, &cb, &again)
							}
						}
						w.run(10*time.Second, func() bool { return w.a.c.State() == StateEstablished })
						w.wiretap = nil
						w.a.c.SetRepair(w.now, repair.On)
					}
					w.carryOn(repair.Off)
				})
			}
		}
	}
}

// The timestamp clock of a moved connection goes on: the peer's PAWS sees no
// step back, whatever the new host's clock says.
func TestRestoreTimestampClock(t *testing.T) {
	w := established(t)
	w.a.c.SetRepair(w.now, repair.On)
	snap, err := w.a.c.Snapshot(w.now, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, micros := range []bool{false, true} {
		snap.TimestampMicros = micros
		for _, now := range []Time{1, Time(time.Hour), Time(100 * 24 * time.Hour)} {
			var c Conn
			cfg := testConfig(77)
			if err := c.Restore(now, &cfg, snap); err != nil {
				t.Fatal(err)
			}
			if got := c.tstamp.value(now); got != snap.Timestamp {
				t.Errorf("clock is %d, want %d", got, snap.Timestamp)
			}
			want := uint32(3000)
			if micros {
				want *= 1000
			}
			if got := c.tstamp.value(now.Add(3*time.Second)) - snap.Timestamp; got != want {
				t.Errorf("in 3 s it went on by %d, want %d", got, want)
			}
			c.Release()
		}
	}
}

// What was never sent stays unsent, and only that.
func TestRestoreUnsentStaysUnsent(t *testing.T) {
	for _, core := range []bool{false, true} {
		w := established(t)
		w.a.write(w, noise(500_000, 1))
		w.settle(w.a)
		unsent, nxt := w.a.c.Unsent(), w.a.c.snd.nxt
		if unsent == 0 {
			t.Fatal("everything was sent: the test would not test")
		}
		w.move(w.a, testConfig(5), core)
		if w.a.c.Unsent() != unsent || w.a.c.snd.nxt != nxt {
			t.Errorf("core only %t: %d unsent from %d, want %d from %d", core, w.a.c.Unsent(), w.a.c.snd.nxt, unsent, nxt)
		}
		w.carryOn(repair.Off)
	}
}

// The queues of a snapshot stay as they are when the origin goes on.
func TestSnapshotIsStable(t *testing.T) {
	w := busyWorld(t)
	w.a.c.SetRepair(w.now, repair.On)
	snap, err := w.a.c.Snapshot(w.now, nil)
	if err != nil {
		t.Fatal(err)
	}
	flat := func(b repair.Bytes) []byte { return bytes.Join(b, nil) }
	send, recv := flat(snap.SendQueue), flat(snap.RecvQueue)
	var held [][]byte
	for _, h := range snap.Extra.Held {
		held = append(held, flat(h.Data))
	}
	if len(send) == 0 || len(recv) == 0 || len(held) == 0 {
		t.Fatalf("%d bytes to send, %d unread, %d spans: the test would not test", len(send), len(recv), len(held))
	}
	w.carryOn(repair.Off)
	w.a.c.Release()
	if !bytes.Equal(flat(snap.SendQueue), send) || !bytes.Equal(flat(snap.RecvQueue), recv) {
		t.Error("a queue of the snapshot has changed")
	}
	for i, h := range snap.Extra.Held {
		if !bytes.Equal(flat(h.Data), held[i]) {
			t.Errorf("span %d of the snapshot has changed", i)
		}
	}
	snap.Release()
}

// A snapshot that contradicts itself is refused, and nothing has changed.
func TestRestoreRefuses(t *testing.T) {
	w := busyWorld(t)
	w.a.c.SetRepair(w.now, repair.On)
	for name, spoil := range map[string]func(*repair.Snapshot){
		"listener":              func(s *repair.Snapshot) { s.State = repair.StateListen },
		"closed":                func(s *repair.Snapshot) { s.State = repair.StateClosed },
		"state 0":               func(s *repair.Snapshot) { s.State = 0 },
		"state 16":              func(s *repair.Snapshot) { s.State = 16 },
		"state 33":              func(s *repair.Snapshot) { s.State = 33 },
		"FIN in ESTABLISHED":    func(s *repair.Snapshot) { s.FINSent = true },
		"peer's FIN":            func(s *repair.Snapshot) { s.FINReceived = true },
		"FIN acknowledged":      func(s *repair.Snapshot) { s.FINQueued, s.FINSent, s.FINAcked = true, true, true },
		"data in SYN-SENT":      func(s *repair.Snapshot) { s.State = repair.StateSynSent },
		"more unsent than is":   func(s *repair.Snapshot) { s.Unsent = s.SendQueue.Len() + 1 },
		"less unsent than none": func(s *repair.Snapshot) { s.Unsent = -1 },
		"scale":                 func(s *repair.Snapshot) { s.Options.SendScale = 15 },
		"our scale":             func(s *repair.Snapshot) { s.Options.RecvScale = 255 },
		"largest window":        func(s *repair.Snapshot) { s.Window.MaxWindow = s.Window.SndWnd - 1 },
		"WL1":                   func(s *repair.Snapshot) { s.Window.SndWl1 = s.RecvSeq + s.Window.RcvWnd + 1 },
		"WUP":                   func(s *repair.Snapshot) { s.Window.RcvWup = s.RecvSeq + 1 },
		"huge window":           func(s *repair.Snapshot) { s.Window.RcvWnd = 1<<30 + 1 },
		"edge":                  func(s *repair.Snapshot) { s.Extra.Advertised = s.RecvSeq + 1<<30 + 1 },
		"phase":                 func(s *repair.Snapshot) { s.Extra.Congestion.Phase = 5 },
		"record's place":        func(s *repair.Snapshot) { s.Extra.Sent[1].Seq++ },
		"record's size":         func(s *repair.Snapshot) { s.Extra.Sent[1].Len = 0 },
		"records' end":          func(s *repair.Snapshot) { s.Extra.Sent = s.Extra.Sent[:1] },
		"SACKed and lost":       func(s *repair.Snapshot) { s.Extra.Sent[1].Flags = repair.SegmentSACKed | repair.SegmentLost },
		"repeated, not lost":    func(s *repair.Snapshot) { s.Extra.Sent[1].Flags = repair.SegmentRetransmitted },
		"unknown flag":          func(s *repair.Snapshot) { s.Extra.Sent[1].Flags = 1 << 4 },
		"span's place":          func(s *repair.Snapshot) { s.Extra.Held[0].Seq = s.RecvSeq },
		"empty span":            func(s *repair.Snapshot) { s.Extra.Held[0].Data = nil },
		"span beyond the edge":  func(s *repair.Snapshot) { s.Extra.Held[0].Seq = s.Extra.Advertised - 1 },
		"early FIN":             func(s *repair.Snapshot) { f := s.RecvSeq; s.Extra.EarlyFIN = &f },
		"held data, FIN": func(s *repair.Snapshot) {
			s.State, s.FINReceived = repair.StateCloseWait, true
		},
	} {
		snap, err := w.a.c.Snapshot(w.now, nil)
		if err != nil {
			t.Fatal(err)
		}
		spoil(snap)
		var c Conn
		cfg := testConfig(5)
		if err := c.Restore(w.now, &cfg, snap); err == nil {
			t.Errorf("%s: taken", name)
		} else if bytes.ContainsRune([]byte(err.Error()), '\n') {
			t.Errorf("%s: more than one line: %v", name, err)
		}
		if c.state != 0 || c.sendq.chunks != nil {
			t.Errorf("%s: refused, and the connection is %+v", name, c.State())
		}
		snap.Release()
	}
	var c Conn
	snap, _ := w.a.c.Snapshot(w.now, nil)
	defer snap.Release()
	cfg := testConfig(5)
	if err := w.b.c.Restore(w.now, &cfg, snap); err == nil {
		t.Error("restored on top of a live connection")
	}
	if err := c.Restore(w.now, &cfg, snap); err != nil {
		t.Errorf("the snapshot that was not spoilt: %v", err)
	}
	c.Release()
	if _, err := w.b.c.Snapshot(w.now, nil); err != repair.ErrPermission {
		t.Errorf("snapshot of a connection that is not frozen: %v", err)
	}
	if _, err := new(Conn).Snapshot(w.now, nil); err != repair.ErrState {
		t.Errorf("snapshot of none: %v", err)
	}
}
