package conn

import "github.com/tcprepair/ustack/stack/repair"

// State is a connection's state, one of the eleven of RFC 9293 section 3.3.2.
// The values are Linux's, which are also what tcp_info reports and what
// gVisor's EndpointState uses.
type State = repair.State

// The states. The zero value is not a state that a started connection is in;
// an unused Conn reports StateClosed.
const (
	StateEstablished = repair.StateEstablished
	StateSynSent     = repair.StateSynSent
	StateSynReceived = repair.StateSynReceived
	StateFinWait1    = repair.StateFinWait1
	StateFinWait2    = repair.StateFinWait2
	StateTimeWait    = repair.StateTimeWait
	StateClosed      = repair.StateClosed
	StateCloseWait   = repair.StateCloseWait
	StateLastAck     = repair.StateLastAck
	StateListen      = repair.StateListen
	StateClosing     = repair.StateClosing
)

// stateSet is a set of states, one bit each.
type stateSet uint16

func states(list ...State) (set stateSet) {
	for _, s := range list {
		set |= 1 << s
	}
	return set
}

func (set stateSet) has(s State) bool { return set&(1<<s) != 0 }

// successors says which states may follow which: the arrows of RFC 9293 figure
// 5, with the ones a reset, an abort or a give-up adds (anything to CLOSED).
var successors = [...]stateSet{
	StateClosed:      states(StateSynSent, StateSynReceived, StateListen),
	StateListen:      states(StateClosed),
	StateSynSent:     states(StateSynReceived, StateEstablished, StateClosed),
	StateSynReceived: states(StateEstablished, StateFinWait1, StateCloseWait, StateClosed),
	StateEstablished: states(StateFinWait1, StateCloseWait, StateClosed),
	StateFinWait1:    states(StateFinWait2, StateClosing, StateTimeWait, StateClosed),
	StateFinWait2:    states(StateTimeWait, StateClosed),
	StateCloseWait:   states(StateLastAck, StateClosed),
	StateClosing:     states(StateTimeWait, StateClosed),
	StateLastAck:     states(StateClosed),
	StateTimeWait:    states(StateClosed),
}

// restoreState puts a connection into the state that a snapshot names, without
// an arrow that leads there. Restore alone uses it, on a connection that has
// had no state before; everything else moves by setState.
func (c *Conn) restoreState(to State) { c.state = to }

// canSend holds the states in which the user may still write, canReceive those
// in which the peer's data is still taken.
var (
	canSend    = states(StateEstablished, StateCloseWait)
	canReceive = states(StateEstablished, StateFinWait1, StateFinWait2)
	finQueued  = states(StateFinWait1, StateFinWait2, StateClosing, StateLastAck, StateTimeWait)
)
