package repair

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// coreReader takes a core apart. It goes on reading zeros where there are no
// more bytes; bad says that something was wrong.
type coreReader struct {
	b   []byte
	bad bool
}

// coreLengths is what a core says of what follows it.
type coreLengths struct {
	extra                       bool
	send, recv, blobs, children int
}

func (c *coreReader) take(n int) []byte {
	if n > len(c.b) {
		c.bad, c.b = true, nil
		return make([]byte, n) // at most 255
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *coreReader) u8() uint8   { return c.take(1)[0] }
func (c *coreReader) u16() uint16 { return binary.BigEndian.Uint16(c.take(2)) }
func (c *coreReader) u32() uint32 { return binary.BigEndian.Uint32(c.take(4)) }

func (c *coreReader) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

// v32 reads a varint of no more than 32 bits.
func (c *coreReader) v32() uint32 {
	v := c.uvarint()
	if v > math.MaxUint32 {
		c.bad = true
	}
	return uint32(v)
}

// delta reads how far one number is from another.
func (c *coreReader) delta() uint32 {
	v := unzigzag(c.uvarint())
	if v != int64(int32(v)) {
		c.bad = true
	}
	return uint32(v)
}

// core reads all of a core into s, and checks the lengths it tells.
func (c *coreReader) core(s *Snapshot, l Limits, child bool) (lens coreLengths, err error) {
	flags := c.uvarint()
	s.State = State(c.u8())
	s.Local = c.addr()
	s.Remote = c.addr()
	s.SendSeq, s.RecvSeq = c.u32(), c.u32()
	send, unsent, recv, blobs, children := c.uvarint(), c.uvarint(), c.uvarint(), c.uvarint(), c.uvarint()
	s.Options.MSS = c.u16()
	s.Options.SendScale, s.Options.RecvScale = c.u8(), c.u8()
	s.Timestamp = c.u32()
	w := &s.Window
	w.SndWl1, w.RcvWup = s.RecvSeq+c.delta(), s.RecvSeq+c.delta()
	w.RcvWnd, w.SndWnd = c.v32(), c.v32()
	w.MaxWindow = w.SndWnd + c.delta()
	fields := s.flags(&lens.extra)
	limit := uint64(min(l.Queue, MaxQueue))
	switch {
	case c.bad || len(c.b) != 0 || flags>>len(fields) != 0:
		return lens, invalid("the core of the snapshot is malformed")
	case send > limit:
		return lens, invalid("the send queue of %d bytes is larger than the limit of %d", send, limit)
	case recv > limit:
		return lens, invalid("the receive queue of %d bytes is larger than the limit of %d", recv, limit)
	case blobs > limit:
		return lens, invalid("the held data of %d bytes is larger than the limit of %d", blobs, limit)
	case unsent > send:
		return lens, invalid("%d bytes of a send queue of %d are said to be unsent", unsent, send)
	case child && children != 0:
		return lens, invalid("a child cannot have children")
	case children > uint64(l.Children):
		return lens, invalid("%d children are more than the limit of %d", children, l.Children)
	}
	for i, field := range fields {
		*field = flags>>i&1 != 0
	}
	s.Unsent = int(unsent)
	lens.send, lens.recv, lens.blobs, lens.children = int(send), int(recv), int(blobs), int(children)
	return lens, nil
}

// addr reads an address as appendAddr writes it.
func (c *coreReader) addr() netip.AddrPort {
	var addr netip.Addr
	switch kind := c.u8(); kind {
	case addrNone:
		return netip.AddrPort{}
	case addrIPv4:
		addr = netip.AddrFrom4([4]byte(c.take(4)))
	case addrIPv6, addrZoned:
		addr = netip.AddrFrom16([16]byte(c.take(16)))
		if kind == addrZoned {
			addr = addr.WithZone(string(c.take(int(c.u8()))))
		}
	default:
		c.bad = true
	}
	return netip.AddrPortFrom(addr, c.u16())
}
