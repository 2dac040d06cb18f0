package conn

import (
	"bytes"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

var cookie = &FastOpen{Cookie: []byte{1, 2, 3, 4, 5, 6, 7, 8}}

// The option goes through the codec in both forms; a cookie of a size that there
// is not, or outside a SYN, is ignored.
func TestFastOpenOption(t *testing.T) {
	for _, f := range []FastOpen{{}, {Experimental: true}, *cookie, {Cookie: cookie.Cookie, Experimental: true}, {Cookie: make([]byte, 16)}} {
		o := Options{MSS: 1460, HasTS: true, SACKPermitted: true, FastOpen: &f}
		var b [MaxOptionsLen]byte
		n := o.Encode(b[:])
		if n != o.Len() || n%4 != 0 {
			t.Errorf("%v: %d bytes, Len %d", f, n, o.Len())
		}
		var back Options
		ParseOptions(b[:n], true, &back)
		if back.FastOpen == nil || !bytes.Equal(back.FastOpen.Cookie, f.Cookie) || back.FastOpen.Experimental != f.Experimental {
			t.Errorf("%v came back as %v", f, back.FastOpen)
		}
		if ParseOptions(b[:n], false, &back); back.FastOpen != nil {
			t.Errorf("%v counts outside a SYN", f)
		}
	}
	for _, b := range [][]byte{{34, 4, 1, 2}, {34, 7, 1, 2, 3, 4, 5}, append([]byte{34, 20}, make([]byte, 18)...), {254, 6, 0xf9, 0x88, 1, 2}, {254, 3, 0xf9}} {
		var o Options
		if ParseOptions(b, true, &o); o.FastOpen != nil {
			t.Errorf("%v is taken for the cookie %v", b, o.FastOpen.Cookie)
		}
	}
	// The longest cookie still fits beside all other options of a SYN.
	o := Options{MSS: 1, HasTS: true, SACKPermitted: true, HasWScale: true, FastOpen: &FastOpen{Cookie: make([]byte, 16), Experimental: true}}
	var b [MaxOptionsLen]byte
	if n := o.Encode(b[:]); n != MaxOptionsLen || o.Len() != n {
		t.Errorf("%d bytes", n)
	}
}

// fastOpen opens a connection whose SYN carries sent and whose server answers
// with reply before the handshake is over.
func fastOpen(t *testing.T, accepts bool, sent, reply []byte) *world {
	w := newWorld(t)
	ca, cb := testConfig(issA), testConfig(issB)
	ca.FastOpen, ca.SYNData = cookie, 1000
	w.a.c.Connect(w.now, &ca)
	if n, err := w.a.c.WriteSYN(bytes.NewReader(sent), len(sent), false); err != nil || n != min(len(sent), 1000) {
		t.Fatalf("WriteSYN: %d, %v", n, err)
	}
	w.a.wrote = sent[:min(len(sent), 1000)]
	var syn Segment
	if !w.a.c.Output(w.now, &syn) || syn.Flags != header.TCPFlagSyn || int(syn.DataLen()) != len(w.a.wrote) || syn.Options.FastOpen != cookie {
		t.Fatalf("first %s", syn.String())
	}
	w.now = w.now.Add(w.delay)
	cb.Early = accepts
	w.b.c.Accept(w.now, &cb, &syn)
	if w.b.c.Early() != accepts {
		t.Fatalf("early: %t", w.b.c.Early())
	}
	if accepts {
		w.b.write(w, reply)
		w.b.read(w)
		if !bytes.Equal(w.b.got, w.a.wrote) {
			t.Fatalf("read %d bytes before the handshake was over", len(w.b.got))
		}
	}
	w.run(time.Second, func() bool { return w.a.c.Unacked() == 0 && w.b.c.Unacked() == 0 })
	if w.a.c.State() != StateEstablished || w.b.c.State() != StateEstablished {
		t.Fatalf("%s and %s", w.a.c.State(), w.b.c.State())
	}
	return w
}

// One round trip brings the request and its answer; of a refused SYN's data
// nothing is lost.
func TestFastOpenExchange(t *testing.T) {
	for _, accepts := range []bool{true, false} {
		w := fastOpen(t, accepts, noise(1500, 1), noise(5000, 2))
		w.a.read(w)
		w.b.read(w)
		if !bytes.Equal(w.b.got, w.a.wrote) || !bytes.Equal(w.a.got, w.b.wrote) {
			t.Errorf("accepted %t: %d of %d and %d of %d bytes arrived", accepts, len(w.b.got), len(w.a.wrote), len(w.a.got), len(w.b.wrote))
		}
		if a, b := w.a.c.Info(w.now), w.b.c.Info(w.now); a.SYNData != accepts || b.SYNData != accepts {
			t.Errorf("accepted %t: said %t and %t", accepts, a.SYNData, b.SYNData)
		}
		if n := w.a.c.stats.Timeouts + w.b.c.stats.Timeouts; n != 0 {
			t.Errorf("accepted %t: %d timeouts", accepts, n)
		}
	}
}

// A SYN that is sent again carries neither cookie nor data; the data follows the
// handshake.
func TestFastOpenSYNLost(t *testing.T) {
	w := newWorld(t)
	ca := testConfig(issA)
	ca.FastOpen, ca.SYNData = cookie, 1000
	w.a.c.Connect(w.now, &ca)
	w.a.c.WriteSYN(newBytes(300), 300, false)
	var syn Segment
	w.a.c.Output(w.now, &syn)
	syn.Release()
	w.now = w.a.c.Deadline()
	w.a.c.Tick(w.now)
	if !w.a.c.Output(w.now, &syn) || syn.DataLen() != 0 || syn.Options.FastOpen != nil || syn.Flags != header.TCPFlagSyn {
		t.Fatalf("second %s", syn.String())
	}
	cb := testConfig(issB)
	w.b.c.Accept(w.now, &cb, &syn)
	w.run(time.Second, func() bool { return w.b.c.Unread() == 300 })
	if w.b.c.Unread() != 300 {
		t.Errorf("%d bytes arrived", w.b.c.Unread())
	}
}

// With data in its handshake a connection cannot be carried away.
func TestFastOpenSnapshot(t *testing.T) {
	w := newWorld(t)
	ca := testConfig(issA)
	ca.SYNData = 1000
	w.a.c.Connect(w.now, &ca)
	w.a.c.WriteSYN(newBytes(300), 300, false)
	w.settle(w.a)
	w.a.c.SetRepair(w.now, 1)
	if _, err := w.a.c.Snapshot(w.now, nil); err == nil {
		t.Error("it was read out")
	}
}
