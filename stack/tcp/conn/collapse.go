package conn

import (
	"gvisor.dev/gvisor/pkg/buffer"
)

// viewCost is about what keeping one received segment takes besides its
// payload, in bytes: a view, and a chunk that is never filled to the end.
const viewCost = 256

// collapse copies a buffer that is made of too many small pieces together, so
// that a peer who sends a byte at a time cannot make us keep a multiple of
// what it sends (Linux tcp_collapse).
func collapse(b *buffer.Buffer) {
	r := b.AsBufferReader() // takes the old views over
	var tight buffer.Buffer
	tight.WriteFromReader(&r, int64(r.Len()))
	r.Close()
	*b = tight
}

// pieces counts the views of a buffer.
func pieces(b *buffer.Buffer) int {
	list := b.AsViewList()
	return list.Len()
}
