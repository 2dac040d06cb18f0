package packetdrill

import (
	"bytes"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// isNull reports whether a buffer is a null pointer.
func isNull(e Expr) bool {
	w, ok := e.(Word)
	return ok && w.Name == "NULL"
}

// doRead is read(fd, buffer, length).
func doRead(r *runner, c *call, s *sock) outcome {
	return r.receive(c, s, c.arg(1), r.intArg(c, 2), 0)
}

// doRecv is recv(fd, buffer, length, flags) and recvfrom, which adds an
// address.
func doRecv(r *runner, c *call, s *sock) outcome {
	return r.receive(c, s, c.arg(1), r.intArg(c, 2), r.intArg(c, 3))
}

// doReadv is readv(fd, [{..., n}, …], count).
func doReadv(r *runner, c *call, s *sock) outcome {
	return r.receive(c, s, Ellipsis{}, r.vector(c, c.arg(1)), 0)
}

// vector is the sum of the lengths of an array of struct iovec.
func (r *runner) vector(c *call, e Expr) (n int64) {
	a, ok := e.(Array)
	if !ok {
		r.failCall(c, "%s is no array of buffers", exprText(e))
	}
	for _, e := range a.Elems {
		s, ok := e.(Struct)
		if !ok || len(s.Fields) != 2 {
			r.failCall(c, "%s is no buffer: {..., length}", exprText(e))
		}
		v, err := r.eval(s.Fields[1].V)
		if err != nil {
			r.failCall(c, "%s: %v", exprText(e), err)
		}
		n += v
	}
	return n
}

// maxBuffer bounds what a script may read or write at once.
const maxBuffer = 64 << 20

// length is the length of a buffer, within bounds.
func (r *runner) length(c *call, n int64) int {
	if n < 0 || n > maxBuffer {
		r.failCall(c, "a buffer of %d bytes is more than is good for a script", n)
	}
	return int(n)
}

// receive reads up to n bytes.
func (r *runner) receive(c *call, s *sock, buf Expr, n int64, flags int64) outcome {
	if flags&msgOOB != 0 {
		return failed("EINVAL") // no urgent data is kept apart
	}
	if s.frozen() {
		return r.repairReceive(c, s, r.length(c, n), flags)
	}
	if isNull(buf) && n > 0 && s.ep.Readiness(eventIn)&eventIn != 0 {
		return failed("EFAULT")
	}
	peek := flags&msgPeek != 0
	for {
		b := make([]byte, r.length(c, n)-int(c.done))
		w := tcpip.SliceWriter(b)
		res, err := s.ep.Read(&w, tcpip.ReadOptions{Peek: peek})
		switch {
		case err == nil:
			if s.flow != nil {
				if err := s.flow.checkRead(b[:res.Count], peek); err != nil {
					return wrong("", "", "%v", err)
				}
			}
			c.done += int64(res.Count)
			if c.done < n && flags&msgWaitall != 0 && !peek {
				continue
			}
			return returned(c.done)
		case wouldBlock(err):
			if n == 0 {
				return returned(0)
			}
			return r.wait(c, s, flags&msgDontwait != 0, s.rcvTimeout)
		case c.done > 0:
			return returned(c.done)
		}
		if _, end := err.(*tcpip.ErrClosedForReceive); end {
			return returned(0)
		}
		return s.hardError(err, returned(0))
	}
}

// doWrite is write(fd, buffer, length).
func doWrite(r *runner, c *call, s *sock) outcome {
	return r.send(c, s, c.arg(1), r.intArg(c, 2), 0)
}

// doSend is send(fd, buffer, length, flags) and sendto, which adds an address.
func doSend(r *runner, c *call, s *sock) outcome {
	return r.send(c, s, c.arg(1), r.intArg(c, 2), r.intArg(c, 3))
}

// doWritev is writev(fd, [{..., n}, …], count).
func doWritev(r *runner, c *call, s *sock) outcome {
	return r.send(c, s, Ellipsis{}, r.vector(c, c.arg(1)), 0)
}

// doSendmsg is sendmsg(fd, message, flags).
func doSendmsg(r *runner, c *call, s *sock) outcome {
	m, _ := c.arg(1).(Struct)
	return r.send(c, s, Ellipsis{}, r.vector(c, m.Field("msg_iov")), r.intArg(c, 2))
}

// send writes n bytes: those of a text, or such as are expected on the wire.
func (r *runner) send(c *call, s *sock, buf Expr, n int64, flags int64) outcome {
	total := r.length(c, n)
	switch {
	case isNull(buf) && n > 0:
		return failed("EFAULT")
	case flags&msgOOB != 0:
		r.skip("MSG_OOB")
	case s.frozen():
		return r.repairSend(c, s, buf, total)
	}
	var data []byte
	text, isText := buf.(Str)
	switch {
	case isText && len(text.V) < total:
		r.failCall(c, "%q is not %d bytes long", text.V, total)
	case isText:
		data = []byte(text.V[:total])
	default:
		at := 0
		if s.flow != nil {
			at = s.flow.from + len(s.flow.written) - int(c.done)
		}
		data = make([]byte, total)
		for i := range data {
			data[i] = ownByte(at + i)
		}
	}
	if flags&msgFastopen != 0 && !c.opened || s.deferred.IsValid() {
		if out, over := r.openWith(c, s, data, flags); over {
			return out
		}
	}
	if c.opened && s.connecting {
		if out, over := r.handshake(c, s); over {
			return out
		}
		if int(c.done) == total {
			return returned(c.done)
		}
	}
	const awake = waiter.EventOut | waiter.EventErr | waiter.EventHUp
	if c.tried && s.ep.Readiness(awake)&awake == 0 {
		return r.wait(c, s, flags&msgDontwait != 0, s.sndTimeout)
	}
	opts := tcpip.WriteOptions{More: flags&msgMore != 0, EndOfRecord: flags&msgEOR != 0}
	for {
		rest := data[c.done:]
		k, err := s.ep.Write(bytes.NewReader(rest), opts)
		if k > 0 {
			if s.flow != nil {
				s.flow.written = append(s.flow.written, rest[:k]...)
			}
			c.done += k
		}
		switch {
		case int(c.done) == total && (err == nil || total > 0):
			return returned(c.done)
		case err == nil && k > 0:
			continue
		case err == nil || wouldBlock(err):
			return r.wait(c, s, flags&msgDontwait != 0, s.sndTimeout)
		case c.done > 0:
			return returned(c.done)
		}
		return s.hardError(err, failed("EPIPE"))
	}
}

// doRecvmsg is recvmsg(fd, message, flags). Of control messages TCP_CM_INQ is
// known.
func doRecvmsg(r *runner, c *call, s *sock) outcome {
	m, _ := c.arg(1).(Struct)
	out := r.receive(c, s, Ellipsis{}, r.vector(c, m.Field("msg_iov")), r.intArg(c, 2))
	if out.block || out.wrong != "" || out.err != "" {
		return out
	}
	if f := m.Field("msg_flags"); f != nil {
		if want, err := r.eval(f); err != nil || want != 0 {
			return wrong(exprText(f), "0", "msg_flags differ")
		}
	}
	ctl, _ := m.Field("msg_control").(Array)
	for _, e := range ctl.Elems {
		cm, _ := e.(Struct)
		if w, _ := cm.Field("cmsg_type").(Word); w.Name != "TCP_CM_INQ" {
			r.skip("control message %s", exprText(cm.Field("cmsg_type")))
		}
		if !s.inq {
			return wrong(exprText(cm), "no control message", "TCP_INQ is not on")
		}
		want, err := r.eval(cm.Field("cmsg_data"))
		if err != nil {
			r.failCall(c, "cmsg_data: %v", err)
		}
		if got := s.inqHint(); got != want {
			return wrong(exprText(Int{want}), exprText(Int{got}), "TCP_CM_INQ is another")
		}
	}
	return out
}

// inqHint is what TCP_CM_INQ reports: the bytes that wait, or 1 if the end of
// the stream does.
func (s *sock) inqHint() int64 {
	n, _ := s.ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
	if n == 0 && s.ep.Readiness(eventRdHup)&eventRdHup != 0 {
		return 1
	}
	return int64(n)
}
