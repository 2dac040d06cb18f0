package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// Socket options of Linux's for which gVisor has no type. They are methods
// here, because only package tcpip can add to its options.

// SetNotSentLowat bounds how many bytes wait to be sent for the first time: a
// Write takes no more, and the endpoint is writable while less than half of it
// waits (TCP_NOTSENT_LOWAT). 0 leaves it to Tuning.NotSentLowat; a negative
// value is refused with ErrInvalidOptionValue. A listener hands it on to its
// connections.
func (e *Endpoint) SetNotSentLowat(n int64) (err tcpip.Error) {
	if n < 0 {
		return &tcpip.ErrInvalidOptionValue{}
	}
	e.do(func(now conn.Time) {
		e.change().notSentLowat = n
		e.setUser(now, func(o *conn.UserOptions) { o.NotSentLowat = e.notSentLowat() })
	})
	return nil
}

// NotSentLowat returns what SetNotSentLowat has set.
func (e *Endpoint) NotSentLowat() int64 {
	e.mu.Lock()
	defer e.unlock()
	return e.settings.notSentLowat
}

// notSentLowat is the bound in force. e.mu is held.
func (e *Endpoint) notSentLowat() int64 {
	if n := e.settings.notSentLowat; n != 0 {
		return n
	}
	return e.proto.options.snapshot().tuning.NotSentLowat
}
