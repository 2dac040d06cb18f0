//go:build linux

package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// testProto is an EtherType for local experiments, which no protocol of either
// side touches. IEEE 802.
const testProto tcpip.NetworkProtocolNumber = 0x88b5

// packetSocket is the kernel's side of a device as a raw socket, for frames of
// the test protocol and, when sending, any others.
type packetSocket struct {
	fd int
	to unix.SockaddrLinklayer
}

func newPacketSocket(t testing.TB, name string) *packetSocket {
	t.Helper()
	proto := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, uint16(testProto)))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		t.Fatalf("packet socket: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	p := &packetSocket{fd, unix.SockaddrLinklayer{Protocol: proto, Ifindex: link(t, name).Attrs().Index}}
	if err := unix.Bind(fd, &p.to); err != nil {
		t.Fatalf("bind the packet socket: %v", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience / time.Second)}); err != nil {
		t.Fatal(err)
	}
	return p
}

// send sends frames, whatever their protocol.
func (p *packetSocket) send(t testing.TB, frames ...[]byte) {
	t.Helper()
	for _, f := range frames {
		err := error(unix.EINTR)
		for err == unix.EINTR {
			err = unix.Sendto(p.fd, f, 0, &p.to)
		}
		if err != nil {
			t.Fatalf("send %d bytes: %v", len(f), err)
		}
	}
}

// receive is the next frame of the test protocol, in buf.
func (p *packetSocket) receive(t testing.TB, buf []byte) []byte {
	t.Helper()
	n, err := 0, error(unix.EINTR)
	for err == unix.EINTR {
		n, _, err = unix.Recvfrom(p.fd, buf, 0)
	}
	if err != nil {
		t.Fatalf("no frame came out: %v", err)
	}
	return buf[:n]
}

// collector is a dispatcher that keeps the test protocol's frames.
type collector struct {
	c chan []byte
}

func newCollector() *collector { return &collector{make(chan []byte, 1000)} }

func (c *collector) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	if proto != testProto {
		return
	}
	v := pkt.ToView()
	defer v.Release()
	select {
	case c.c <- v.ToSlice():
	default:
		// More than any test looks at.
	}
}
func (*collector) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// next is the next frame that was delivered.
func (c *collector) next(t *testing.T) []byte {
	t.Helper()
	select {
	case b := <-c.c:
		return b
	case <-time.After(patience):
		t.Fatal("no frame was delivered")
		return nil
	}
}

// outbound is a packet of the test protocol whose payload is data, in pieces of
// at most piece bytes, with its link header.
func outbound(e *Endpoint, dst tcpip.LinkAddress, data []byte, piece int) *stack.PacketBuffer {
	var payload buffer.Buffer
	for len(data) > 0 {
		n := min(piece, len(data))
		payload.Append(buffer.NewViewWithData(data[:n]))
		data = data[n:]
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(e.MaxHeaderLength()),
		Payload:            payload,
	})
	pkt.NetworkProtocolNumber = testProto
	pkt.EgressRoute.RemoteLinkAddress = dst
	e.AddHeader(pkt)
	return pkt
}

// send writes pkts and lets go of them.
func send(e *Endpoint, pkts ...*stack.PacketBuffer) (int, tcpip.Error) {
	var list stack.PacketBufferList
	for _, p := range pkts {
		list.PushBack(p)
	}
	defer list.DecRef()
	return e.WritePackets(list)
}

// bothModes runs a test with the offloads and without.
func bothModes(t *testing.T, test func(t *testing.T, cfg Config)) {
	t.Run("offload", func(t *testing.T) { test(t, Config{Name: "tap0", MTU: 9000, Address: ourMAC}) })
	t.Run("plain", func(t *testing.T) { test(t, Config{Name: "tap0", MTU: 9000, Address: ourMAC, NoOffload: true}) })
}

func TestFramesIn(t *testing.T) {
	bothModes(t, func(t *testing.T, cfg Config) {
		enterNamespace(t)
		e := openTAP(t, cfg)
		c := newCollector()
		e.Attach(c)
		raw := newPacketSocket(t, "tap0")
		for _, n := range []int{14, 60, 300, 1514, 9000} {
			frame := ethernetFrame(ourMAC, testProto, n)
			raw.send(t, frame)
			if got := c.next(t); !bytes.Equal(got, frame) {
				t.Errorf("%d bytes: %d came, or others", n, len(got))
			}
		}
		for _, dst := range []tcpip.LinkAddress{header.EthernetBroadcastAddress, "\x01\x00\x5e\x00\x00\x01"} {
			frame := ethernetFrame(dst, testProto, 60)
			raw.send(t, frame)
			if got := c.next(t); !bytes.Equal(got, frame) {
				t.Errorf("to %s: not what was sent", dst)
			}
		}
		raw.send(t, ethernetFrame(otherMAC, testProto, 60))
		eventually(t, "a frame for another host is counted", func() bool { return e.Stats().RxOtherHost == 1 })
		if s := e.Stats(); s.RxFrames < 7 || s.RxBytes < 14+60+300+1514+9000+2*60 {
			t.Errorf("counted %+v", s)
		}
	})
}

