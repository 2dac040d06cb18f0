package repair

import "fmt"

var stateNames = [...]string{
	StateEstablished: "ESTABLISHED",
	StateSynSent:     "SYN-SENT",
	StateSynReceived: "SYN-RECEIVED",
	StateFinWait1:    "FIN-WAIT-1",
	StateFinWait2:    "FIN-WAIT-2",
	StateTimeWait:    "TIME-WAIT",
	StateClosed:      "CLOSED",
	StateCloseWait:   "CLOSE-WAIT",
	StateLastAck:     "LAST-ACK",
	StateListen:      "LISTEN",
	StateClosing:     "CLOSING",
}

// String returns the name that RFC 9293 uses.
func (s State) String() string {
	if s.known() {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

func (s State) known() bool { return s != 0 && int(s) < len(stateNames) }

// Synchronized reports whether both sides have agreed on sequence numbers: all
// states but CLOSED, LISTEN, SYN-SENT and SYN-RECEIVED.
func (s State) Synchronized() bool {
	switch s {
	case StateEstablished, StateFinWait1, StateFinWait2, StateCloseWait, StateClosing, StateLastAck, StateTimeWait:
		return true
	}
	return false
}

// in reports whether s is one of list.
func (s State) in(list ...State) bool {
	for _, t := range list {
		if s == t {
			return true
		}
	}
	return false
}

// Of Linux's state alone can be told what has become of the FINs, but for
// whether ours, if it is not acknowledged, has left.
var (
	finQueuedStates   = []State{StateFinWait1, StateFinWait2, StateClosing, StateLastAck, StateTimeWait}
	finAckedStates    = []State{StateFinWait2, StateTimeWait}
	finReceivedStates = []State{StateCloseWait, StateClosing, StateLastAck, StateTimeWait}
)
