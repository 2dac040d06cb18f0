package repair

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"net/netip"
	"reflect"
	"slices"
)

// The binary form, all integers big-endian:
//
//	magic    6 bytes
//	version  2 bytes
//	body
//	CRC-32C  4 bytes, of all the above
//
// and a body is
//
//	2 bytes  length of the core
//	4 bytes  length of the extra part
//	core     as appendCore writes it
//	extra    fields with numbers (extra.go)
//	bytes    send queue, receive queue, and what the extra part refers to
//	bodies   of the children
//
// A version is one way to write a core. The extra part grows without a new
// version, because what is unknown in it is skipped.
const (
	magic = "\x89USNAP"
	// Version is the newest version of the binary form that this package reads,
	// and the one that it writes.
	Version = 1
	// maxCore is more than the longest core takes.
	maxCore = 1024
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// flags are the fields of a core that take one bit, from the lowest on; extra
// is whether there is an extra part.
func (s *Snapshot) flags(extra *bool) [11]*bool {
	return [...]*bool{
		&s.FINQueued, &s.FINSent, &s.FINAcked, &s.FINReceived, &s.Options.Scaling, &s.Options.SACK,
		&s.Options.Timestamps, &s.TimestampMicros, &s.NoDelay, &s.Cork, extra,
	}
}

// WriteTo writes the Snapshot in its binary form. The queues are written as
// they lie, piece by piece. What can be written is bounded only by MaxQueue
// for each queue; nothing else is validated. Several may follow each other in
// one stream.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	if err := s.encodable(false); err != nil {
		return 0, err
	}
	e := encoder{w: w}
	e.buf = append(make([]byte, 0, 512), magic...)
	e.buf = binary.BigEndian.AppendUint16(e.buf, Version)
	e.body(s)
	e.flush()
	e.buf = binary.BigEndian.AppendUint32(e.buf, e.crc)
	e.flush()
	return e.n, e.err
}

// encodable refuses what the form has no room for.
func (s *Snapshot) encodable(child bool) error {
	n := s.SendQueue.Len()
	switch {
	case n > MaxQueue || s.RecvQueue.Len() > MaxQueue:
		return invalid("a queue is larger than %d bytes", MaxQueue)
	case s.Unsent < 0 || s.Unsent > n:
		return invalid("%d bytes of a send queue of %d are said to be unsent", s.Unsent, n)
	case len(s.Local.Addr().Zone()) > maxZone || len(s.Remote.Addr().Zone()) > maxZone:
		return invalid("an address has a zone of more than %d bytes", maxZone)
	case child && len(s.Children) > 0:
		return invalid("a child cannot have children")
	}
	for _, c := range s.Children {
		if c == nil {
			return invalid("there is no child where one should be")
		}
		if err := c.encodable(true); err != nil {
			return err
		}
	}
	return nil
}

// encoder writes what has gathered in buf, and counts and sums up what it has
// written.
type encoder struct {
	w   io.Writer
	buf []byte
	crc uint32
	n   int64
	err error

	bases   bases // of the body's core
	blobs   Bytes // what the extra part in buf refers to
	blobLen int
}

func (e *encoder) flush() {
	e.write(e.buf)
	e.buf = e.buf[:0]
}

func (e *encoder) write(p []byte) {
	if e.err != nil || len(p) == 0 {
		return
	}
	e.crc = crc32.Update(e.crc, castagnoli, p)
	n, err := e.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	e.n, e.err = e.n+int64(n), err
}

// body writes one body; its small parts may stay in buf.
func (e *encoder) body(s *Snapshot) {
	// The core tells how much the extra part refers to, so that is made first.
	start := len(e.buf)
	e.bases, e.blobs, e.blobLen = s.bases(), nil, 0
	if s.Extra != nil {
		e.extra(reflect.ValueOf(s.Extra).Elem(), extraPlan)
	}
	var room [maxCore]byte
	core := appendCore(room[:0], s, e.blobLen)
	var lengths [6]byte
	binary.BigEndian.PutUint16(lengths[:], uint16(len(core)))
	binary.BigEndian.PutUint32(lengths[2:], uint32(len(e.buf)-start))
	e.buf = slices.Insert(e.buf, start, append(lengths[:], core...)...)
	for _, q := range []Bytes{s.SendQueue, s.RecvQueue, e.blobs} {
		if q.Len() == 0 {
			continue
		}
		e.flush()
		for _, p := range q {
			e.write(p)
		}
	}
	for _, c := range s.Children {
		if len(e.buf) > piece {
			e.flush()
		}
		e.body(c)
	}
}

func appendCore(b []byte, s *Snapshot, blobs int) []byte {
	extra := s.Extra != nil
	var flags uint64
	for i, set := range s.flags(&extra) {
		if *set {
			flags |= 1 << i
		}
	}
	b = binary.AppendUvarint(b, flags)
	b = append(b, byte(s.State))
	b = appendAddr(b, s.Local)
	b = appendAddr(b, s.Remote)
	b = binary.BigEndian.AppendUint32(b, s.SendSeq)
	b = binary.BigEndian.AppendUint32(b, s.RecvSeq)
	for _, n := range []int{s.SendQueue.Len(), s.Unsent, s.RecvQueue.Len(), blobs, len(s.Children)} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = binary.BigEndian.AppendUint16(b, s.Options.MSS)
	b = append(b, s.Options.SendScale, s.Options.RecvScale)
	w := s.Window
	b = binary.BigEndian.AppendUint32(b, s.Timestamp)
	b = binary.AppendVarint(b, int64(int32(w.SndWl1-s.RecvSeq)))
	b = binary.AppendVarint(b, int64(int32(w.RcvWup-s.RecvSeq)))
	b = binary.AppendUvarint(b, uint64(w.RcvWnd))
	b = binary.AppendUvarint(b, uint64(w.SndWnd))
	return binary.AppendVarint(b, int64(int32(w.MaxWindow-w.SndWnd)))
}

// maxZone is the longest zone of an IPv6 address that can be written.
const maxZone = 255

// Kinds of address in a core.
const (
	addrNone  = 0
	addrIPv4  = 4
	addrIPv6  = 6
	addrZoned = 7
)

// appendAddr writes an address's kind, its bytes, the zone behind its length if
// it has one, and the port.
func appendAddr(b []byte, a netip.AddrPort) []byte {
	addr := a.Addr()
	switch zone := addr.Zone(); {
	case !addr.IsValid():
		return append(b, addrNone)
	case addr.Is4():
		raw := addr.As4()
		b = append(append(b, addrIPv4), raw[:]...)
	default:
		raw := addr.As16()
		if zone == "" {
			b = append(append(b, addrIPv6), raw[:]...)
			break
		}
		b = append(append(b, addrZoned), raw[:]...)
		b = append(append(b, byte(len(zone))), zone...)
	}
	return binary.BigEndian.AppendUint16(b, a.Port())
}
