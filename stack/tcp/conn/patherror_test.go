package conn

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// What ICMP said of an established connection is not a reason to end it; but
// when it is given up, and nothing has come since, it is the better reason.
// https://www.rfc-editor.org/rfc/rfc1122#page-103 (section 4.2.3.9), and Linux sk_err_soft
func TestSoftErrorIsTheReasonForGivingUp(t *testing.T) {
	silent := func(*host, *Segment) (time.Duration, int) { return 0, 0 }
	for _, tc := range []struct {
		name string
		sign bool // something comes after the error
		tune func(*Config)
		do   func(w *world)
		want error
	}{
		{"retransmission", false, func(c *Config) { c.Retries = 3 }, func(w *world) { w.a.write(w, noise(100, 1)) }, ErrHostUnreachable},
		{"the path works again", true, func(c *Config) { c.Retries = 3 }, func(w *world) { w.a.write(w, noise(100, 1)) }, ErrTimeout},
		{"user timeout", false, func(c *Config) { c.Options.UserTimeout = 3 * time.Second },
			func(w *world) { w.a.write(w, noise(100, 1)) }, ErrHostUnreachable},
	} {
		w := established(t, func(a, _ *Config) { tc.tune(a) })
		w.fate = silent
		tc.do(w)
		w.run(300*time.Millisecond, nil)
		c := &w.a.c
		if v := c.PathError(w.now, c.snd.una, ErrHostUnreachable); v != NotDropped {
			t.Errorf("%s: the error is dropped: %s", tc.name, v)
		}
		if c.State() != StateEstablished || c.Err() != nil {
			t.Fatalf("%s: %s, %v after an ICMP error", tc.name, c.State(), c.Err())
		}
		if tc.sign {
			w.now = w.now.Add(time.Millisecond)
			c.Input(w.now, &Segment{Seq: c.rcv.nxt, Ack: c.snd.una, Flags: header.TCPFlagAck, Window: c.snd.raw})
		}
		w.run(time.Hour, nil)
		if c.Err() != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, c.Err(), tc.want)
		}
	}
}

// An ICMP error ends an attempt to connect, whatever it says, and nothing else:
// anyone could have forged it. https://www.rfc-editor.org/rfc/rfc5927#section-5.2
func TestPathErrorInEachState(t *testing.T) {
	open := func(t *testing.T) *world { return established(t) }
	for _, tc := range []struct {
		state State
		reach func(t *testing.T) *Conn
		ends  bool
	}{
		{StateSynSent, func(t *testing.T) *Conn { return newTraceless(t, StateSynSent) }, true},
		{StateSynReceived, func(t *testing.T) *Conn { return newTraceless(t, StateSynReceived) }, false},
		{StateEstablished, func(t *testing.T) *Conn { return &open(t).a.c }, false},
		{StateFinWait1, func(t *testing.T) *Conn {
			w := open(t)
			w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
			w.a.c.Shutdown(w.now, false, true)
			w.run(10*time.Millisecond, nil)
			return &w.a.c
		}, false},
		{StateCloseWait, func(t *testing.T) *Conn {
			w := open(t)
			w.b.c.Shutdown(w.now, false, true)
			w.run(time.Second, nil)
			return &w.a.c
		}, false},
		{StateLastAck, func(t *testing.T) *Conn {
			w := open(t)
			w.b.c.Shutdown(w.now, false, true)
			w.run(time.Second, nil)
			w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
			w.a.c.Shutdown(w.now, false, true)
			w.run(10*time.Millisecond, nil)
			return &w.a.c
		}, false},
	} {
		for _, err := range []error{ErrHostUnreachable, ErrNetUnreachable, ErrRefused} {
			c := tc.reach(t)
			if c.State() != tc.state {
				t.Fatalf("%s, want %s", c.State(), tc.state)
			}
			seq := c.snd.una
			c.PathError(Time(2*time.Hour), seq, err)
			if ended := c.State() == StateClosed; ended != tc.ends {
				t.Errorf("%s: %v: %s", tc.state, err, c.State())
			}
			if tc.ends && c.Err() != err {
				t.Errorf("%s: %v, want %v", tc.state, c.Err(), err)
			}
		}
	}
}

// newTraceless returns a connection whose handshake has got as far as state.
func newTraceless(t *testing.T, state State) *Conn {
	c, now := new(Conn), Time(time.Hour)
	t.Cleanup(c.Release)
	cfg := testConfig(issA)
	var out Segment
	if state == StateSynSent {
		c.Connect(now, &cfg)
	} else {
		c.Accept(now, &cfg, &Segment{Seq: issB, Flags: header.TCPFlagSyn, Window: 1000})
	}
	if !c.Output(now, &out) {
		t.Fatal("no SYN")
	}
	return c
}
