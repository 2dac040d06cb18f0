// Package repair is the vocabulary of moving a live TCP connection: how it is
// frozen, read out, and set down again, on a user-space stack or on a Linux
// socket in TCP_REPAIR mode.
//
// The package is a leaf. It imports the standard library only, so that every
// part of the project, and every program around it, can speak it.
package repair

import "fmt"

// Mode switches repair on a connection. The values are those of Linux's
// TCP_REPAIR socket option (include/uapi/linux/tcp.h).
type Mode int

const (
	// Off thaws the connection and sends a window probe, so that the peer
	// answers with its present acknowledgement and window (TCP_REPAIR_OFF).
	Off Mode = 0
	// On freezes the connection: it says nothing and accepts nothing until it
	// is switched off (TCP_REPAIR_ON).
	On Mode = 1
	// OffNoProbe thaws the connection without the window probe
	// (TCP_REPAIR_OFF_NO_WP).
	OffNoProbe Mode = -1
)

// Valid reports whether m is one of the three modes.
func (m Mode) Valid() bool { return m == Off || m == On || m == OffNoProbe }

// String returns the name the command line uses: "on", "off" or "off-no-probe".
func (m Mode) String() string {
	switch m {
	case On:
		return "on"
	case Off:
		return "off"
	case OffNoProbe:
		return "off-no-probe"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// Queue names one of a connection's two byte queues, with the values of
// Linux's TCP_REPAIR_QUEUE.
type Queue uint8

const (
	// NoQueue selects neither queue (TCP_NO_QUEUE).
	NoQueue Queue = 0
	// RecvQueue holds what the peer sent and the user has not read (TCP_RECV_QUEUE).
	RecvQueue Queue = 1
	// SendQueue holds what the user wrote and the peer has not acknowledged,
	// sent or not (TCP_SEND_QUEUE).
	SendQueue Queue = 2
)

// String returns "none", "recv" or "send".
func (q Queue) String() string {
	switch q {
	case NoQueue:
		return "none"
	case RecvQueue:
		return "recv"
	case SendQueue:
		return "send"
	}
	return fmt.Sprintf("Queue(%d)", int(q))
}
