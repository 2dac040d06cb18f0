package conn

import (
	"io"
	"slices"
	"sort"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// sendQueue holds what the user wrote, from the oldest byte not acknowledged
// to the last, sent or not. Bytes are copied in once; every transmission, and
// every repetition, refers to the same memory.
type sendQueue struct {
	chunks []chunk     // consecutive
	mem    fifo[chunk] // of chunks
	start  seqnum.Value
	end    seqnum.Value // where the next byte written goes, and then our FIN
	bufferSize
	*breaks
}

// breaks is where no segment may reach across, in order. Few connections have
// any.
type breaks struct {
	records []seqnum.Value // ends of records (MSG_EOR)
	burst   sendBurst      // the last
	bursts  []burstEnd
}

// noBreaks are those of all queues that have had none. They are never written to.
var noBreaks breaks

// broken returns the queue's breaks to be written to.
func (q *sendQueue) broken() *breaks {
	if q.breaks == &noBreaks {
		q.breaks = new(breaks)
	}
	return q.breaks
}

func (b *breaks) none() bool {
	return len(b.records)+len(b.bursts) == 0 && b.burst == sendBurst{}
}

// sendBurst is what Linux gathers into one piece before it begins another; see
// linuxSpace.
type sendBurst struct {
	start seqnum.Value
	push  bool // it asks the peer to deliver
}

// burstEnd is where a burst ends that another follows: no segment reaches across.
type burstEnd struct {
	at   seqnum.Value
	push bool
}

// chunk is a piece of memory that is filled once, from front to back. Segments
// refer only to what is filled, so filling the rest disturbs none of them.
type chunk struct {
	start seqnum.Value
	used  int
	view  *buffer.View // as long as its memory
}

func (k *chunk) end() seqnum.Value { return k.start.Add(seqnum.Size(k.used)) }

// keptChunks is how much room an empty queue keeps for their list.
const keptChunks = 4

// Sizes of a chunk in bytes. The first of a queue that was empty may be small:
// where a message goes each way in turn, none follows it.
const (
	minFirstChunk = 256
	minChunk      = 2 << 10
	maxChunk      = buffer.MaxChunkSize
)

func (q *sendQueue) init(start seqnum.Value, size, most int) {
	q.start, q.end, q.bufferSize = start, start, sized(size, most)
}

// size is how many bytes are queued.
func (q *sendQueue) size() int { return int(q.start.Size(q.end)) }

// space is how many bytes more the buffer may take.
func (q *sendQueue) space() int { return max(0, int(q.max)-q.size()) }

// write copies up to n bytes from r. It reports how many came.
func (q *sendQueue) write(r io.Reader, n int) (int, error) {
	done := 0
	for done < n {
		k := q.tail(n - done)
		room := k.view.AsSlice()[k.used:]
		got, err := r.Read(room[:min(len(room), n-done)])
		k.used += got
		done += got
		q.end = q.end.Add(seqnum.Size(got))
		if err != nil || got == 0 {
			if err == io.EOF {
				err = nil
			}
			return done, err
		}
	}
	return done, nil
}

// tail returns a chunk with room, sized for n more bytes if a new one is needed.
func (q *sendQueue) tail(n int) *chunk {
	if len(q.chunks) > 0 {
		if k := &q.chunks[len(q.chunks)-1]; k.used < k.view.Size() {
			return k
		}
	}
	least := minFirstChunk
	if len(q.chunks) > 0 {
		least = minChunk
	}
	q.chunks = q.mem.push(q.chunks, chunk{start: q.end, view: buffer.NewViewSize(min(max(n, least), maxChunk))})
	return &q.chunks[len(q.chunks)-1]
}

// endRecord makes the end of what is queued the end of a record.
func (q *sendQueue) endRecord() {
	if n := len(q.records); q.size() > 0 && (n == 0 || q.records[n-1] != q.end) {
		q.broken().records = append(q.records, q.end)
	}
}

// toRecordEnd is how far it is from seq to the end of its record, at most n.
func (q *sendQueue) toRecordEnd(seq seqnum.Value, n seqnum.Size) seqnum.Size {
	if len(q.records) == 0 {
		return n
	}
	i := sort.Search(len(q.records), func(i int) bool { return seq.LessThan(q.records[i]) })
	if i == len(q.records) {
		return n
	}
	return min(n, seq.Size(q.records[i]))
}

// endsRecord reports whether a record ends at seq.
func (q *sendQueue) endsRecord(seq seqnum.Value) bool {
	_, found := slices.BinarySearchFunc(q.records, seq, func(a, b seqnum.Value) int { return int(int32(a - b)) })
	return found
}

// toBurstEnd is how far it is from seq to the end of its burst, at most n.
func (q *sendQueue) toBurstEnd(seq seqnum.Value, n seqnum.Size) seqnum.Size {
	for i := range q.bursts {
		if seq.LessThan(q.bursts[i].at) {
			return min(n, seq.Size(q.bursts[i].at))
		}
	}
	return n
}

// pushesBurst reports whether a burst ends at seq that asks the peer to deliver.
func (q *sendQueue) pushesBurst(seq seqnum.Value) bool {
	for i := range q.bursts {
		if q.bursts[i].at == seq {
			return q.bursts[i].push
		}
	}
	return false
}

// slice puts references to the n bytes from seq on into p.
func (q *sendQueue) slice(seq seqnum.Value, n seqnum.Size, p *buffer.Buffer) {
	i := 0
	if len(q.chunks) > 1 {
		i = sort.Search(len(q.chunks), func(i int) bool { return seq.LessThan(q.chunks[i].end()) })
	}
	for ; n > 0 && i < len(q.chunks); i++ {
		k := &q.chunks[i]
		off := int(k.start.Size(seq))
		take := min(int(n), k.used-off)
		v := k.view.Clone()
		v.TrimFront(off)
		v.CapLength(take)
		p.Append(v)
		seq = seq.Add(seqnum.Size(take))
		n -= seqnum.Size(take)
	}
}

// ack frees everything before una.
func (q *sendQueue) ack(una seqnum.Value) {
	if q.end.LessThan(una) {
		una = q.end // una may count our FIN
	}
	q.start = una
	for len(q.records) > 0 && q.records[0].LessThanEq(una) {
		q.records = q.records[1:]
	}
	for len(q.bursts) > 0 && q.bursts[0].at.LessThanEq(una) {
		q.bursts = q.bursts[1:]
	}
	done := 0
	for done < len(q.chunks) && q.chunks[done].end().LessThanEq(una) && q.chunks[done].used > 0 {
		q.chunks[done].view.Release()
		q.chunks[done].view = nil
		done++
	}
	q.chunks = q.chunks[done:]
	if len(q.chunks) == 0 {
		q.chunks = q.mem.empty(keptChunks)
	}
}

// release frees everything; what was queued counts as gone.
func (q *sendQueue) release() {
	for i := range q.chunks {
		q.chunks[i].view.Release()
	}
	q.chunks, q.mem, q.breaks = nil, fifo[chunk]{}, &noBreaks
	q.start = q.end
}
