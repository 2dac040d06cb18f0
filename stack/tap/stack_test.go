//go:build linux

package tap

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// The two ends of the device in both families: the kernel's and the stack's.
var families = []struct {
	name          string
	kernel, stack netip.Addr
	proto         tcpip.NetworkProtocolNumber
}{
	{"IPv4", netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.2"), header.IPv4ProtocolNumber},
	{"IPv6", netip.MustParseAddr("fd07::1"), netip.MustParseAddr("fd07::2"), header.IPv6ProtocolNumber},
}

// newStack joins the kernel, in a namespace of the test's own, with a stack of
// gVisor's protocols, over a device opened as cfg says.
func newStack(t testing.TB, cfg Config) (*stack.Stack, *Endpoint) {
	t.Helper()
	enterNamespace(t)
	e, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{icmp.NewProtocol4, icmp.NewProtocol6, udp.NewProtocol, tcp.NewProtocol},
	})
	t.Cleanup(func() {
		s.Destroy()
		e.Wait()
	})
	if err := s.CreateNIC(1, e); err != nil {
		t.Fatal(err)
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1}, {Destination: header.IPv6EmptySubnet, NIC: 1}})
	for _, f := range families {
		bits := 24
		if f.kernel.Is6() {
			bits = 64
		}
		addAddress(t, e.Name(), fmt.Sprintf("%s/%d", f.kernel, bits))
		pa := tcpip.ProtocolAddress{
			Protocol:          f.proto,
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(f.stack.AsSlice()), PrefixLen: bits},
		}
		if err := s.AddProtocolAddress(1, pa, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	return s, e
}

// eachWay runs a test over both families, with the offloads, without, and with
// several queues.
func eachWay(t *testing.T, test func(t *testing.T, s *stack.Stack, e *Endpoint, kernel, local netip.Addr, proto tcpip.NetworkProtocolNumber)) {
	for _, f := range families {
		for _, way := range []struct {
			name string
			cfg  Config
		}{
			{"", Config{Name: "tap0"}},
			{" plain", Config{Name: "tap0", NoOffload: true}},
			{" three queues", Config{Name: "tap0", Queues: 3}},
		} {
			t.Run(f.name+way.name, func(t *testing.T) {
				s, e := newStack(t, way.cfg)
				test(t, s, e, f.kernel, f.stack, f.proto)
			})
		}
	}
}

