package conn

import (
	"bytes"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"pgregory.net/rapid"
)

// The reassembly queue against a model that keeps one byte at a time: what
// comes out, in what spans it is held, and what insert says of it.
func TestReassemblyModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 200
		base := seqnum.Value(rapid.SampledFrom([]uint32{0, 1000, 0xffffffff - 100}).Draw(t, "base"))
		var (
			r     reassembly
			model [size]int // 0: absent; else the number of the segment the byte came from
			nxt   int
		)
		defer r.release()
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				from := rapid.IntRange(nxt+1, size-1).Draw(t, "from")
				to := rapid.IntRange(from+1, size).Draw(t, "to")
				id := rapid.IntRange(1, 250).Draw(t, "id")
				want := 0
				for i := from; i < to; i++ {
					if model[i] == 0 {
						model[i] = id
						want++
					}
				}
				s := Segment{Seq: base.Add(seqnum.Size(from)), Payload: payload(bytes.Repeat([]byte{byte(id)}, to-from))}
				got := r.insert(&s)
				if int(got.added) != want {
					t.Fatalf("added %d, want %d", got.added, want)
				}
				if (got.dupStart == got.dupEnd) != (want == to-from) {
					t.Fatalf("duplicate %d:%d of %d new bytes of %d", got.dupStart, got.dupEnd, want, to-from)
				}
				lo, hi := from, to
				for lo > nxt && model[lo-1] != 0 {
					lo--
				}
				for hi < size && model[hi] != 0 {
					hi++
				}
				if got.start != base.Add(seqnum.Size(lo)) || got.end != base.Add(seqnum.Size(hi)) {
					t.Fatalf("span %d:%d, want %d:%d", got.start-base, got.end-base, lo, hi)
				}
			},
			"advance": func(t *rapid.T) {
				// The bytes up to to arrive in order and some of them may be held.
				to := rapid.IntRange(nxt, size-2).Draw(t, "to")
				at := base.Add(seqnum.Size(to))
				nxt = to
				var s Segment
				for r.next(&at, &s) {
					got := s.Payload.Flatten()
					s.Payload.Release()
					s.Payload = payload(nil)
					for _, b := range got {
						if model[nxt] != int(b) {
							t.Fatalf("byte %d is %d, want %d", nxt, b, model[nxt])
						}
						nxt++
					}
				}
				if nxt < size && model[nxt] != 0 {
					t.Fatalf("byte %d is held and did not come out", nxt)
				}
				if at != base.Add(seqnum.Size(nxt)) {
					t.Fatalf("next is %d, want %d", at-base, nxt)
				}
				if nxt >= size-2 {
					r.release()
					model, nxt = [size]int{}, 0
				}
			},
			"": func(t *rapid.T) {
				held := 0
				for i := nxt; i < size; i++ {
					if model[i] != 0 {
						held++
					}
				}
				if got := r.bytes(); got != int64(held) {
					t.Fatalf("%d bytes held, want %d", got, held)
				}
				for i := range r.spans {
					if i > 0 && !r.spans[i-1].end().LessThan(r.spans[i].seq) {
						t.Fatalf("span %d touches the one before", i)
					}
				}
			},
		})
	})
}
