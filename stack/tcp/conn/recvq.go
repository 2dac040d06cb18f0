package conn

import (
	"io"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// recvQueue holds what arrived in order and the user has not read. Payloads
// are kept by reference; the user's Read is their only copy.
type recvQueue struct {
	data buffer.Buffer
	mem  keeper
	bufferSize
}

func (q *recvQueue) size() int64 { return q.data.Size() }

// space is how much more the buffer can take.
func (q *recvQueue) space() seqnum.Size {
	if free := int64(q.max) - q.data.Size(); free > 0 {
		return seqnum.Size(free)
	}
	return 0
}

// append takes over the payload.
func (q *recvQueue) append(p *buffer.Buffer) {
	look := q.mem.keep(p, int(q.max))
	q.data.Merge(p)
	if look {
		if wasteful(&q.data, int64(q.max)/2) {
			collapse(&q.data)
		}
		q.mem.seen(retained(&q.data), int(q.max))
	}
}

// read copies up to n bytes to w, and drops them unless peek.
func (q *recvQueue) read(w io.Writer, n int64, peek bool) (int64, error) {
	done, err := q.data.ReadToWriter(w, n)
	if !peek {
		q.data.TrimFront(done)
	}
	return done, err
}

func (q *recvQueue) release() {
	if q.data.Size() > 0 {
		q.data.Release()
	}
	q.data = buffer.Buffer{}
}
