package linux_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/linux"
)

// flowOf returns the two ends of a host's connection.
func flowOf(c net.Conn) repair.Flow {
	return repair.Flow{
		Local:  c.LocalAddr().(*net.TCPAddr).AddrPort(),
		Remote: c.RemoteAddr().(*net.TCPAddr).AddrPort(),
	}
}

// What comes for a connection before it does is held, and then the peer need
// not send it again.
func TestReservationHolds(t *testing.T) {
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			w := newWorld(t)
			peer, host := w.connect(fam.index)
			must(t, peer.SetNoDelay(true))
			warmUp(t, peer, host)
			place, err := w.factory(1).Reserve(flowOf(host), 1<<20, limit)
			must(t, err)
			s := w.freeze(0, host)
			w.Switch.Move(1)
			for range 10 {
				_, err := peer.Write(late[:1000])
				must(t, err)
			}
			eventually(t, "segments held", func() bool {
				held, _ := place.Segments()
				return held >= 1
			})
			w.Switch.Silence(true, false) // what comes is not what is sent again
			restored, err := repair.Move(s, w.factory(1))
			must(t, err)
			held, swallowed := place.Segments()
			if held == 0 || swallowed != 0 {
				t.Errorf("%d held, %d swallowed", held, swallowed)
			}
			c := user(t, restored.(*linux.Socket))
			defer c.Close()
			must(t, c.SetReadDeadline(time.Now().Add(limit)))
			got := make([]byte, 1000)
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, late[:1000]) {
				t.Errorf("what was held did not come: %v", err)
			}
			must(t, restored.Close())
		})
	}
}

// Without room, segments are swallowed: no reset, and the peer sends again.
func TestReservationSwallows(t *testing.T) {
	w := newWorld(t)
	peer, host := w.connect(0)
	place, err := w.factory(1).Reserve(flowOf(host), 0, limit)
	must(t, err)
	if _, err := w.factory(1).Reserve(flowOf(host), 0, limit); !errors.Is(err, repair.ErrAddrInUse) {
		t.Errorf("a second reservation: %v", err)
	}
	s := w.freeze(0, host)
	w.Switch.Move(1)
	_, err = peer.Write(late[:1000])
	must(t, err)
	eventually(t, "a segment swallowed", func() bool {
		held, swallowed := place.Segments()
		return held == 0 && swallowed > 0
	})
	restored, err := repair.Move(s, w.factory(1))
	must(t, err)
	c := user(t, restored.(*linux.Socket))
	defer c.Close()
	must(t, c.SetReadDeadline(time.Now().Add(limit)))
	if _, err := io.ReadFull(c, make([]byte, 1000)); err != nil {
		t.Error(err)
	}
	must(t, restored.Close())
	place.Cancel() // it is gone already
	if n := w.resets(); n > 0 {
		t.Errorf("%d RSTs on the wire", n)
	}
}

// A place that nobody filled is free again, and resets come from there.
func TestReservationEnds(t *testing.T) {
	w := newWorld(t)
	peer, host := w.connect(0)
	place, err := w.factory(1).Reserve(flowOf(host), 0, 50*time.Millisecond)
	must(t, err)
	s := w.freeze(0, host)
	defer s.Close()
	w.Switch.Move(1)
	_, err = peer.Write(late[:1000])
	must(t, err)
	eventually(t, "a reset", func() bool { return w.resets() > 0 })
	place.Cancel()
	place.Cancel()
}

// A tombstone swallows what comes for a connection that has gone, from the
// very moment that it goes; without one there is a reset.
func TestTombstone(t *testing.T) {
	for _, bury := range []bool{true, false} {
		w := newWorld(t)
		peer, host := w.connect(0)
		flow := flowOf(host)
		w.Switch.Silence(false, true)
		_, err := host.Write(late[:1000]) // to be repeated
		must(t, err)
		s, err := w.bare(0).FromConn(host)
		must(t, err)
		must(t, s.SetRepair(repair.On))
		must(t, host.Close())
		var tomb repair.Reservation
		if bury {
			tomb, err = w.factory(0).Bury(flow, limit)
			must(t, err)
		}
		must(t, s.Close())
		left, err := w.Hosts[0].Kernel.Capture(w.Hosts[0].Device.Name, netlab.CaptureConfig{})
		must(t, err)
		w.Switch.Silence(false, false)
		_, err = peer.Write(late[:1000])
		must(t, err)
		if !bury {
			eventually(t, "a reset", func() bool { return w.resets() > 0 })
			continue
		}
		eventually(t, "segments swallowed", func() bool {
			_, swallowed := tomb.Segments()
			return swallowed >= 3
		})
		if n := w.resets(); n > 0 {
			t.Errorf("%d RSTs on the wire", n)
		}
		if n := left.Count(func(c netlab.Captured) bool { return c.Out && c.PayloadLen() > 0 }); n > 0 {
			t.Errorf("what has gone has sent %d segments", n)
		}
		tomb.Cancel()
		eventually(t, "a reset after it", func() bool { return w.resets() > 0 })
	}
}

