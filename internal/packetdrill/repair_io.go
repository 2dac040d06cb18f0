package packetdrill

import (
	"bytes"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/stack/repair"
)

// repairReceive is recv in repair mode: it shows what is in the selected queue,
// and takes nothing out.
func (r *runner) repairReceive(c *call, s *sock, n int, flags int64) outcome {
	q := s.selected()
	switch {
	case flags&msgPeek == 0:
		return failed("EPERM")
	case q == repair.NoQueue:
		return failed("EINVAL")
	}
	b := make([]byte, n)
	w := tcpip.SliceWriter(b)
	res, err := s.ep.Read(&w, tcpip.ReadOptions{Peek: true})
	switch {
	case wouldBlock(err):
		return r.wait(c, s, flags&msgDontwait != 0, s.rcvTimeout)
	case err != nil:
		return failed(errnoOf(err))
	}
	b = b[:res.Count]
	if s.flow == nil {
		return returned(int64(len(b)))
	}
	check := s.flow.checkRead(b, true)
	if q == repair.SendQueue {
		end, _ := r.repairable(s).QueueSeq(q)
		_, unacked, _, _ := r.repairable(s).Repair().Queued()
		check = s.flow.checkWritten(s.flow.offset(end)-unacked, b)
	}
	if check != nil {
		return wrong("", "", "%v", check)
	}
	return returned(int64(len(b)))
}

// repairSend is send in repair mode: it appends to the selected queue. To the
// receive queue goes what the peer has sent, or would have.
func (r *runner) repairSend(c *call, s *sock, buf Expr, n int) outcome {
	q := s.selected()
	text, isText := buf.(Str)
	if isText && (q == repair.RecvQueue || len(text.V) < n) {
		r.failCall(c, "%q is not what goes into this queue", text.V)
	}
	data := make([]byte, n)
	if s.flow != nil && q != repair.NoQueue {
		end, _ := r.repairable(s).QueueSeq(q)
		at, octet := s.flow.offset(end), ownByte
		if q == repair.RecvQueue {
			at, octet = s.flow.peerOffset(end), peerByte
		}
		for i := range data {
			data[i] = octet(at + i)
		}
	}
	if isText {
		copy(data, text.V)
	}
	k, err := s.ep.Write(bytes.NewReader(data), tcpip.WriteOptions{})
	switch {
	case wouldBlock(err) && q == repair.NoQueue:
		return failed("EINVAL")
	case err != nil:
		return failed(errnoOf(err))
	}
	if s.flow != nil && q == repair.SendQueue {
		s.flow.written = append(s.flow.written, data[:k]...)
	}
	return returned(k)
}
