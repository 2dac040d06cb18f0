package conn

import (
	"runtime"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// heap is how many bytes are in use.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // what the pools held goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A peer that fills the window a byte at a time, in order or not, with or
// without holes, cannot make the connection keep many times what it sends.
func TestTinySegmentsTakeBoundedMemory(t *testing.T) {
	const window = 1 << 20
	for _, tc := range []struct {
		name  string
		first seqnum.Size
		step  seqnum.Size
	}{
		{"in order", 0, 1},
		{"out of order, touching", 1, 1},
		{"every other byte", 1, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := established(t, func(a, b *Config) { b.RcvBuf = window })
			c := &w.b.c
			c.oweAck()
			w.settle(w.b)
			w.path = nil
			before := heapInUse()
			for at := tc.first; at < window-1; at += tc.step {
				s := Segment{Seq: c.rcv.nxt, Ack: c.snd.una, Flags: header.TCPFlagAck, Window: 1000, Payload: payload([]byte{1})}
				if tc.first > 0 {
					s.Seq = c.rcv.nxt.Add(at)
				}
				s.Options.HasTS, s.Options.TSVal = true, c.tstamp.recent
				c.Input(w.now, &s)
				var out Segment
				for c.Output(w.now, &out) {
					out.Release()
				}
			}
			if used := heapInUse() - before; used > 8*window {
				t.Errorf("%d bytes of memory for a window of %d", used, window)
			}
			if err := c.check(); err != nil {
				t.Error(err)
			}
			if held := int64(c.recvq.size()) + c.reasm.bytes(); held == 0 {
				t.Error("nothing was kept")
			}
		})
	}
}
