package netlab

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/tcprepair/ustack/internal/netlab/impair"
)

const wireSeed = 20260101

func TestWirePassesEverything(t *testing.T) {
	RequireTAP(t)
	lab := New(t)
	n := must(lab.KernelWire(Link{}, WireConfig{Seed: wireSeed}))(t)
	for i, p := range PeerAddresses {
		transfer(t, n.Kernel, n.Peer, p.Addr(), payload(uint64(i), 8<<20))
		transfer(t, n.Peer, n.Kernel, KernelAddresses[i].Addr(), payload(uint64(i), 8<<20))
	}
	for _, c := range counters(n.Wire) {
		if c.Frames == 0 || c.Frames != c.Delivered || c.Bytes != c.DeliveredBytes || c.Lost+c.Refused+c.Malformed != 0 {
			t.Errorf("%+v", c)
		}
	}
	if err := n.Wire.Err(); err != nil {
		t.Error(err)
	}
}

func counters(w *Wire) [2]Counters {
	a, b := w.Counters()
	return [2]Counters{a, b}
}

// The promise the other packages' tests build on: 1% loss and 5 ms each way,
// and every byte arrives.
func TestWireImpairsAndTCPSurvives(t *testing.T) {
	RequireTAP(t)
	bad := impair.Config{Loss: 0.01, Delay: 5 * time.Millisecond}
	worse := impair.Config{Loss: 0.02, BurstLength: 3, Delay: time.Millisecond, Jitter: time.Millisecond,
		Reorder: 0.02, ReorderBy: 2 * time.Millisecond, Duplicate: 0.02, Corrupt: 0.01}
	for _, tc := range []struct {
		name string
		cfg  impair.Config
		size int
		want func(Counters) bool
	}{
		{"loss and delay", bad, 16 << 20, func(c Counters) bool { return c.Lost > 0 }},
		{"everything", worse, 1 << 20, func(c Counters) bool {
			return c.Lost > 0 && c.Reordered > 0 && c.Duplicated > 0 && c.Corrupted > 0
		}},
		{"slow", impair.Config{Rate: 50e6, Queue: 30000}, 4 << 20, func(c Counters) bool { return c.QueueFull > 0 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lab := New(t)
			n := must(lab.KernelWire(Link{}, WireConfig{AToB: tc.cfg, BToA: tc.cfg, Seed: wireSeed}))(t)
			for i, p := range PeerAddresses {
				transfer(t, n.Kernel, n.Peer, p.Addr(), payload(uint64(i), tc.size))
			}
			forth := counters(n.Wire)[0]
			if !tc.want(forth) {
				t.Errorf("seed %d: %+v", n.Wire.Seed(), forth)
			}
		})
	}
}

func TestWireDelays(t *testing.T) {
	RequireTAP(t)
	lab := New(t)
	slow := impair.Config{Delay: 20 * time.Millisecond}
	n := must(lab.KernelWire(Link{}, WireConfig{AToB: slow, BToA: slow}))(t)
	ln := must(n.Peer.ListenTCP(netip.AddrPortFrom(PeerAddresses[0].Addr(), 0)))(t)
	defer ln.Close()
	conn := must(n.Kernel.DialTCP(patient(t), ln.Addr().(*net.TCPAddr).AddrPort()))(t)
	defer conn.Close()
	rtt := time.Duration(must(TCPInfo(conn))(t).Rtt) * time.Microsecond
	if rtt < 40*time.Millisecond || rtt > time.Second {
		t.Errorf("the handshake's RTT was %v, want 40 ms and a little", rtt)
	}
}

// A stack's TAP hangs on the wire by a packet socket. Here a second wire stands
// for the stack and joins that TAP to another kernel.
func TestImpairedTopology(t *testing.T) {
	RequireTAP(t)
	for _, plain := range []bool{true, false} {
		lab := New(t)
		cfg := impair.Config{Loss: 0.005, Delay: time.Millisecond}
		n := must(lab.Impaired(Link{Plain: plain}, WireConfig{AToB: cfg, BToA: cfg, Seed: wireSeed}))(t)
		peer := must(lab.Namespace("peer"))(t)
		end := must(peer.TAP("tap0", TAPConfig{Addresses: PeerAddresses, Plain: plain}))(t)
		must(lab.Wire(must(n.TAP.Port())(t), must(end.Port())(t), WireConfig{}))(t)
		for i, p := range PeerAddresses {
			transfer(t, n.Kernel, peer, p.Addr(), payload(uint64(i), 2<<20))
			transfer(t, peer, n.Kernel, KernelAddresses[i].Addr(), payload(uint64(i), 2<<20))
		}
		for _, c := range counters(n.Wire) {
			if c.Lost == 0 || c.Malformed != 0 {
				t.Errorf("plain %v: %+v", plain, c)
			}
		}
	}
}

