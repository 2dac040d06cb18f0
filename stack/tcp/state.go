package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// EndpointState is where an endpoint is in its life. The first eleven are
// TCP's, with Linux's numbers (include/net/tcp_states.h); the others are what
// an endpoint is while it has no connection.
type EndpointState tcpip.EndpointState

// The states.
const (
	StateEstablished EndpointState = iota + 1
	StateSynSent
	StateSynRecv
	StateFinWait1
	StateFinWait2
	StateTimeWait
	StateClose
	StateCloseWait
	StateLastAck
	StateListen
	StateClosing

	// StateInitial is a new endpoint's.
	StateInitial
	// StateBound is an endpoint's that has an address and a port.
	StateBound
	// StateConnecting is kept for compatibility: Connect sends the SYN at
	// once, so no endpoint is seen in it.
	StateConnecting
	// StateError is an endpoint's whose connection ended with an error.
	StateError
)

// String returns the state's name, as Linux writes it where it has it.
func (s EndpointState) String() string {
	switch s {
	case StateEstablished:
		return "ESTABLISHED"
	case StateSynSent:
		return "SYN-SENT"
	case StateSynRecv:
		return "SYN-RCVD"
	case StateFinWait1:
		return "FIN-WAIT1"
	case StateFinWait2:
		return "FIN-WAIT2"
	case StateTimeWait:
		return "TIME-WAIT"
	case StateClose:
		return "CLOSED"
	case StateCloseWait:
		return "CLOSE-WAIT"
	case StateLastAck:
		return "LAST-ACK"
	case StateListen:
		return "LISTEN"
	case StateClosing:
		return "CLOSING"
	case StateInitial:
		return "INITIAL"
	case StateBound:
		return "BOUND"
	case StateConnecting:
		return "CONNECTING"
	case StateError:
		return "ERROR"
	}
	return "UNKNOWN"
}

// connState is a connection's state as an endpoint's: the numbers are the same.
func connState(s conn.State) EndpointState { return EndpointState(s) }

// EndpointState returns where the endpoint is in its life. It takes no lock.
func (e *Endpoint) EndpointState() EndpointState {
	return EndpointState(e.state.Load())
}

// State implements tcpip.Endpoint.
func (e *Endpoint) State() uint32 { return e.state.Load() }

// setState publishes the endpoint's state. e.mu is held.
func (e *Endpoint) setState(s EndpointState) { e.state.Store(uint32(s)) }
