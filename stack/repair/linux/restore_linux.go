package linux

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// plan is a snapshot in the terms of what the kernel can do: make an
// ESTABLISHED connection, and be told of a FIN.
type plan struct {
	*repair.Snapshot
	window repair.Window
	sent   repair.Bytes // to the send queue
	unsent repair.Bytes // to be sent by Resume
	finish bool         // Resume sends a FIN after that
}

// newPlan refuses what the kernel cannot restore, and what makes no sense.
func newPlan(snap *repair.Snapshot) (*plan, error) {
	if err := snap.Validate(); err != nil {
		return nil, fmt.Errorf("linux: %w", err)
	}
	if !possible(snap.State) {
		return nil, fmt.Errorf("linux: the kernel cannot be brought into state %v: %w", snap.State, repair.ErrState)
	}
	split := snap.SendQueue.Len() - snap.Unsent
	return &plan{
		Snapshot: snap,
		window:   restoredWindow(snap),
		sent:     snap.SendQueue.Slice(0, split),
		unsent:   snap.SendQueue.Slice(split, snap.SendQueue.Len()),
		finish:   snap.FINQueued && !snap.FINSent,
	}, nil
}

// possible are the states that the kernel can be brought into.
func possible(state repair.State) bool {
	switch state {
	case repair.StateEstablished, repair.StateFinWait1, repair.StateFinWait2,
		repair.StateCloseWait, repair.StateClosing, repair.StateLastAck:
		return true
	}
	return false
}

// restoredWindow is the window to set while the peer's FIN is not received
// again. What was advertised at any time is not taken back.
// https://www.rfc-editor.org/rfc/rfc7323#section-2.4
func restoredWindow(snap *repair.Snapshot) repair.Window {
	w := snap.Window
	edge := w.RcvWup + w.RcvWnd
	if e := snap.Extra; e != nil && e.Advertised != 0 && after(e.Advertised, edge) {
		edge = e.Advertised
	}
	if after(w.RcvWup, snap.RecvSeq) {
		w.RcvWup = snap.RecvSeq
	}
	if after(w.RcvWup, edge) {
		edge = w.RcvWup
	}
	w.RcvWnd = edge - w.RcvWup
	w.MaxWindow = max(w.MaxWindow, w.SndWnd)
	if after(w.SndWl1, snap.RecvSeq) {
		w.SndWl1 = snap.RecvSeq
	}
	return w
}

func after(a, b uint32) bool { return int32(a-b) > 0 }

// prepare does all that can be done before the connection has its place.
func (s *Socket) prepare(p *plan) error {
	if p.Extra != nil {
		s.apply(&p.Extra.Socket)
		s.applySizes(&p.Extra.Socket)
		s.applyIP(p.Local.Addr(), &p.Extra.IP)
		// A kernel that has it not keeps its default.
		_ = unix.SetsockoptString(s.fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, p.Extra.Congestion.Name)
	}
	if err := s.roomToReceive(p.Snapshot); err != nil {
		return err
	}
	for _, flag := range []struct {
		name   string
		option int
		on     bool
	}{{"TCP_NODELAY", unix.TCP_NODELAY, p.NoDelay}, {"TCP_CORK", unix.TCP_CORK, p.Cork}} {
		if flag.on {
			if err := s.setTCPOption(flag.name, flag.option, 1); err != nil {
				return err
			}
		}
	}
	if err := s.setQueueSeq(repair.SendQueue, p.SendSeq); err != nil {
		return err
	}
	if err := s.setQueueSeq(repair.RecvQueue, p.RecvSeq-uint32(p.RecvQueue.Len())); err != nil {
		return err
	}
	// The size of segments is settled in connect, from the MSS of the user,
	// and TCP_REPAIR_OPTIONS comes too late to change it.
	if mss := int(p.Options.MSS); mss > 0 {
		if err := s.setTCPOption("TCP_MAXSEG", unix.TCP_MAXSEG, max(mss, minMSS)); err != nil {
			return err
		}
	}
	return s.bind(p.Local)
}

// minMSS is the smallest that the kernel takes (TCP_MIN_MSS).
const minMSS = 88

// fill sets everything that connect has reset, and the queues.
func (s *Socket) fill(p *plan) error {
	if err := s.setTCPOption("TCP_MAXSEG", unix.TCP_MAXSEG, 0); err != nil {
		return err
	}
	if err := s.setOptions(p.Options); err != nil {
		return err
	}
	// The kernel's own value lacks its lowest bit; see Socket.Timestamp.
	if err := s.setTimestamp(p.Timestamp, p.TimestampMicros); err != nil {
		return err
	}
	if err := s.writeAll(repair.RecvQueue, p.RecvQueue); err != nil {
		return err
	}
	// It stays enlarged until the rest is sent as well.
	if n := p.sent.Len(); n > 0 {
		if err := s.roomToSend(n); err != nil {
			return failed("SO_SNDBUF", err)
		}
	}
	if err := s.writeAll(repair.SendQueue, p.sent); err != nil {
		return err
	}
	if p.Snapshot.Window.Known() {
		if err := s.setWindow(p.window); err != nil {
			return err
		}
	}
	s.unsent, s.finish = p.unsent, p.finish
	return s.halfClose(p)
}

func (s *Socket) writeAll(q repair.Queue, data repair.Bytes) error {
	for _, piece := range data {
		for len(piece) > 0 {
			n, err := s.writeQueue(q, piece)
			if q == repair.SendQueue && errors.Is(err, unix.EAGAIN) {
				err = s.roomToSend(len(piece))
			}
			if err != nil {
				return failed("restoring the "+q.String()+" queue", err)
			}
			piece = piece[n:]
		}
	}
	return nil
}