func TestDirectTopology(t *testing.T) {
	RequireTAP(t)
	lab := New(t)
	n := must(lab.Direct(Link{MTU: 4000}))(t)
	peer := must(lab.Namespace("peer"))(t)
	end := must(peer.TAP("tap0", TAPConfig{Addresses: PeerAddresses, MTU: 4000}))(t)
	must(lab.Wire(must(n.TAP.Port())(t), must(end.Port())(t), WireConfig{}))(t)
	transfer(t, n.Kernel, peer, PeerAddresses[1].Addr(), payload(1, 2<<20))
}

// Between veth pairs the kernel leaves super-frames and half-done checksums to
// the wire, which must complete them: 1% loss may not cost 64 KiB at once.
func TestWireBetweenVethsCutsSuperFrames(t *testing.T) {
	lab := New(t)
	a, b, mid := must(lab.Namespace("a"))(t), must(lab.Namespace("b"))(t), must(lab.Namespace("middle"))(t)
	for _, end := range []struct {
		ns        *Namespace
		far       string
		addresses []netip.Prefix
	}{{a, "to-a", KernelAddresses}, {b, "to-b", PeerAddresses}} {
		if _, _, err := lab.Veth(End{end.ns, "veth0", end.addresses}, End{mid, end.far, nil}, 0); err != nil {
			t.Fatal(err)
		}
	}
	capture := must(a.Capture("veth0", CaptureConfig{}))(t)
	cfg := impair.Config{Loss: 0.01}
	w := must(lab.Wire(must(mid.PacketPort("to-a"))(t), must(mid.PacketPort("to-b"))(t), WireConfig{AToB: cfg, BToA: cfg, Seed: wireSeed}))(t)
	for i, p := range PeerAddresses {
		transfer(t, a, b, p.Addr(), payload(uint64(i), 4<<20))
	}
	forth := counters(w)[0]
	if forth.Malformed+forth.Refused != 0 || forth.Lost == 0 {
		t.Errorf("%+v", forth)
	}
	if capture.Count(func(c Captured) bool { return c.Out && c.Length > 10000 }) == 0 {
		t.Error("the kernel sent no super-frame: the test has shown nothing")
	}
	if forth.Bytes/forth.Frames > 1514 {
		t.Errorf("the wire saw frames of %d bytes on average", forth.Bytes/forth.Frames)
	}
}

func TestWireFilterAndChange(t *testing.T) {
	RequireTAP(t)
	lab := New(t)
	n := must(lab.KernelWire(Link{}, WireConfig{}))(t)
	at := PeerAddresses[0].Addr()
	transfer(t, n.Kernel, n.Peer, at, payload(1, 1000))

	if err := n.Wire.Impair(impair.Config{Loss: 2}, impair.Config{}); err == nil {
		t.Error("a loss of 2 was accepted")
	}
	refuse := func(cut func()) {
		t.Helper()
		cut()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if conn, err := n.Kernel.DialTCP(ctx, netip.AddrPortFrom(at, 1)); err == nil {
			conn.Close()
			t.Error("a connection was made over a cut wire")
		} else if !strings.Contains(err.Error(), "timeout") {
			t.Errorf("over a cut wire: %v, want a timeout", err)
		}
	}
	refuse(func() { n.Wire.Filter(nil, func(frame []byte) bool { return false }) })
	n.Wire.Filter(nil, nil)
	transfer(t, n.Kernel, n.Peer, at, payload(1, 1000))
	refuse(func() {
		if err := n.Wire.Impair(impair.Config{Loss: 1}, impair.Config{}); err != nil {
			t.Fatal(err)
		}
	})
	c := counters(n.Wire)
	if c[1].Filtered == 0 || c[0].Filtered != 0 || c[0].Lost == 0 || c[1].Lost != 0 {
		t.Errorf("%+v", c)
	}
}

func TestWireMemoryIsBounded(t *testing.T) {
	RequireTAP(t)
	lab := New(t)
	const room = 20_000
	slow := impair.Config{Delay: time.Hour}
	n := must(lab.KernelWire(Link{}, WireConfig{AToB: slow, InFlight: room}))(t)
	conn := must(n.Kernel.ListenUDP(netip.MustParseAddrPort("[::]:0")))(t)
	defer conn.Close()
	// Multicast needs no neighbour to be found first.
	to := netip.AddrPortFrom(netip.MustParseAddr("ff02::1").WithZone("tap0"), 9)
	capture := must(n.Kernel.Capture("tap0", CaptureConfig{}))(t)
	for range 100 {
		if _, err := conn.WriteToUDPAddrPort(make([]byte, 1000), to); err != nil {
			t.Fatal(err)
		}
	}
	sent := capture.Count(func(c Captured) bool { return c.Out })
	// A frame of the other direction follows nothing, so wait for the count.
	for ctx := patient(t); ; runtime.Gosched() {
		c := counters(n.Wire)[0]
		if c.Frames >= uint64(sent) {
			// Beside ours there are the kernel's own small frames (IPv6's
			// multicast reports), which come when they like.
			const ours = 100
			small := c.Frames - ours
			if c.Overflowed == 0 || c.InFlight == 0 || uint64(c.InFlight) > room/1000+small {
				t.Errorf("%d sent: %+v", sent, c)
			}
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%d sent: %+v", sent, c)
		}
	}
}

