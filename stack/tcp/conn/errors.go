package conn

import "errors"

// What a call, or a connection that has ended, can report. An adapter maps
// them to its own errors in one table.
var (
	// ErrWouldBlock: nothing to read, or no room to write, or the connection
	// is frozen. Wait for the matching Event.
	ErrWouldBlock = errors.New("operation would block")
	// ErrClosedForReceive: everything the peer sent has been read and it sent
	// a FIN, or the user shut the receiving side.
	ErrClosedForReceive = errors.New("closed for receive")
	// ErrClosedForSend: the user has shut the sending side (EPIPE).
	ErrClosedForSend = errors.New("closed for send")
	// ErrNotConnected: the handshake has not begun or the call does not fit
	// the state (ENOTCONN).
	ErrNotConnected = errors.New("not connected")
	// ErrConnecting: the handshake is under way (EINPROGRESS).
	ErrConnecting = errors.New("handshake in progress")
	// ErrRefused: a reset answered our SYN (ECONNREFUSED).
	ErrRefused = errors.New("connection refused")
	// ErrReset: the peer reset the connection (ECONNRESET).
	ErrReset = errors.New("connection reset by peer")
	// ErrTimeout: the peer stopped answering and was given up (ETIMEDOUT).
	ErrTimeout = errors.New("connection timed out")
	// ErrAborted: the user aborted the connection (ECONNABORTED).
	ErrAborted = errors.New("connection aborted")
	// ErrNetUnreachable and ErrHostUnreachable: ICMP said so.
	ErrNetUnreachable  = errors.New("network unreachable")
	ErrHostUnreachable = errors.New("host unreachable")
	// ErrInvalid: an argument out of range (EINVAL).
	ErrInvalid = errors.New("invalid argument")
	// ErrFrozen: the call would change a connection in repair mode (EPERM).
	ErrFrozen = errors.New("connection is in repair mode")
)