func TestFramesOut(t *testing.T) {
	bothModes(t, func(t *testing.T, cfg Config) {
		enterNamespace(t)
		e := openTAP(t, cfg)
		mac := tcpip.LinkAddress(link(t, "tap0").Attrs().HardwareAddr)
		raw := newPacketSocket(t, "tap0")
		buf := make([]byte, 70000)
		for _, tt := range []struct{ size, piece int }{
			{0, 1}, {46, 46}, {1500, 1500}, {1500, 100}, {9000, 512},
			{65535, 64}, // more pieces than writev takes
			{65535, 16384},
		} {
			data := pattern(tt.size)
			if n, err := send(e, outbound(e, mac, data, tt.piece)); n != 1 || err != nil {
				t.Fatalf("%+v: sent %d, %v", tt, n, err)
			}
			eth := header.Ethernet(raw.receive(t, buf))
			if eth.SourceAddress() != ourMAC || eth.DestinationAddress() != mac || eth.Type() != testProto || !bytes.Equal(eth[14:], data) {
				t.Errorf("%+v: another frame came out, of %d bytes", tt, len(eth))
			}
		}

		// A batch goes out in order, and a packet that cannot be sent does not
		// hold up the others.
		bad := outbound(e, mac, pattern(70000), 1<<16)
		n, err := send(e, outbound(e, mac, []byte("one"), 10), bad, outbound(e, mac, []byte("two"), 10))
		if _, ok := err.(*tcpip.ErrMalformedHeader); n != 2 || !ok {
			t.Errorf("batch: sent %d, %v", n, err)
		}
		for _, want := range []string{"one", "two"} {
			if got := raw.receive(t, buf)[14:]; string(got) != want {
				t.Errorf("batch: got %q, want %q", got, want)
			}
		}
		if s := e.Stats(); s.TxFrames != 9 || s.TxMalformed != 1 || s.TxRejected != 0 {
			t.Errorf("counted %+v", s)
		}
	})
}

// TestGSOWithoutHeader checks that a packet for the kernel to finish is not
// sent unfinished where the kernel cannot.
func TestGSOWithoutHeader(t *testing.T) {
	enterNamespace(t)
	e := openTAP(t, Config{NoOffload: true})
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 100})
	header.TCP(pkt.TransportHeader().Push(header.TCPMinimumSize)).Encode(&header.TCPFields{DataOffset: header.TCPMinimumSize})
	pkt.NetworkHeader().Push(header.IPv4MinimumSize)
	e.AddHeader(pkt)
	pkt.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, CsumOffset: header.TCPChecksumOffset, MSS: 1000}
	if n, err := send(e, pkt); n != 0 || err == nil || e.Stats().TxMalformed != 1 {
		t.Errorf("sent %d, %v: %+v", n, err, e.Stats())
	}
}

func TestDeviceDownAndUp(t *testing.T) {
	enterNamespace(t)
	e := openTAP(t, Config{Name: "tap0", Address: ourMAC})
	c := newCollector()
	e.Attach(c)
	frame := func() *stack.PacketBuffer { return outbound(e, header.EthernetBroadcastAddress, []byte("x"), 1) }
	if err := netlink.LinkSetDown(link(t, "tap0")); err != nil {
		t.Fatal(err)
	}
	n, err := send(e, frame())
	if _, ok := err.(*tcpip.ErrNetworkUnreachable); n != 0 || !ok || e.Stats().TxDown != 1 {
		t.Errorf("down: sent %d, %v: %+v", n, err, e.Stats())
	}
	if err := netlink.LinkSetUp(link(t, "tap0")); err != nil {
		t.Fatal(err)
	}
	if n, err := send(e, frame()); n != 1 || err != nil {
		t.Errorf("up again: sent %d, %v", n, err)
	}
	raw := newPacketSocket(t, "tap0")
	raw.send(t, ethernetFrame(ourMAC, testProto, 60))
	c.next(t)
	if e.Err() != nil {
		t.Errorf("failed: %v", e.Err())
	}
}