func TestWireErrors(t *testing.T) {
	RequireTAP(t)
	lab := New(t)
	ns := must(lab.Namespace("a"))(t)
	port := func(name string) *Port { return must(must(ns.TAP(name, TAPConfig{}))(t).Port())(t) }
	if _, err := lab.Wire(port("t0"), port("t1"), WireConfig{BToA: impair.Config{Loss: -1}}); err == nil {
		t.Error("a bad configuration was accepted")
	}
	if _, err := ns.PacketPort("nothing"); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("a port at an unknown device: %v", err)
	}
	if devices := must(ns.Devices())(t); len(devices) != 1 {
		t.Errorf("the refused wire left %v", devices)
	}
	// A device that vanishes under a wire: the wire says so and ends quietly.
	tap := must(ns.TAP("t2", TAPConfig{}))(t)
	w := must(lab.Wire(must(tap.Port())(t), port("t3"), WireConfig{}))(t)
	link := must(ns.nl.LinkByName("t2"))(t)
	if err := ns.nl.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	for ctx := patient(t); w.Err() == nil; runtime.Gosched() {
		if ctx.Err() != nil {
			t.Fatal("the wire has not noticed that its device is gone")
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestCapture(t *testing.T) {
	lab := New(t)
	n := must(lab.KernelPair(Link{}))(t)
	var pcap bytes.Buffer
	c := must(n.Kernel.Capture("veth0", CaptureConfig{PCAP: &pcap}))(t)
	small := must(n.Kernel.Capture("veth0", CaptureConfig{MaxPackets: 1}))(t)
	const size = 5000
	transfer(t, n.Kernel, n.Peer, PeerAddresses[0].Addr(), payload(1, size))

	syn := must(c.WaitFor(patient(t), func(p Captured) bool { return p.TCP() != nil && p.TCP().SYN && p.TCP().ACK }))(t)
	if syn.Out || syn.PayloadLen() != 0 || syn.Time.IsZero() {
		t.Errorf("the SYN-ACK: %+v", syn)
	}
	sent := 0
	for _, p := range c.Packets() {
		if p.Out {
			sent += p.PayloadLen()
		}
		if len(p.Data) > defaultSnap || len(p.Data) > p.Length {
			t.Errorf("%d bytes kept of %d", len(p.Data), p.Length)
		}
	}
	if sent != size {
		t.Errorf("saw %d bytes of payload leave, want %d", sent, size)
	}
	rst := func(p Captured) bool { return p.TCP() != nil && p.TCP().RST }
	if got := c.Count(rst); got != 0 {
		t.Errorf("%d RSTs before any", got)
	}
	if conn, err := n.Kernel.DialTCP(patient(t), netip.AddrPortFrom(PeerAddresses[1].Addr(), 1)); err == nil {
		conn.Close()
		t.Fatal("port 1 is open")
	}
	if got := c.Count(rst); got != 1 {
		t.Errorf("%d RSTs for one refused connection", got)
	}
	if len(small.Packets()) != 1 || small.Missed() == 0 || c.Missed() != 0 {
		t.Errorf("small: %d kept, %d missed; large: %d missed", len(small.Packets()), small.Missed(), c.Missed())
	}
	wantPCAP(t, c, &pcap)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.WaitFor(ctx, func(Captured) bool { return false }); err == nil {
		t.Error("WaitFor found what is not there")
	}
	if _, err := n.Kernel.Capture("nothing", CaptureConfig{}); err == nil {
		t.Error("a capture of an unknown device")
	}
}

// wantPCAP closes the capture and reads its file back.
func wantPCAP(t *testing.T, c *Capture, file *bytes.Buffer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	r := must(pcapgo.NewReader(file))(t)
	if r.LinkType() != layers.LinkTypeEthernet {
		t.Errorf("link type %v", r.LinkType())
	}
	for i, p := range c.Packets() {
		data, info, err := r.ReadPacketData()
		if err != nil || !bytes.Equal(data, p.Data) || info.Length != p.Length {
			t.Fatalf("packet %d: %v, %+v", i, err, info)
		}
	}
}

func TestCaptureReportsWriterFailure(t *testing.T) {
	lab := New(t)
	ns := must(lab.Namespace("a"))(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if _, err := ns.Capture("lo", CaptureConfig{PCAP: full}); err == nil {
		t.Error("writing to a full device went well")
	}
}
