package conn

import (
	"gvisor.dev/gvisor/pkg/buffer"
)

// Received payloads are kept as they came, each a window into the memory of its
// packet. A peer that sends a byte at a time could make us keep a multiple of
// what it sends; so what is retained is watched, and where it is out of
// proportion the bytes are copied together (Linux tcp_collapse).

// viewCost is what a view takes besides its chunk, in bytes.
const viewCost = 64

// retained is the memory that a buffer keeps from being used again, in bytes.
func retained(b *buffer.Buffer) (n int64) {
	list := b.AsViewList()
	for v := list.Front(); v != nil; v = v.Next() {
		n += int64(v.Capacity()) + viewCost
	}
	return n
}

// wasteful reports whether a buffer retains much more than it holds.
func wasteful(b *buffer.Buffer, allowance int64) bool {
	return retained(b) > 2*b.Size()+allowance
}

// collapse copies a buffer's bytes together.
func collapse(b *buffer.Buffer) {
	r := b.AsBufferReader() // takes the old views over
	var tight buffer.Buffer
	tight.WriteFromReader(&r, int64(r.Len()))
	r.Close()
	*b = tight
}

// keeper says when it is time to look at what is retained. Looking costs a walk
// over everything, so it waits until a good part more has come.
type keeper struct {
	held int64 // retained, at most: what was read since is not taken off
	look int64 // when held passes it, look; 0: not set
}

// keep notes that p is kept from now on, in a buffer of size bytes. It reports
// whether it is time to look.
func (k *keeper) keep(p *buffer.Buffer, size int) bool {
	k.held += retained(p)
	return k.held > max(k.look, 2*int64(size))
}

// seen notes what was found to be retained.
func (k *keeper) seen(held int64, size int) { k.held, k.look = held, held+int64(size)/4 }