func TestPing(t *testing.T) {
	eachWay(t, func(t *testing.T, s *stack.Stack, e *Endpoint, _, local netip.Addr, _ tcpip.NetworkProtocolNumber) {
		network, request, reply := "ip4:icmp", byte(header.ICMPv4Echo), byte(header.ICMPv4EchoReply)
		if local.Is6() {
			network, request, reply = "ip6:ipv6-icmp", byte(header.ICMPv6EchoRequest), byte(header.ICMPv6EchoReply)
		}
		c, err := net.Dial(network, local.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		buf := make([]byte, 70000)
		for seq, size := range []int{0, 56, 1400, 5000} { // the last in fragments
			msg := append([]byte{request, 0, 0, 0, 0x12, 0x34, 0, byte(seq)}, pattern(size)...)
			if local.Is4() {
				binary.BigEndian.PutUint16(msg[2:], ^checksum.Checksum(msg, 0))
			}
			if _, err := c.Write(msg); err != nil {
				t.Fatal(err)
			}
			for {
				n, _, err := c.(*net.IPConn).ReadFrom(buf) // strips the IPv4 header
				if err != nil {
					t.Fatalf("%d bytes: %v; %+v", size, err, e.Stats())
				}
				// A raw socket hears neighbour discovery as well.
				if buf[0] != reply || buf[7] != byte(seq) {
					continue
				}
				if !bytes.Equal(buf[4:n], msg[4:]) {
					t.Errorf("%d bytes: the echo differs", size)
				}
				break
			}
		}
	})
}

func TestUDPEcho(t *testing.T) {
	eachWay(t, func(t *testing.T, s *stack.Stack, e *Endpoint, _, local netip.Addr, proto tcpip.NetworkProtocolNumber) {
		server, err := gonet.DialUDP(s, &tcpip.FullAddress{Port: 7}, nil, proto)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		go func() {
			buf := make([]byte, 1<<16)
			for {
				n, from, err := server.ReadFrom(buf)
				if err != nil {
					return
				}
				server.WriteTo(buf[:n], from)
			}
		}()
		c, err := net.Dial("udp", netip.AddrPortFrom(local, 7).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		buf := make([]byte, 1<<16)
		// The larger ones are fragmented, by either side.
		for _, size := range []int{0, 1, 100, 1452, 1500, 9000, 60000} {
			msg := pattern(size)
			if _, err := c.Write(msg); err != nil {
				t.Fatal(err)
			}
			n, err := c.Read(buf)
			if err != nil {
				t.Fatalf("%d bytes: %v; %+v", size, err, e.Stats())
			}
			if !bytes.Equal(buf[:n], msg) {
				t.Errorf("%d bytes: the echo differs, %d bytes", size, n)
			}
		}
		if v := s.Stats().UDP.ChecksumErrors.Value(); v != 0 {
			t.Errorf("the stack saw %d checksum errors", v)
		}
		if v := kernelCounter(t, "Udp", "InCsumErrors") + kernelCounter(t, "Udp6", "InCsumErrors"); v != 0 {
			t.Errorf("the kernel saw %d checksum errors", v)
		}
	})
}

// TestBadChecksum sends a datagram with a wrong checksum as one that comes over
// a bridge would: the kernel does not vouch for it, so the stack must look.
// Between datagrams that the kernel vouches for, and in fragments.
func TestBadChecksum(t *testing.T) {
	s, e := newStack(t, Config{Name: "tap0", Address: ourMAC})
	local, kernel := families[0].stack, families[0].kernel
	server, err := gonet.DialUDP(s, &tcpip.FullAddress{Port: 7}, nil, header.IPv4ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := net.Dial("udp", netip.AddrPortFrom(local, 7).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw := newPacketSocket(t, "tap0")
	buf := make([]byte, 4096)
	want := func(msg string) {
		t.Helper()
		server.SetReadDeadline(time.Now().Add(patience))
		n, _, err := server.ReadFrom(buf)
		if err != nil || string(buf[:n]) != msg {
			t.Errorf("got %q, %v, want %q", buf[:n], err, msg)
		}
	}
	bad := func(msg string, fragments int) [][]byte {
		return datagram(kernel, local, 7, msg, 1, fragments)
	}
	good := func(msg string, fragments int) [][]byte {
		return datagram(kernel, local, 7, msg, 0, fragments)
	}
	io.WriteString(c, "vouched for")
	want("vouched for")
	raw.send(t, bad("wrong", 1)...)
	raw.send(t, good("right", 1)...)
	want("right")
	io.WriteString(c, "vouched for again")
	want("vouched for again")
	raw.send(t, bad("wrong, in fragments", 2)...)
	raw.send(t, good("right, in fragments", 2)...)
	want("right, in fragments")
	if v := s.Stats().UDP.ChecksumErrors.Value(); v != 2 {
		t.Errorf("the stack counted %d checksum errors, want 2; %+v", v, e.Stats())
	}
}

// datagram is a UDP datagram over IPv4 in frames, with its checksum off by
// wrong.
func datagram(src, dst netip.Addr, port uint16, msg string, wrong uint16, fragments int) [][]byte {
	from, to := tcpip.AddrFrom4(src.As4()), tcpip.AddrFrom4(dst.As4())
	u := header.UDP(append(make([]byte, header.UDPMinimumSize), msg...))
	u.Encode(&header.UDPFields{SrcPort: 9999, DstPort: port, Length: uint16(len(u))})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, from, to, uint16(len(u)))
	u.SetChecksum(^u.CalculateChecksum(checksum.Checksum([]byte(msg), sum)) + wrong)

	var frames [][]byte
	piece := len(u)
	if fragments > 1 {
		piece = (len(u)/fragments + 7) &^ 7
	}
	for at := 0; at < len(u); at += piece {
		part := u[at:min(at+piece, len(u))]
		ip := header.IPv4(make([]byte, header.IPv4MinimumSize))
		fields := header.IPv4Fields{
			TotalLength: uint16(len(ip) + len(part)), ID: 1000 + wrong, TTL: 64,
			Protocol: uint8(header.UDPProtocolNumber), SrcAddr: from, DstAddr: to, FragmentOffset: uint16(at),
		}
		if at+piece < len(u) {
			fields.Flags = header.IPv4FlagMoreFragments
		}
		ip.Encode(&fields)
		ip.SetChecksum(^ip.CalculateChecksum())
		frame := ethernetFrame(ourMAC, header.IPv4ProtocolNumber, header.EthernetMinimumSize)
		frames = append(frames, append(append(frame, ip...), part...))
	}
	return frames
}

// What TCP carries each way, with the offloads and without.
const (
	transferOffload = 64 << 20
	transferPlain   = 16 << 20
)

// TestTCP moves data both ways between the kernel's TCP and gVisor's, which
// understands host GSO.
func TestTCP(t *testing.T) {
	eachWay(t, func(t *testing.T, s *stack.Stack, e *Endpoint, _, local netip.Addr, proto tcpip.NetworkProtocolNumber) {
		size := transferPlain
		if e.Offload().TSO {
			size = transferOffload
		}
		data := bytes.Repeat(pattern(1<<20), size>>20)
		want := fmt.Sprintf("%x", sha256.Sum256(data))

		l, err := gonet.ListenTCP(s, tcpip.FullAddress{Port: 80}, proto)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		type result struct {
			sum string
			n   int64
			err error
		}
		served := make(chan result, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				served <- result{err: err}
				return
			}
			defer c.Close()
			h := sha256.New()
			n, err := io.Copy(h, c)
			if err == nil {
				_, err = c.Write(data)
			}
			served <- result{fmt.Sprintf("%x", h.Sum(nil)), n, err}
		}()
		c, err := net.Dial("tcp", netip.AddrPortFrom(local, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * patience))

		before := e.Stats()
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		n, err := io.Copy(h, c)
		if got := fmt.Sprintf("%x", h.Sum(nil)); err != nil || got != want {
			t.Errorf("download: %d bytes, %v, digest %s, want %s", n, err, got, want)
		}
		if r := <-served; r.err != nil || r.sum != want {
			t.Errorf("upload: %d bytes, %v, digest %s, want %s", r.n, r.err, r.sum, want)
		}
		after := e.Stats()
		rx := (after.RxBytes - before.RxBytes) / (after.RxFrames - before.RxFrames)
		tx := (after.TxBytes - before.TxBytes) / (after.TxFrames - before.TxFrames)
		t.Logf("mean frame: %d bytes in, %d out; %+v", rx, tx, after)
		if large := e.Offload().TSO; large != (rx > 3000) || large != (tx > 3000) {
			t.Errorf("mean frame is %d bytes in, %d out, with TSO: %v", rx, tx, large)
		}
		if v := s.Stats().TCP.ChecksumErrors.Value(); v != 0 {
			t.Errorf("the stack saw %d checksum errors", v)
		}
		if v := kernelCounter(t, "Tcp", "InCsumErrors"); v != 0 {
			t.Errorf("the kernel saw %d checksum errors", v)
		}
		if drops := after.TxRejected + after.TxMalformed + after.RxBadHeader + after.RxShort + after.RxTruncated; drops != 0 {
			t.Errorf("dropped %d: %+v", drops, after)
		}
	})
}

// kernelCounter reads a counter of the test's network namespace.
func kernelCounter(t *testing.T, proto, name string) uint64 {
	t.Helper()
	for _, file := range []string{"snmp", "snmp6"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			switch {
			case len(f) == 2 && f[0] == proto+name:
				return parseCounter(t, f[1])
			case len(f) == 0 || f[0] != proto+":":
			case names == nil:
				names = f
			default:
				for i := range names {
					if names[i] == name {
						return parseCounter(t, f[i])
					}
				}
			}
		}
	}
	t.Fatalf("the kernel has no counter %s %s", proto, name)
	return 0
}

func parseCounter(t *testing.T, s string) uint64 {
	t.Helper()
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestDestroyUnderTraffic destroys a stack that is being flooded.
func TestDestroyUnderTraffic(t *testing.T) {
	for range 10 {
		s, e := newStack(t, Config{Name: "tap%d"})
		c, err := net.Dial("udp", netip.AddrPortFrom(families[0].stack, 9).String())
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					c.Write([]byte("port unreachable, please"))
				}
			}
		}()
		eventually(t, "traffic flows", func() bool { return e.Stats().RxFrames > 100 })
		s.Destroy()
		e.Wait()
		close(stop)
		<-done
		c.Close()
	}
}
