//go:build linux

package tap

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// vnetHeaderSize is the size of the header before every frame: Linux's struct
// virtio_net_hdr without the num_buffers field.
const vnetHeaderSize = 10

// Values of struct virtio_net_hdr's fields, from linux/virtio_net.h.
const (
	vnetNeedsCsum = 1 // flags: the checksum at csum_start+csum_offset is to be completed
	vnetDataValid = 2 // flags: the checksum has been verified

	vnetGSONone  = 0
	vnetGSOTCPv4 = 1
	vnetGSOTCPv6 = 4
	vnetGSOECN   = 0x80 // modifier of a TCP type: the first piece carries CWR
)

// The least a frame of a TCP packet holds besides its link header.
const (
	minTCPv4Headers = header.IPv4MinimumSize + header.TCPMinimumSize
	minTCPv6Headers = header.IPv6MinimumSize + header.TCPMinimumSize
)

// vnetHeader is a struct virtio_net_hdr: what a frame leaves for the other
// side to do, or what the other side vouches for.
type vnetHeader struct {
	flags      uint8
	gsoType    uint8
	hdrLen     uint16 // bytes of headers, link header included; a hint
	gsoSize    uint16 // bytes of payload in each piece but the last
	csumStart  uint16 // where summing starts, from the frame's first byte
	csumOffset uint16 // where the sum goes, from csumStart
}

// encode writes h into b, which holds at least vnetHeaderSize bytes, in the
// byte order that TUNSETVNETLE selects.
func (h *vnetHeader) encode(b []byte) {
	_ = b[vnetHeaderSize-1]
	b[0] = h.flags
	b[1] = h.gsoType
	binary.LittleEndian.PutUint16(b[2:], h.hdrLen)
	binary.LittleEndian.PutUint16(b[4:], h.gsoSize)
	binary.LittleEndian.PutUint16(b[6:], h.csumStart)
	binary.LittleEndian.PutUint16(b[8:], h.csumOffset)
}

// decodeVnetHeader reads a header from b, which holds at least vnetHeaderSize
// bytes. Nothing about the values is known until check has passed them.
func decodeVnetHeader(b []byte) vnetHeader {
	_ = b[vnetHeaderSize-1]
	return vnetHeader{
		flags:      b[0],
		gsoType:    b[1],
		hdrLen:     binary.LittleEndian.Uint16(b[2:]),
		gsoSize:    binary.LittleEndian.Uint16(b[4:]),
		csumStart:  binary.LittleEndian.Uint16(b[6:]),
		csumOffset: binary.LittleEndian.Uint16(b[8:]),
	}
}

// check reports whether h can be the header of a frame of frameLen bytes,
// link header included, with EtherType proto. A frame whose header lies about
// it is not to be looked at any further.
func (h *vnetHeader) check(frameLen int, proto tcpip.NetworkProtocolNumber) bool {
	if h.flags&vnetNeedsCsum != 0 {
		// The checksum is behind a network header and inside the frame.
		start := int(h.csumStart)
		if start < header.EthernetMinimumSize+header.IPv4MinimumSize ||
			start+int(h.csumOffset)+2 > frameLen {
			return false
		}
	}
	var minHeaders int
	switch h.gsoType &^ vnetGSOECN {
	case vnetGSONone:
		return h.gsoType == vnetGSONone
	case vnetGSOTCPv4:
		if proto != header.IPv4ProtocolNumber {
			return false
		}
		minHeaders = header.EthernetMinimumSize + minTCPv4Headers
	case vnetGSOTCPv6:
		if proto != header.IPv6ProtocolNumber {
			return false
		}
		minHeaders = header.EthernetMinimumSize + minTCPv6Headers
	default:
		// UDP fragmentation and segmentation were never asked for.
		return false
	}
	// hdr_len may be longer than the headers are, but not than the frame; and
	// it may be unset.
	return h.gsoSize != 0 && frameLen > minHeaders && int(h.hdrLen) <= frameLen
}

// trusted reports whether the checksums of the frame's payload need no
// verification: they are still to be computed, by a sender on this machine, or
// the kernel has verified them.
func (h *vnetHeader) trusted() bool {
	return h.flags&(vnetNeedsCsum|vnetDataValid) != 0
}

// outboundHeader is the header for pkt, whose headers are all in place. It is
// the zero header, a plain frame, unless the transport protocol left the
// checksum partial, which it says with pkt.GSOOptions. ok is false when those
// options do not fit the packet.
func outboundHeader(pkt *stack.PacketBuffer) (h vnetHeader, ok bool) {
	gso := &pkt.GSOOptions
	if gso.Type == stack.GSONone {
		return h, true
	}
	transport := pkt.TransportHeader().Slice()
	if len(transport) < header.TCPMinimumSize || int(gso.CsumOffset)+2 > len(transport) {
		return h, false
	}
	// The network header's real length counts, not the one in the options: it
	// may carry IPv6 extension headers.
	start := len(pkt.LinkHeader().Slice()) + len(pkt.NetworkHeader().Slice())
	if gso.NeedsCsum {
		h.flags = vnetNeedsCsum
		h.csumStart = uint16(start)
		h.csumOffset = gso.CsumOffset
	}
	if pkt.Data().Size() <= int(gso.MSS) {
		return h, true
	}
	switch gso.Type {
	case stack.GSOTCPv4:
		h.gsoType = vnetGSOTCPv4
	case stack.GSOTCPv6:
		h.gsoType = vnetGSOTCPv6
	default:
		return h, false
	}
	if gso.MSS == 0 || !gso.NeedsCsum {
		// Cutting a packet changes its checksum, so the two go together.
		return h, false
	}
	if header.TCP(transport).Flags()&header.TCPFlagCwr != 0 {
		h.gsoType |= vnetGSOECN
	}
	h.gsoSize = gso.MSS
	h.hdrLen = uint16(start + len(transport))
	return h, true
}
