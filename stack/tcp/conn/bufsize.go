package conn

import (
	"math"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// bufferSize is how much a queue may hold, in bytes.
type bufferSize struct {
	max uint32
	cap uint32 // how far auto-tuning may raise max; 0: it may not
}

// maxBuffer bounds a buffer: sequence numbers tell no more than half their
// space apart.
const maxBuffer = math.MaxInt32

// sized is a buffer of size bytes that may grow to most, if that is more.
func sized(size, most int) (b bufferSize) {
	b.max = uint32(min(size, maxBuffer))
	if most > size {
		b.cap = uint32(min(most, maxBuffer))
	}
	return b
}

// grow raises the size to want, as far as it may be.
func (b *bufferSize) grow(want int64) {
	if b.cap != 0 {
		b.max = max(b.max, uint32(min(want, int64(b.cap))))
	}
}

// limit is the size as a count of sequence numbers.
func (b *bufferSize) limit() seqnum.Size { return seqnum.Size(b.max) }

// restore sets the sizes that a snapshot has, within what they are now.
func (b *bufferSize) restore(size, most int) {
	if size <= 0 {
		return
	}
	limit := int(max(b.max, b.cap))
	*b = sized(min(size, limit), 0)
	if most > int(b.max) {
		b.cap = uint32(min(most, limit))
	}
}
