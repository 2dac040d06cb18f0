package inmemory

import (
	"bytes"
	"encoding/binary"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp"
)

// EndpointEcho is a byte that comes in a packet, is read from the endpoint,
// written to it, goes out in a packet, and is acknowledged: on one after another
// of n connections.
func EndpointEcho(n int) func(*testing.B) {
	return func(b *testing.B) {
		h := newHost(b)
		defer h.stack.Destroy()
		conns := make([]*hostConn, n)
		for i := range conns {
			conns[i] = h.open(i)
			h.echo(conns[i]) // what a connection allocates at its first use, it keeps
		}
		b.ReportAllocs()
		b.ResetTimer()
		for i := 0; b.Loop(); i++ {
			h.echo(conns[i%n])
		}
	}
}

// Addresses of the host and its peer.
var (
	hostAddress = tcpip.AddrFrom4([4]byte{10, 0, 0, 1})
	peerAddress = tcpip.AddrFrom4([4]byte{10, 1, 0, 0}) // and further on
)

const (
	hostPort = 80
	nic      = 1
)

// host is a stack whose link is the benchmark itself.
type host struct {
	b          *testing.B
	stack      *stack.Stack
	dispatcher stack.NetworkDispatcher
	listener   tcpip.Endpoint
	sent       [header.TCPHeaderMaximumSize]byte // the last segment's header
	packets    int
	reader     bytes.Reader
	writer     tcpip.SliceWriter
	one        [1]byte
}

// hostConn is one connection, as both sides know it.
type hostConn struct {
	ep       tcpip.Endpoint
	peer     tcpip.Address
	port     uint16
	seq, ack uint32
}

func newHost(b *testing.B) *host {
	h := &host{b: b, stack: stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})}
	h.check(h.stack.CreateNIC(nic, (*hostLink)(h)))
	h.check(h.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol:          header.IPv4ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: hostAddress, PrefixLen: 8},
	}, stack.AddressProperties{}))
	h.stack.AddRoute(tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: nic})
	ep, err := h.stack.NewEndpoint(header.TCPProtocolNumber, header.IPv4ProtocolNumber, new(waiter.Queue))
	h.check(err)
	h.check(ep.Bind(tcpip.FullAddress{Port: hostPort}))
	h.check(ep.Listen(16))
	h.listener = ep
	return h
}

func (h *host) check(err tcpip.Error) {
	if err != nil {
		h.b.Helper()
		h.b.Fatal(err)
	}
}

// open makes the ith connection.
func (h *host) open(i int) *hostConn {
	const portsEach = 50_000
	a := peerAddress.As4()
	binary.BigEndian.PutUint16(a[2:], uint16(i/portsEach))
	c := &hostConn{peer: tcpip.AddrFrom4(a), port: uint16(1024 + i%portsEach), seq: 1}
	h.deliver(c, header.TCPFlagSyn, nil)
	c.seq++
	c.ack = header.TCP(h.sent[:]).SequenceNumber() + 1
	h.deliver(c, header.TCPFlagAck, nil)
	var err tcpip.Error
	c.ep, _, err = h.listener.Accept(nil)
	h.check(err)
	return c
}

// echo sends a byte one way and the other.
func (h *host) echo(c *hostConn) {
	h.deliver(c, header.TCPFlagAck|header.TCPFlagPsh, []byte{1})
	c.seq++
	h.writer = h.one[:]
	_, err := c.ep.Read(&h.writer, tcpip.ReadOptions{})
	h.check(err)
	h.reader.Reset(h.one[:])
	before := h.packets
	_, err = c.ep.Write(&h.reader, tcpip.WriteOptions{})
	h.check(err)
	if h.packets == before {
		h.b.Fatal("nothing was sent")
	}
	c.ack++
	h.deliver(c, header.TCPFlagAck, nil)
}

// deliver hands the stack a segment of the peer's.
func (h *host) deliver(c *hostConn, flags header.TCPFlags, data []byte) {
	const headers = header.IPv4MinimumSize + header.TCPMinimumSize
	size := headers + len(data)
	v := buffer.NewViewSize(size)
	p := v.AsSlice()
	ip := header.IPv4(p)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(size), TTL: 64, Protocol: uint8(header.TCPProtocolNumber),
		SrcAddr: c.peer, DstAddr: hostAddress,
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	t := header.TCP(p[header.IPv4MinimumSize:])
	copy(p[headers:], data)
	t.Encode(&header.TCPFields{
		SrcPort: c.port, DstPort: hostPort, SeqNum: c.seq, AckNum: c.ack,
		DataOffset: header.TCPMinimumSize, Flags: flags, WindowSize: 0xffff,
	})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, c.peer, hostAddress, uint16(header.TCPMinimumSize+len(data)))
	t.SetChecksum(^t.CalculateChecksum(checksum.Checksum(data, sum)))
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
	h.dispatcher.DeliverNetworkPacket(header.IPv4ProtocolNumber, pkt)
	pkt.DecRef()
}

// hostLink is the host as its own link.
type hostLink host

var _ stack.LinkEndpoint = (*hostLink)(nil)

// WritePackets implements stack.LinkWriter.
func (l *hostLink) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		copy(l.sent[:], pkt.TransportHeader().Slice())
		l.packets++
	}
	return pkts.Len(), nil
}

// Attach implements stack.NetworkLinkEndpoint.
func (l *hostLink) Attach(d stack.NetworkDispatcher) { l.dispatcher = d }

// The rest of stack.NetworkLinkEndpoint says that there is nothing to it.

func (l *hostLink) IsAttached() bool                           { return l.dispatcher != nil }
func (*hostLink) MTU() uint32                                  { return 1500 }
func (*hostLink) SetMTU(uint32)                                {}
func (*hostLink) MaxHeaderLength() uint16                      { return 0 }
func (*hostLink) LinkAddress() tcpip.LinkAddress               { return "" }
func (*hostLink) SetLinkAddress(tcpip.LinkAddress)             {}
func (*hostLink) Capabilities() stack.LinkEndpointCapabilities { return stack.CapabilityNone }
func (*hostLink) ARPHardwareType() header.ARPHardwareType      { return header.ARPHardwareNone }
func (*hostLink) AddHeader(*stack.PacketBuffer)                {}
func (*hostLink) ParseHeader(*stack.PacketBuffer) bool         { return true }
func (*hostLink) Wait()                                        {}
func (*hostLink) Close()                                       {}
func (*hostLink) SetOnCloseAction(func())                      {}
