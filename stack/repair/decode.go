package repair

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Limits bound what a reader takes. Whatever lengths an input claims, no more
// memory is allocated than for the bytes that are really there, and for one
// piece of 64 KiB.
type Limits struct {
	Queue    int // bytes in one queue; 0: DefaultQueueLimit
	Extra    int // bytes of one extra part; 0: DefaultExtraLimit
	Children int // of one listener; 0: DefaultChildrenLimit
}

// The limits where none are set.
const (
	DefaultQueueLimit    = 64 << 20
	DefaultExtraLimit    = 4 << 20
	DefaultChildrenLimit = 65536
)

func (l Limits) orDefault() Limits {
	for _, v := range []struct {
		n  *int
		or int
	}{{&l.Queue, DefaultQueueLimit}, {&l.Extra, DefaultExtraLimit}, {&l.Children, DefaultChildrenLimit}} {
		if *v.n <= 0 {
			*v.n = v.or
		}
	}
	return l
}

// piece is how many bytes are read at a time.
const piece = 64 << 10

// Read reads one Snapshot, and no byte beyond its end. What it returns is what
// was written, which Validate may still refuse. An error wraps
// io.ErrUnexpectedEOF if the input ends early, ErrInvalid if it is not a
// Snapshot, is damaged, of a later version or beyond the limits.
func Read(r io.Reader, l Limits) (*Snapshot, error) {
	s, err := read1(r, l)
	if errors.Is(err, io.EOF) {
		err = cutShort("magic", io.ErrUnexpectedEOF)
	}
	return s, err
}

// Reader reads Snapshots that follow each other in one stream.
type Reader struct {
	r *bufio.Reader
	l Limits
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader, l Limits) *Reader { return &Reader{bufio.NewReader(r), l} }

// Next returns the next Snapshot, or io.EOF after the last. Other errors are
// those of Read; nothing can be read after one.
func (r *Reader) Next() (*Snapshot, error) { return read1(r.r, r.l) }

// ReadAll reads Snapshots until the stream ends. Those before an error are
// returned with it.
func ReadAll(r io.Reader, l Limits) (list []*Snapshot, err error) {
	for rd := NewReader(r, l); ; {
		s, err := rd.Next()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, s)
	}
}

// read1 reads one Snapshot. Its error is io.EOF if nothing is there at all.
func read1(r io.Reader, l Limits) (*Snapshot, error) {
	d := decoder{r: r, limits: l.orDefault()}
	var head [len(magic) + 2]byte
	if n, err := io.ReadFull(r, head[:]); n == 0 && err == io.EOF {
		return nil, io.EOF
	} else if err != nil {
		if string(head[:min(n, len(magic))]) != magic[:min(n, len(magic))] {
			return nil, errNotSnapshot
		}
		return nil, cutShort("magic", err)
	}
	if string(head[:len(magic)]) != magic {
		return nil, errNotSnapshot
	}
	if v := binary.BigEndian.Uint16(head[len(magic):]); v > Version || v == 0 {
		return nil, invalid("snapshot version %d, this program knows up to %d", v, Version)
	}
	d.crc = crc32.Update(0, castagnoli, head[:])
	s, err := d.body(false)
	if err != nil {
		return nil, err
	}
	want := d.crc
	var sum [4]byte
	if err := d.full("checksum", sum[:]); err != nil {
		return nil, err
	}
	if got := binary.BigEndian.Uint32(sum[:]); got != want {
		return nil, invalid("the snapshot is damaged: its checksum is %08x, not %08x", want, got)
	}
	return s, nil
}

var errNotSnapshot = invalid("this is not a snapshot")

// cutShort is the one error for input that ends early.
func cutShort(where string, err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err == io.ErrUnexpectedEOF {
		return fmt.Errorf("the snapshot is cut short in its %s: %w", where, err)
	}
	return fmt.Errorf("reading the snapshot's %s: %w", where, err)
}

// decoder reads, and sums up what it has read.
type decoder struct {
	r      io.Reader
	crc    uint32
	limits Limits
}

// full fills p.
func (d *decoder) full(where string, p []byte) error {
	if _, err := io.ReadFull(d.r, p); err != nil {
		return cutShort(where, err)
	}
	d.crc = crc32.Update(d.crc, castagnoli, p)
	return nil
}

// pieces reads n bytes, which the input claims to have, in pieces.
func (d *decoder) pieces(where string, n int) (b Bytes, err error) {
	for n > 0 {
		p := make([]byte, min(n, piece))
		if err := d.full(where, p); err != nil {
			return nil, err
		}
		b, n = append(b, p), n-len(p)
	}
	return b, nil
}

// contiguous reads n bytes into one piece.
func (d *decoder) contiguous(where string, n int) ([]byte, error) {
	b, err := d.pieces(where, n)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	if len(b) == 1 {
		return b[0], nil
	}
	whole := make([]byte, 0, n) // it is all there
	for _, p := range b {
		whole = append(whole, p...)
	}
	return whole, nil
}

func (d *decoder) body(child bool) (*Snapshot, error) {
	var lengths [6]byte
	if err := d.full("lengths", lengths[:]); err != nil {
		return nil, err
	}
	coreLen, extraLen := binary.BigEndian.Uint16(lengths[:]), binary.BigEndian.Uint32(lengths[2:])
	switch {
	case coreLen > maxCore:
		return nil, invalid("the core of the snapshot cannot be %d bytes long", coreLen)
	case int64(extraLen) > int64(d.limits.Extra):
		return nil, invalid("the extra part of %d bytes is larger than the limit of %d", extraLen, d.limits.Extra)
	}
	meta, err := d.contiguous("core", int(coreLen)+int(extraLen))
	if err != nil {
		return nil, err
	}
	s := new(Snapshot)
	c := coreReader{b: meta[:coreLen]}
	lens, err := c.core(s, d.limits, child)
	if err != nil {
		return nil, err
	}
	var refs []reference
	if lens.extra {
		s.Extra = new(Extra)
		if refs, err = readExtra(s.Extra, s.bases(), meta[coreLen:]); err != nil {
			return nil, err
		}
	} else if extraLen != 0 {
		return nil, invalid("the snapshot has %d bytes of an extra part that it says it has not", extraLen)
	}
	if s.SendQueue, err = d.pieces("send queue", lens.send); err != nil {
		return nil, err
	}
	if s.RecvQueue, err = d.pieces("receive queue", lens.recv); err != nil {
		return nil, err
	}
	blobs, err := d.pieces("held data", lens.blobs)
	if err != nil {
		return nil, err
	}
	if err := resolve(refs, blobs); err != nil {
		return nil, err
	}
	for range lens.children {
		c, err := d.body(true)
		if err != nil {
			return nil, err
		}
		s.Children = append(s.Children, c)
	}
	return s, nil
}
