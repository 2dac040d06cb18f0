package netlab

import (
	"encoding/binary"
	"errors"
)

// What a virtio_net_hdr says (virtio 1.2, 5.1.6), as far as the kernel uses it.
const (
	vnetHeaderLen     = 10
	vnetNeedsChecksum = 1
	vnetGSONone       = 0
	vnetGSOTCPv4      = 1
	vnetGSOTCPv6      = 4
	vnetGSOECN        = 0x80
)

const (
	ethernetLen = 14
	ipv6Len     = 40
	// maxIPOptions bounds what stands between the fixed IP header and TCP's:
	// headers are copied to each segment.
	maxIPOptions = 256
	protocolTCP  = 6

	tcpFlagFIN = 0x01
	tcpFlagPSH = 0x08
	tcpFlagCWR = 0x80
)

var errBadOffload = errors.New("netlab: a frame does not match its offload header")

// vnetHeader is a virtio_net_hdr in the machine's byte order.
type vnetHeader struct {
	flags, gsoType            byte
	gsoSize                   uint16
	checksumStart, checksumAt uint16 // checksumAt counts from checksumStart
}

func parseVnetHeader(b []byte) vnetHeader {
	return vnetHeader{
		flags:         b[0],
		gsoType:       b[1],
		gsoSize:       binary.NativeEndian.Uint16(b[4:]),
		checksumStart: binary.NativeEndian.Uint16(b[6:]),
		checksumAt:    binary.NativeEndian.Uint16(b[8:]),
	}
}

// completeFrames does what the sender left to its hardware: it fills in the
// checksum and cuts a TCP super-frame into segments, so that what goes over
// the wire is what would go over a cable. Each frame is handed to emit, which
// must not keep it.
func completeFrames(h vnetHeader, frame []byte, emit func(frame []byte)) error {
	if h.gsoType == vnetGSONone {
		if h.flags&vnetNeedsChecksum != 0 && !fillChecksum(h, frame) {
			return errBadOffload
		}
		emit(frame)
		return nil
	}
	s, ok := newSegmenter(h, frame)
	if !ok {
		return errBadOffload
	}
	s.run(emit)
	return nil
}

// fillChecksum completes a checksum whose field holds the pseudo-header's sum.
func fillChecksum(h vnetHeader, frame []byte) bool {
	start := int(h.checksumStart)
	field := start + int(h.checksumAt)
	if start > len(frame) || field+2 > len(frame) {
		return false
	}
	sum := ^fold(sum16(0, frame[start:]))
	if sum == 0 {
		sum = 0xffff // the same number, and UDP's 0 means "none"
	}
	binary.BigEndian.PutUint16(frame[field:], sum)
	return true
}

// segmenter cuts one TCP super-frame.
type segmenter struct {
	header  []byte // Ethernet, IP and TCP headers
	payload []byte
	tcp     int // offset of the TCP header
	v4      bool
	size    int // payload of a segment
}

func newSegmenter(h vnetHeader, frame []byte) (*segmenter, bool) {
	s := &segmenter{tcp: int(h.checksumStart), size: int(h.gsoSize)}
	etherType := uint16(0)
	if len(frame) >= ethernetLen {
		etherType = binary.BigEndian.Uint16(frame[12:])
	}
	minimum := 0
	switch h.gsoType &^ vnetGSOECN {
	case vnetGSOTCPv4:
		s.v4 = true
		minimum = ethernetLen + 20
		if etherType != 0x0800 {
			return nil, false
		}
	case vnetGSOTCPv6:
		minimum = ethernetLen + ipv6Len
		if etherType != 0x86dd {
			return nil, false
		}
	default:
		return nil, false
	}
	if s.size == 0 || s.tcp < minimum || s.tcp > minimum+maxIPOptions || s.tcp+20 > len(frame) {
		return nil, false
	}
	if s.v4 && s.tcp != ethernetLen+int(frame[ethernetLen]&0xf)*4 {
		return nil, false
	}
	end := s.tcp + int(frame[s.tcp+12]>>4)*4
	if end < s.tcp+20 || end > len(frame) {
		return nil, false
	}
	s.header, s.payload = frame[:end], frame[end:]
	return s, true
}

func (s *segmenter) run(emit func([]byte)) {
	buf := make([]byte, 0, len(s.header)+s.size)
	seq := binary.BigEndian.Uint32(s.header[s.tcp+4:])
	for i, at := 0, 0; at < len(s.payload) || i == 0; i++ {
		n := min(s.size, len(s.payload)-at)
		buf = append(append(buf[:0], s.header...), s.payload[at:at+n]...)
		tcp := buf[s.tcp:]
		binary.BigEndian.PutUint32(tcp[4:], seq+uint32(at))
		at += n
		if at < len(s.payload) {
			tcp[13] &^= tcpFlagFIN | tcpFlagPSH
		}
		if i > 0 {
			tcp[13] &^= tcpFlagCWR // https://www.rfc-editor.org/rfc/rfc3168#section-6.1.2
		}
		s.finish(buf, uint16(i))
		emit(buf)
	}
}

// finish sets lengths, IPv4 identification and checksums of a cut segment.
func (s *segmenter) finish(frame []byte, i uint16) {
	ip := frame[ethernetLen:]
	tcp := frame[s.tcp:]
	var addresses []byte
	if s.v4 {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[4:], binary.BigEndian.Uint16(ip[4:])+i)
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], ^fold(sum16(0, ip[:s.tcp-ethernetLen])))
		addresses = ip[12:20]
	} else {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-ipv6Len))
		addresses = ip[8:40]
	}
	binary.BigEndian.PutUint16(tcp[16:], 0)
	pseudo := sum16(protocolTCP+uint32(len(tcp)), addresses)
	binary.BigEndian.PutUint16(tcp[16:], ^fold(sum16(pseudo, tcp)))
}

// sum16 adds b's big-endian words (the last one padded) to an unfolded
// Internet checksum. https://www.rfc-editor.org/rfc/rfc1071
func sum16(sum uint32, b []byte) uint32 {
	for len(b) >= 2 {
		sum += uint32(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
