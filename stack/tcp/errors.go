package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// tcpipErrors says what a connection's errors are called in gVisor's stack.
var tcpipErrors = map[error]tcpip.Error{
	conn.ErrWouldBlock:       &tcpip.ErrWouldBlock{},
	conn.ErrClosedForReceive: &tcpip.ErrClosedForReceive{},
	conn.ErrClosedForSend:    &tcpip.ErrClosedForSend{},
	conn.ErrNotConnected:     &tcpip.ErrNotConnected{},
	conn.ErrConnecting:       &tcpip.ErrWouldBlock{},
	conn.ErrRefused:          &tcpip.ErrConnectionRefused{},
	conn.ErrReset:            &tcpip.ErrConnectionReset{},
	conn.ErrTimeout:          &tcpip.ErrTimeout{},
	conn.ErrAborted:          &tcpip.ErrAborted{},
	conn.ErrNetUnreachable:   &tcpip.ErrNetworkUnreachable{},
	conn.ErrHostUnreachable:  &tcpip.ErrHostUnreachable{},
	conn.ErrInvalid:          &tcpip.ErrInvalidOptionValue{},
	// A frozen connection will thaw; until then its user has to wait.
	conn.ErrFrozen: &tcpip.ErrWouldBlock{},
}

// tcpipError translates an error. One that is not conn's came from the reader
// or writer that the user gave us.
func tcpipError(err error) tcpip.Error {
	if err == nil {
		return nil
	}
	if known, ok := tcpipErrors[err]; ok {
		return known
	}
	return &tcpip.ErrBadBuffer{}
}

// LastError implements tcpip.Endpoint: it returns the latest asynchronous
// error, as SO_ERROR does, and forgets it.
func (e *Endpoint) LastError() tcpip.Error {
	if err := e.lastError.Swap(nil); err != nil {
		return *err
	}
	return nil
}

// LastErrorLocked is LastError. It needs no lock of the caller.
func (e *Endpoint) LastErrorLocked() tcpip.Error { return e.LastError() }

// UpdateLastError implements tcpip.SocketOptionsHandler.
func (e *Endpoint) UpdateLastError(err tcpip.Error) {
	e.lastError.Store(&err)
}
