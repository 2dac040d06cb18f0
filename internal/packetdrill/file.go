package packetdrill

import (
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// file is what a descriptor stands for.
type file interface {
	// ready is what the file is ready for.
	ready(mask waiter.EventMask) waiter.EventMask
	// abandon drops the file at the end of a run.
	abandon()
}

// sock is a socket.
type sock struct {
	ep         tcpip.Endpoint
	wq         *waiter.Queue
	flow       *flow // nil before there is a connection
	nonblock   bool
	listening  bool
	connecting bool          // connect has been called, and not heard of since
	inq        bool          // TCP_INQ
	sndTimeout time.Duration // SO_SNDTIMEO; 0: none
	rcvTimeout time.Duration
	// notsentLowat is TCP_NOTSENT_LOWAT, as it was set.
	notsentLowat int64
	// reported is set once the program has been told of the error that ended
	// the connection. Linux tells it once; gVisor would tell it for ever.
	reported bool
	// former is the connection whose numbers one that is restored on this
	// socket goes on with: the one under test when the socket was made.
	former *flow
	// deferred is whom connect has put off to connect to; see connectsLater.
	deferred netip.AddrPort
}

func (s *sock) ready(mask waiter.EventMask) waiter.EventMask { return s.ep.Readiness(mask) }

func (s *sock) abandon() { s.ep.Abort() }

// install gives a file the number that the script has for it, or the lowest
// that is free if the script expects an error. As in the original, a script may
// use a number again while the file it stood for is still open.
func (r *runner) install(c *call, f file) int64 {
	fd := 3
	if v, err := r.eval(c.Result); err == nil && v >= 0 {
		fd = int(v)
	} else {
		for r.files[fd] != nil {
			fd++
		}
	}
	if old := r.files[fd]; old != nil {
		r.nameless = append(r.nameless, old)
	}
	r.files[fd] = f
	return int64(fd)
}

// sock is the socket that the nth argument names; an error's name if there is
// none.
func (r *runner) sock(c *call, n int) (*sock, errno) {
	switch f := r.files[int(r.intArg(c, n))].(type) {
	case *sock:
		return f, ""
	case nil:
		return nil, "EBADF"
	}
	return nil, "ENOTSOCK"
}

// hardError is what a program sees of an error that ended its connection: the
// error the first time, end is what comes after it.
func (s *sock) hardError(err tcpip.Error, end outcome) outcome {
	switch err.(type) {
	case *tcpip.ErrConnectionReset, *tcpip.ErrTimeout, *tcpip.ErrConnectionRefused, *tcpip.ErrHostUnreachable,
		*tcpip.ErrNetworkUnreachable, *tcpip.ErrConnectionAborted:
		if s.reported {
			return end
		}
		s.reported = true
	}
	return failed(errnoOf(err))
}

// wait is what comes of a call that cannot go on: an error if the socket does
// not block, or a timeout has passed.
func (r *runner) wait(c *call, s *sock, dontWait bool, timeout time.Duration) outcome {
	switch {
	case c.done > 0 && (s.nonblock || dontWait):
		return returned(c.done)
	case s.nonblock || dontWait:
		return failed("EAGAIN")
	case timeout > 0:
		c.until = c.start + timeout
		if r.now() >= c.until {
			if c.done > 0 {
				return returned(c.done)
			}
			return failed("EAGAIN")
		}
	}
	return blocked
}
