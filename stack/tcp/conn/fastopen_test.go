package conn

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tcprepair/ustack/stack/repair"
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

// A connection with data in its handshake is carried away, at either end, and
// nothing is lost: whether the server takes the data of the SYN or not, and
// whether its answer arrives or not. A server's needs the extra part for that.
func TestFastOpenMoves(t *testing.T) {
	for _, tc := range []struct{ server, core, accepts, lost bool }{
		{false, false, true, false}, {false, false, true, true}, {false, false, false, false}, {false, false, false, true},
		{false, true, true, false}, {false, true, true, true}, {false, true, false, false}, {false, true, false, true},
		{true, false, true, false}, {true, false, true, true},
	} {
		t.Run(fmt.Sprintf("%+v", tc), func(t *testing.T) {
			w := newWorld(t)
			client, server := w.a, w.b
			if tc.server { // a is the one that is moved
				client, server = w.b, w.a
			}
			cc, cs := testConfig(issA), testConfig(issB)
			cc.FastOpen, cc.SYNData = cookie, 1000
			client.c.Connect(w.now, &cc)
			client.wrote = noise(700, 1)
			if n, err := client.c.WriteSYN(bytes.NewReader(client.wrote), 700, false); n != 700 || err != nil {
				t.Fatal(n, err)
			}
			var syn Segment
			if !client.c.Output(w.now, &syn) || syn.DataLen() != 700 {
				t.Fatalf("first %s", syn.String())
			}
			w.now = w.now.Add(w.delay)
			if !tc.server {
				w.move(w.a, testConfig(5), tc.core)
			}
			cs.Early = tc.accepts
			server.c.Accept(w.now, &cs, &syn)
			if tc.accepts {
				server.write(w, noise(5000, 2))
			}
			if tc.lost {
				w.fate = func(*host, *Segment) (time.Duration, int) { return 0, 0 }
			}
			w.settle(server)
			if tc.server {
				server.write(w, noise(300, 3)) // which is never sent before the move
				w.move(w.a, testConfig(5), false)
				if got := w.a.c.Unread(); got != 700 || !w.a.c.Early() {
					t.Fatalf("%d bytes unread, early: %t", got, w.a.c.Early())
				}
			}
			w.carryOn(repair.Off)
		})
	}
}

// Before its SYN with data has left a connection cannot be carried away, nor set
// down if it says that it has not, nor if it is not said how the data came.
func TestFastOpenSnapshotRefused(t *testing.T) {
	w := newWorld(t)
	ca := testConfig(issA)
	ca.SYNData = 1000
	w.a.c.Connect(w.now, &ca)
	w.a.c.WriteSYN(newBytes(300), 300, false)
	w.a.c.SetRepair(w.now, repair.On)
	if _, err := w.a.c.Snapshot(w.now, nil); err != repair.ErrState {
		t.Errorf("%v, want %v", err, repair.ErrState)
	}
	w.a.c.SetRepair(w.now, repair.Off)
	w.settle(w.a)
	w.a.c.SetRepair(w.now, repair.On)
	snap, err := w.a.c.Snapshot(w.now, nil)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string) {
		t.Helper()
		var c Conn
		cfg := testConfig(1)
		if err := c.Restore(w.now, &cfg, snap); !errors.Is(err, repair.ErrState) {
			t.Errorf("%s: %v, want %v", what, err, repair.ErrState)
		}
	}
	snap.Extra.SYNSends = 0
	refused("a SYN that never left")
	snap.State, snap.Extra.SYNSends = StateSynReceived, 1
	refused("data of no Fast Open")
	snap.Extra = nil
	refused("data of nobody knows what")
}
