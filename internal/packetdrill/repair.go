package packetdrill

import (
	"errors"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// repairState is what a socket's repair mode is as the script has set it.
type repairState struct {
	on    bool
	queue repair.Queue
}

// repairer is what an endpoint offers that can be frozen.
type repairer interface {
	SetRepair(repair.Mode) error
	QueueSeq(repair.Queue) (uint32, error)
}

// repairable is the socket's endpoint, which must be one that can be frozen.
func (r *runner) repairable(s *sock) repairer {
	e, ok := s.ep.(repairer)
	if !ok {
		r.skip("TCP_REPAIR with this TCP")
	}
	return e
}

// repairError is an error of the repair interface's as a socket option's.
func repairError(err error) tcpip.Error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, conn.ErrInvalid):
		return &tcpip.ErrInvalidOptionValue{}
	case errors.Is(err, conn.ErrNotConnected):
		return &tcpip.ErrNotConnected{}
	}
	return &tcpip.ErrNotPermitted{}
}

func setRepair(r *runner, s *sock, v int64) tcpip.Error {
	mode := repair.Mode(v)
	if err := r.repairable(s).SetRepair(mode); err != nil {
		return repairError(err)
	}
	s.repair = repairState{on: mode == repair.On}
	return nil
}

func getRepair(_ *runner, s *sock) (int64, tcpip.Error) {
	if s.repair.on {
		return 1, nil
	}
	return 0, nil
}

func setRepairQueue(_ *runner, s *sock, v int64) tcpip.Error {
	switch {
	case !s.repair.on:
		return &tcpip.ErrNotPermitted{}
	case v < int64(repair.NoQueue) || v > int64(repair.SendQueue):
		return &tcpip.ErrInvalidOptionValue{}
	}
	s.repair.queue = repair.Queue(v)
	return nil
}

func getRepairQueue(_ *runner, s *sock) (int64, tcpip.Error) {
	if !s.repair.on {
		return 0, &tcpip.ErrInvalidOptionValue{}
	}
	return int64(s.repair.queue), nil
}

func setQueueSeq(r *runner, _ *sock, _ int64) tcpip.Error {
	r.skip("setting TCP_QUEUE_SEQ")
	return nil
}

// getQueueSeq is in the script's terms, like the numbers of segments.
func getQueueSeq(r *runner, s *sock) (int64, tcpip.Error) {
	if !s.repair.on {
		return 0, &tcpip.ErrInvalidOptionValue{}
	}
	seq, err := r.repairable(s).QueueSeq(s.repair.queue)
	if err != nil {
		return 0, repairError(err)
	}
	if f := s.flow; f != nil {
		switch s.repair.queue {
		case repair.SendQueue:
			seq -= f.localISN
		case repair.RecvQueue:
			seq -= f.remoteISN
		}
	}
	return int64(seq), nil
}

func (r *runner) setRepairSpecial(_ *call, _ *sock, name string, _ Expr) outcome {
	r.skip("setting %s", name)
	return outcome{}
}

func (r *runner) getRepairSpecial(_ *call, _ *sock, name string) outcome {
	r.skip("getting %s", name)
	return outcome{}
}

func (r *runner) repairReceive(*call, *sock, int, int64) outcome {
	r.skip("recv in repair mode")
	return outcome{}
}

func (r *runner) repairSend(*call, *sock, int) outcome {
	r.skip("send in repair mode")
	return outcome{}
}
