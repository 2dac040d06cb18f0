//go:build linux

package tap

import "runtime"

// batcher is told which frames come together.
type batcher struct{ begin, turn, end func() }

// SetBatch sets functions that are told which frames come together, so that
// what they call for can be done once for all: acknowledgements above all.
// begin is called before the first of several frames is delivered, end when no
// more are known to be waiting, and turn, in a long row of frames, so that those
// who wait for what came need not wait for its end. Readers of several queues do
// so independently. It takes effect with the next attachment to a stack.
func (e *Endpoint) SetBatch(begin, turn, end func()) { e.batcher.Store(&batcher{begin, turn, end}) }

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
		b.end()
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

// end is called when the queue is empty. It does nothing if nothing was
// delivered since the last call.
func (b *batch) end() {
	if b.frames == 0 {
		return
	}
	b.frames = 0
	if b.to != nil {
		b.to.end()
	}
	// What was woken waits for this thread, or for another one to be woken
	// for it, which takes longer. And this thread may be about to sleep.
	runtime.Gosched()
}