// A Factory's Sockets leave a tombstone by themselves, which ends.
func TestTombstoneOfClose(t *testing.T) {
	w := newWorld(t)
	peer, host := w.connect(0)
	f := w.bare(0)
	f.Tombstone = time.Second
	s, err := f.FromConn(host)
	must(t, err)
	must(t, s.SetRepair(repair.On))
	must(t, errors.Join(host.Close(), s.Close()))
	closed := time.Now()
	_, err = peer.Write(late[:1000])
	must(t, err)
	eventually(t, "a reset", func() bool { return w.resets() > 0 })
	if lasted := time.Since(closed); lasted < f.Tombstone {
		t.Errorf("a reset after %v, of %v", lasted, f.Tombstone)
	}
}

// A connection comes back to where its tombstone is: on the same host, under
// load, without a reset.
func TestMoveWithinAHost(t *testing.T) {
	w := newWorld(t)
	peer, host := w.connect(1)
	const size, moves = 8 << 20, 20
	atPeer := duplex{in: newTraffic(size, 1), out: newTraffic(size, 2)}
	atHost := duplex{in: newTraffic(size, 2), out: newTraffic(size, 1)}
	result := make(chan error, 1)
	go func() {
		_, err := atPeer.run(peer)
		result <- err
	}()
	s, err := w.factory(0).FromConn(host)
	must(t, err)
	var c net.Conn = host
	for range moves {
		_, err := atHost.runFor(c, 10*time.Millisecond)
		must(t, err)
		must(t, c.Close())
		snap, err := repair.Checkpoint(s)
		must(t, err)
		_, err = w.factory(0).Bury(snap.Flow(), limit)
		must(t, err)
		must(t, s.Close())
		restored, err := repair.Restore(w.factory(0), snap)
		must(t, err)
		must(t, repair.Resume(restored, repair.Off))
		s = restored.(*linux.Socket)
		c = user(t, s)
	}
	_, err = atHost.runFor(c, limit)
	must(t, err)
	must(t, <-result)
	if digest(atPeer.in) != digest(atHost.out) || digest(atHost.in) != digest(atPeer.out) {
		t.Error("what arrived is not what was sent")
	}
	if n := w.resets(); n > 0 {
		t.Errorf("%d RSTs on the wire", n)
	}
	must(t, errors.Join(c.Close(), s.Close()))
}

// What cannot be restored is refused with the reason, in one line, and nothing
// has changed: the origin goes on.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	peer, host := w.connect(0)
	s := w.freeze(0, host)
	snap, err := repair.Checkpoint(s)
	must(t, err)
	change := func(f func(*repair.Snapshot)) *repair.Snapshot {
		c := *snap
		f(&c)
		return &c
	}
	l, err := w.Hosts[1].Kernel.ListenTCP(netip.AddrPortFrom(netip.IPv6Unspecified(), snap.Local.Port()))
	must(t, err)
	defer l.Close()
	free := w.factory(1)
	free.BesideListener = true
	for _, tc := range []struct {
		name string
		to   *linux.Factory
		snap *repair.Snapshot
		want error
	}{
		{"wrong local address", free, change(func(s *repair.Snapshot) {
			s.Local = netip.AddrPortFrom(netip.MustParseAddr("10.77.0.9"), s.Local.Port())
		}), repair.ErrAddress},
		{"existing connection", w.factory(0), snap, repair.ErrAddrInUse},
		{"port held by a listener", w.factory(1), snap, repair.ErrAddrInUse},
		{"no route", free, change(func(s *repair.Snapshot) {
			s.Remote = netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 80)
		}), repair.ErrNoRoute},
		{"a state of a handshake", free, change(func(s *repair.Snapshot) { s.State = repair.StateSynReceived }), repair.ErrState},
		{"a FIN too many", free, change(func(s *repair.Snapshot) { s.FINReceived = true }), repair.ErrInvalid},
	} {
		got, err := tc.to.Restore(tc.snap)
		if !errors.Is(err, tc.want) || got != nil || bytes.ContainsRune([]byte(err.Error()), '\n') {
			t.Errorf("%s: %v, %v; want %v", tc.name, got, err, tc.want)
		}
	}
	// A reservation outlives a Restore that failed.
	place, err := free.Reserve(snap.Flow(), 1<<16, limit)
	must(t, err)
	bad := change(func(s *repair.Snapshot) { s.Options.MSS = 0 })
	if _, err := free.Restore(bad); !errors.Is(err, repair.ErrInvalid) {
		t.Errorf("no segment size: %v", err)
	}
	if _, err := free.Reserve(snap.Flow(), 0, limit); !errors.Is(err, repair.ErrAddrInUse) {
		t.Errorf("the reservation is gone: %v", err)
	}
	place.Cancel()
	must(t, repair.Resume(s, repair.Off))
	c := user(t, s)
	defer c.Close()
	exchange(t, peer, c)
	must(t, s.Close())
	if n := w.resets(); n > 0 {
		t.Errorf("%d RSTs on the wire", n)
	}
}

// exchange sends a few bytes both ways.
func exchange(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, way := range []struct{ from, to net.Conn }{{a, b}, {b, a}} {
		must(t, way.to.SetReadDeadline(time.Now().Add(limit)))
		_, err := way.from.Write([]byte("ping"))
		must(t, err)
		got := make([]byte, 4)
		if _, err := io.ReadFull(way.to, got); err != nil || string(got) != "ping" {
			t.Fatalf("%q, %v", got, err)
		}
	}
}
