package packetdrill

import (
	"fmt"
	"time"
)

// call is a system call under way.
type call struct {
	*Syscall
	line    int
	start   time.Duration
	end     time.Duration // when it must return, if it is expected to block
	handler handler
	tried   bool          // not for the first time
	opened  bool          // it has begun a handshake
	done    int64         // bytes moved so far
	until   time.Duration // when it gives up waiting by itself; 0: never
	alarm   time.Duration // for which a timer has been set
}

// handler does a system call, or as much of it as can be done now.
type handler func(r *runner, c *call) outcome

// outcome is what a handler has come to.
type outcome struct {
	ret   int64
	err   errno
	block bool   // it has to wait; nothing else is set
	wrong string // the call came out otherwise than its arguments say
	// want and got are what the arguments say and what they should have said,
	// if that can be written down.
	want, got string
}

// blocked says that a call has to wait.
var blocked = outcome{block: true}

// returned is a call's success.
func returned(n int64) outcome { return outcome{ret: n} }

// failed is a call's error.
func failed(err errno) outcome { return outcome{ret: -1, err: err} }

// wrong is a call that came out otherwise than its arguments say.
func wrong(want, got string, format string, args ...any) outcome {
	return outcome{wrong: fmt.Sprintf(format, args...), want: want, got: got}
}

// handlers are the system calls by name.
var handlers map[string]handler

func init() {
	handlers = map[string]handler{
		"socket": doSocket, "bind": onSocket(doBind), "listen": onSocket(doListen), "accept": doAccept, "accept4": doAccept,
		"connect": onSocket(doConnect), "close": doClose, "shutdown": onSocket(doShutdown),
		"read": onSocket(doRead), "recv": onSocket(doRecv), "recvfrom": onSocket(doRecv),
		"readv": onSocket(doReadv), "recvmsg": onSocket(doRecvmsg),
		"write": onSocket(doWrite), "send": onSocket(doSend), "sendto": onSocket(doSend),
		"writev": onSocket(doWritev), "sendmsg": onSocket(doSendmsg),
		"getsockopt": onSocket(doGetsockopt), "setsockopt": onSocket(doSetsockopt),
		"getsockname": onSocket(doGetsockname), "getpeername": onSocket(doGetpeername),
		"fcntl": onSocket(doFcntl), "ioctl": onSocket(doIoctl), "poll": doPoll,
		"epoll_create": doEpollCreate, "epoll_create1": doEpollCreate, "epoll_ctl": doEpollCtl, "epoll_wait": doEpollWait,
	}
}

// onSocket is a system call whose first argument is a socket.
func onSocket(h func(r *runner, c *call, s *sock) outcome) handler {
	return func(r *runner, c *call) outcome {
		s, e := r.sock(c, 0)
		if e != "" {
			return failed(e)
		}
		return h(r, c, s)
	}
}

// syscall begins a system call. Its times count from base.
func (r *runner) syscall(s *Syscall, base time.Duration) {
	r.await() // one at a time
	h, ok := handlers[s.Name]
	if !ok {
		r.skip("system call %s", s.Name)
	}
	c := &call{Syscall: s, line: r.line, start: r.now(), handler: h, end: base + s.End}
	if r.try(c) {
		return
	}
	r.pending = c
	if !s.Blocking {
		// The program sits in the call, and so does the script.
		r.await()
	}
}

// try goes on with a call and reports whether it is over.
func (r *runner) try(c *call) bool {
	out := c.handler(r, c)
	if out.block {
		c.tried = true
		if c.until > r.now() && c.alarm != c.until {
			// The clock must stop there for the call to be tried again.
			c.alarm = c.until
			r.clock.AfterFunc(c.until-r.now(), func() {})
		}
		return false
	}
	line := r.line
	r.line = c.line
	r.verdict(c, out)
	r.line = line
	return true
}

// resume goes on with the call that waits.
func (r *runner) resume() {
	if c := r.pending; c != nil {
		r.pending = nil
		if !r.try(c) {
			r.pending = c
			return
		}
		if r.cfg.Settle != nil {
			r.cfg.Settle()
		}
		r.collect()
	}
}

// await lets time pass until no call waits any more.
func (r *runner) await() {
	for r.pending != nil {
		c := r.pending
		limit := r.now() + patienceForAny
		if c.Blocking {
			limit = c.end + r.set.toleranceFor(c.end-c.start) + patience
		}
		if !r.step(max(limit, c.until)) {
			r.line = c.line
			r.mismatch(expectedCall(c), "it has not returned", "%s blocks", c.Name)
		}
	}
}

// verdict compares what a call has come to with what the script says.
func (r *runner) verdict(c *call, out outcome) {
	if out.wrong != "" {
		r.mismatch(out.want, out.got, "%s: %s", c.Name, out.wrong)
	}
	actual := fmt.Sprint(out.ret)
	if out.err != "" {
		actual += " " + string(out.err)
	}
	want, err := r.eval(c.Result)
	_, any := c.Result.(Ellipsis)
	switch {
	case err != nil && !any:
		r.fail("%v", err)
	case !any && want != out.ret, c.Errno != "" && !sameErrno(errno(c.Errno), out.err):
		r.mismatch(expectedCall(c), actual, "%s returned something else", c.Name)
	}
	if c.Blocking {
		if off := r.now() - c.end; off < -r.set.toleranceFor(c.end-c.start) || off > r.set.toleranceFor(c.end-c.start) {
			r.mismatch("at "+clockText(c.end), "at "+clockText(r.now()), "%s returned at another time", c.Name)
		}
	}
}

// expectedCall is the result that a script states.
func expectedCall(c *call) string {
	s := exprText(c.Result)
	if c.Errno != "" {
		s += " " + c.Errno
	}
	return s
}

// arg is the nth argument, or nil.
func (c *call) arg(n int) Expr {
	if n < len(c.Args) {
		return c.Args[n]
	}
	return nil
}

// intArg is the nth argument as a number.
func (r *runner) intArg(c *call, n int) int64 {
	v, err := r.eval(c.arg(n))
	if err != nil {
		r.failCall(c, "%s: argument %d: %v", c.Name, n+1, err)
	}
	return v
}

// failCall ends the run at the call's line.
func (r *runner) failCall(c *call, format string, args ...any) {
	r.line = c.line
	r.fail(format, args...)
}
