package stack

import (
	"context"
	"time"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// drainPoll is how often Drain looks.
const drainPoll = 10 * time.Millisecond

// Drain waits until every connection has delivered what was written to it and
// has ended, or has nothing left but its TIME-WAIT. It closes nothing: it is
// for the time between the last Conn.Close and Stack.Close. It returns
// ctx.Err() if ctx ends first.
func (s *Stack) Drain(ctx context.Context) error {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for s.busy() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// busy reports whether a connection still has something to say to its peer.
func (s *Stack) busy() bool {
	for _, c := range s.Conns() {
		switch c.State {
		case conn.StateClosed, conn.StateTimeWait, conn.StateFinWait2:
		default:
			return true
		}
	}
	return false
}
