package tcp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"testing"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// snapshots are what a fuzzer begins with: connections of the stack's, and a
// listener.
func snapshots() []*repair.Snapshot {
	local, remote := netip.MustParseAddrPort("10.0.0.1:7"), netip.MustParseAddrPort("10.0.0.2:5000")
	established := &repair.Snapshot{
		Core: repair.Core{
			Local: local, Remote: remote, State: repair.StateEstablished,
			SendSeq: 0xfffffff0, SendQueue: repair.Bytes{make([]byte, 3000)}, Unsent: 1000, RecvSeq: 77, RecvQueue: repair.Bytes{make([]byte, 100)},
			Options: repair.Options{MSS: 1460, SACK: true, Timestamps: true, Scaling: true, SendScale: 7, RecvScale: 7},
			Window:  repair.Window{SndWl1: 77, SndWnd: 5000, MaxWindow: 5000, RcvWnd: 5000, RcvWup: 77},
		},
		Extra: &repair.Extra{Passive: true},
	}
	closing := &repair.Snapshot{Core: established.Core}
	closing.State, closing.FINQueued, closing.FINSent, closing.FINReceived, closing.Unsent = repair.StateClosing, true, true, true, 0
	opening := &repair.Snapshot{
		Core:  repair.Core{Local: local, Remote: remote, State: repair.StateSynSent, SendSeq: 5, Options: established.Options},
		Extra: &repair.Extra{SYNSends: 1},
	}
	listener := &repair.Snapshot{
		Core:     repair.Core{Local: netip.MustParseAddrPort("0.0.0.0:7"), State: repair.StateListen},
		Extra:    &repair.Extra{Backlog: 4},
		Children: []*repair.Snapshot{established},
	}
	return []*repair.Snapshot{established, closing, opening, listener}
}

// settle gives a snapshot the addresses of the fuzzer's stack, which no fuzzer
// would find.
func (x *target) settle(s *repair.Snapshot) {
	x.family = families[0]
	if s.Local.Addr().Is6() {
		x.family = families[1]
	}
	at := func(i int, port uint16) netip.AddrPort {
		a, _ := netip.AddrFromSlice(x.family.addrs[i].AsSlice())
		return netip.AddrPortFrom(a, port)
	}
	if s.State != repair.StateListen {
		s.Local, s.Remote = at(0, s.Local.Port()), at(1, s.Remote.Port())
		x.lastPort, x.peerPort = s.Local.Port(), s.Remote.Port()
		x.last = [2]uint32{s.SendSeq, s.RecvSeq}
		x.written += s.SendQueue.Len()
	}
	for _, c := range s.Children {
		x.settle(c)
	}
}

// FuzzRestore has a stack restore snapshots of arbitrary bytes, each as often as
// it likes, with places that are kept for them or not, and gives it packets,
// time and a user who does anything. It may not panic, hang, or answer without
// bound; while a connection is frozen it may not answer at all; and nothing may
// be left.
func FuzzRestore(f *testing.F) {
	for i, s := range snapshots() {
		var b bytes.Buffer
		if _, err := s.WriteTo(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes()[:b.Len()-4], []byte{byte(i), 7, 0x12, 0, 0, 1, 4, 2, 4, 5, 180, 0, 255, 255, 10, 1, 0, 9, 3, 1, 2, 3, 15 + 64, 2, 0, 8, 255, 255, 14, 12})
	}
	f.Fuzz(func(t *testing.T, b, script []byte) {
		b = binary.BigEndian.AppendUint32(bytes.Clone(b), crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		snap, err := repair.Read(bytes.NewReader(b), repair.Limits{Queue: 1 << 20, Extra: 1 << 18, Children: 8})
		if err != nil {
			return
		}
		x := &target{wire: newWire(t), in: script, peerPort: 5000, lastPort: 7}
		how := x.byte()
		x.settle(snap)
		x.listener, _ = listenEndpoint(t, x.stack, x.family, 0, 9999, 2)
		factory := &tcp.RepairFactory{Stack: x.stack, Share: how&1 != 0}
		if how&2 != 0 {
			factory.Reserve(snap.Flow(), int(x.word()), 1+60e9)
			x.deliver(x.packet())
			x.drain()
		}
		for range 2 {
			x.restore(factory, snap, how)
		}
		for n := 0; len(x.in) > 0 && n < 200; n++ {
			x.step()
		}
		for _, ep := range x.eps {
			ep.Close()
			ep.Abort()
		}
	})
}

// restore restores a snapshot, and thaws what came of it.
func (x *target) restore(factory *tcp.RepairFactory, snap *repair.Snapshot, how byte) {
	before := len(tcp.Endpoints(x.stack))
	s, err := repair.Restore(factory, snap)
	if err != nil {
		if n := len(tcp.Endpoints(x.stack)); n != before {
			x.t.Fatalf("refused (%v), and there are %d endpoints, not %d", err, n, before)
		}
		for _, kind := range []error{repair.ErrInvalid, repair.ErrState, repair.ErrTooBig, repair.ErrAddress, repair.ErrAddrInUse, repair.ErrNoRoute} {
			if errors.Is(err, kind) {
				return
			}
		}
		x.t.Fatalf("an error of no kind: %v", err)
	}
	ep := s.(*tcp.RepairSocket).Endpoint()
	x.eps = append(x.eps, ep)
	for range 3 {
		x.deliver(x.packet())
		x.clock.Advance(1e9)
	}
	for pkt := x.link.Read(); pkt != nil; pkt = x.link.Read() {
		if pkt.TransportProtocolNumber == tcp.ProtocolNumber {
			x.t.Fatal("frozen, and it has sent")
		}
		pkt.DecRef()
	}
	if how&4 != 0 {
		ep.Close() // where it was is a tombstone now, and it may be restored again
		return
	}
	mode := repair.Off
	if how&8 != 0 {
		mode = repair.OffNoProbe
	}
	if err := repair.Resume(s, mode); err != nil {
		x.t.Fatalf("thawing: %v", err)
	}
	x.drain()
}
