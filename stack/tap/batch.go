//go:build linux

package tap

import "runtime"

// batcher is told which frames come together.
type batcher struct {
	begin, turn func()
	end         func(more bool)
}

// SetBatch sets functions that are told which frames come together, so that
// what they call for can be done once for all: acknowledgements above all.
// begin is called before the first of several frames is delivered; end when no
// more are known to be waiting or, with more set, when there have been many; and
// turn now and then, so that those who wait for what came need not wait for the
// end. Readers of several queues do so independently. It takes effect with the
// next attachment to a stack.
func (e *Endpoint) SetBatch(begin, turn func(), end func(more bool)) {
	e.batcher.Store(&batcher{begin, turn, end})
}

const (
	// batchFrames is how many frames a batch has at most. More would keep peers
	// waiting for acknowledgements. One connection's are not put off for so
	// many; but where the frames are from a hundred connections, each should
	// have a few in it.
	batchFrames = 256
	// turnFrames is after how many frames of a batch it is others' turn.
	turnFrames = 64
)

// batch counts the frames delivered since the queue was last empty.
type batch struct {
	to     *batcher // nil: nobody
	frames int
}

// begin is called before a frame is delivered.
func (b *batch) begin() {
	if b.frames == batchFrames {
		b.end(true)
	}
	switch {
	case b.to == nil:
	case b.frames == 0:
		b.to.begin()
	case b.frames%turnFrames == 0:
		b.to.turn()
	}
	b.frames++
}

// end is called when the queue is empty, or more is set. It does nothing if
// nothing was delivered since the last call.
func (b *batch) end(more bool) {
	if b.frames == 0 {
		return
	}
	b.frames = 0
	if b.to != nil {
		b.to.end(more)
	}
	// What was woken waits for this thread, or for another one to be woken
	// for it, which takes longer. And this thread may be about to sleep.
	runtime.Gosched()
}
