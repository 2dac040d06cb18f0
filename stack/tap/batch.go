//go:build linux

package tap

// batcher is told which frames come together.
type batcher struct{ begin, end func() }

// SetBatch sets functions that are told which frames come together, so that
// what they call for can be done once for all: acknowledgements above all.
// begin is called before the first of several frames is delivered, end when no
// more are known to be waiting. Readers of several queues do so independently.
// It takes effect with the next attachment to a stack.
func (e *Endpoint) SetBatch(begin, end func()) { e.batcher.Store(&batcher{begin, end}) }

// batchFrames is how many frames a batch has at most. More would keep peers
// waiting for acknowledgements. One connection's are not put off for so many;
// but where the frames are from many connections, most have a few in it.
const batchFrames = 64

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
	if b.frames == 0 && b.to != nil {
		b.to.begin()
	}
	b.frames++
}

// end is called when the queue is empty. It reports whether anything was
// delivered since the last call.
func (b *batch) end() bool {
	if b.frames == 0 {
		return false
	}
	b.frames = 0
	if b.to != nil {
		b.to.end()
	}
	return true
}
