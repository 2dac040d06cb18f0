package conn

// fifo is the memory of a queue that is a slice: appended to at its end, cut off
// at its front. Cutting leaves room in front that append does not see; fifo
// moves the queue back there rather than let it grow.
type fifo[T any] struct {
	room []T // as long as nothing, with all of the capacity
}

// push appends v to q, which lies in the room, or in none yet.
func (f *fifo[T]) push(q []T, v T) []T {
	if len(q) == cap(q) {
		if front := cap(f.room) - cap(q); front >= len(q) && front > 0 {
			moved := f.room[:len(q)]
			copy(moved, q)
			clear(f.room[max(len(q), front) : front+len(q)])
			return append(moved, v)
		}
		q = append(q, v)
		f.room = q[:0]
		return q
	}
	return append(q, v)
}

// empty is an empty queue. It keeps room for most elements at most.
func (f *fifo[T]) empty(most int) []T {
	if cap(f.room) > most {
		f.room = nil
	}
	return f.room
}