func TestDeviceRemoved(t *testing.T) {
	for _, attached := range []bool{false, true} {
		enterNamespace(t)
		e := openTAP(t, Config{Name: "tap0"})
		if attached {
			e.Attach(newCollector())
		}
		if err := netlink.LinkDel(link(t, "tap0")); err != nil {
			t.Fatal(err)
		}
		n, err := send(e, outbound(e, header.EthernetBroadcastAddress, []byte("x"), 1))
		if _, ok := err.(*tcpip.ErrClosedForSend); n != 0 || !ok || e.Stats().TxClosed != 1 {
			t.Errorf("sent %d, %v: %+v", n, err, e.Stats())
		}
		if !attached {
			e.Attach(newCollector())
		}
		select {
		case <-e.Done():
		case <-time.After(patience):
			t.Fatal("nobody noticed")
		}
		if !errors.Is(e.Err(), ErrGone) {
			t.Errorf("attached %v: failed with %v, want %v", attached, e.Err(), ErrGone)
		}
		e.Wait()
		e.Close()
	}
}

func TestClose(t *testing.T) {
	enterNamespace(t)
	e := openTAP(t, Config{Name: "tap0"})
	e.Wait() // nothing runs yet
	e.Attach(newCollector())
	if !e.IsAttached() {
		t.Error("not attached")
	}
	acted := 0
	e.SetOnCloseAction(func() { acted++ })
	e.Close()
	e.Wait()
	e.Close()
	<-e.Done()
	if e.Err() != nil || acted != 1 {
		t.Errorf("error %v, %d actions", e.Err(), acted)
	}
	n, err := send(e, outbound(e, header.EthernetBroadcastAddress, []byte("x"), 1))
	if _, ok := err.(*tcpip.ErrClosedForSend); n != 0 || !ok {
		t.Errorf("sent %d after Close, %v", n, err)
	}
	e.Attach(newCollector()) // of no use, and no harm
	e.Wait()
}

// TestReattach stops reading and starts it again, for another dispatcher.
func TestReattach(t *testing.T) {
	enterNamespace(t)
	e := openTAP(t, Config{Name: "tap0", Address: ourMAC})
	raw := newPacketSocket(t, "tap0")
	for range 5 {
		c := newCollector()
		e.Attach(c)
		raw.send(t, ethernetFrame(ourMAC, testProto, 60))
		c.next(t)
		e.Attach(nil)
		e.Wait()
		if e.IsAttached() {
			t.Error("attached to nothing")
		}
	}
	// Without waiting in between, the last dispatcher has the device. A reader
	// that is being stopped may still swallow a frame.
	for range 100 {
		e.Attach(newCollector())
		e.Attach(nil)
	}
	c := newCollector()
	e.Attach(c)
	eventually(t, "the last dispatcher has the device", func() bool {
		raw.send(t, ethernetFrame(ourMAC, testProto, 60))
		return len(c.c) > 0
	})
}

// TestDetachDuringDelivery is what a stack does that is destroyed under
// traffic: it detaches the endpoint and waits for it with a lock held that the
// delivery in progress is waiting for.
func TestDetachDuringDelivery(t *testing.T) {
	enterNamespace(t)
	e := openTAP(t, Config{Name: "tap0", Address: ourMAC})
	raw := newPacketSocket(t, "tap0")
	var stackLock sync.Mutex
	entered := make(chan bool)
	stackLock.Lock()
	e.Attach(dispatcher(func(pkt *stack.PacketBuffer) {
		if pkt.NetworkProtocolNumber == testProto {
			entered <- true
			stackLock.Lock()
			defer stackLock.Unlock()
		}
	}))
	raw.send(t, ethernetFrame(ourMAC, testProto, 60))
	<-entered
	e.Attach(nil)
	e.Wait()
	stackLock.Unlock()
	e.Close()
	eventually(t, "the reader ends", func() bool {
		select {
		case <-e.attached.done:
			return true
		default:
			return false
		}
	})
}

// TestCloseDuringWrites closes under many writers; the race detector and the
// kernel watch.
func TestCloseDuringWrites(t *testing.T) {
	enterNamespace(t)
	e := openTAP(t, Config{Name: "tap0"})
	e.Attach(newCollector())
	var wg sync.WaitGroup
	var started sync.WaitGroup
	for range 4 {
		started.Add(1)
		wg.Go(func() {
			for first := true; ; first = false {
				_, err := send(e, outbound(e, header.EthernetBroadcastAddress, pattern(1000), 100))
				if first {
					started.Done()
				}
				if _, closed := err.(*tcpip.ErrClosedForSend); closed {
					return
				}
			}
		})
	}
	started.Wait()
	e.Close()
	wg.Wait()
	e.Wait()
	if _, err := net.InterfaceByName("tap0"); err == nil {
		eventually(t, "the device goes", func() bool {
			_, err := net.InterfaceByName("tap0")
			return err != nil
		})
	}
}
