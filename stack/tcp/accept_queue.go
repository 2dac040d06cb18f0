package tcp

import (
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// acceptQueue holds a listener's connections until they are accepted: embryos,
// whose handshake is under way, and ready ones. Its lock is the last to be
// taken; what is done under it is bookkeeping only.
//
// https://www.rfc-editor.org/rfc/rfc4987 says what the bounds are for.
type acceptQueue struct {
	frozen atomic.Bool // in repair; it is set with mu held

	mu      sync.Mutex
	backlog int // at least 1
	closed  bool
	ready   []*Endpoint
	// embryos are the half-open connections; true: a place among the ready
	// is kept for this one, whose last ACK is being processed.
	embryos map[*Endpoint]bool
	kept    int // how many of embryos are true
	early   int // how many were accepted, or may be, with their handshake under way (RFC 7413)
	coming  int // how many SYNs have been admitted and are not embryos yet
	// reminder, if not nil, is set for waiters that came a little late.
	reminder tcpip.Timer
}

// reminderDelay is how long a connection waits to be accepted before waiters
// are told again.
const reminderDelay = 10 * time.Millisecond

// admission is what becomes of a SYN.
type admission uint8

const (
	admitNot    admission = iota // nobody could take the connection
	admitEmbryo                  // it becomes a half-open connection
	admitCookie                  // it is answered, and not remembered
)

// setBacklog changes how many connections may be ready at once.
func (q *acceptQueue) setBacklog(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.backlog = max(n, 1)
	q.closed = false
}

// admit decides on a SYN. While there is room among the ready, there may be as
// many embryos as would fill the queue but for one; further SYNs get a cookie.
// After admitEmbryo the caller calls add or refuseComing.
func (q *acceptQueue) admit(onlyCookies bool) admission {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed || len(q.ready)+q.kept >= q.backlog:
		return admitNot
	case onlyCookies || len(q.embryos)+q.coming+1 >= q.backlog:
		return admitCookie
	}
	q.coming++
	return admitEmbryo
}

// add makes an admitted SYN's endpoint an embryo. It reports false if the
// listener has closed in the meantime.
func (q *acceptQueue) add(e *Endpoint) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.coming--
	return q.insert(e, false)
}

// refuseComing is called instead of add when there is no endpoint.
func (q *acceptQueue) refuseComing() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.coming--
}

// insert makes e an embryo. q.mu is held.
func (q *acceptQueue) insert(e *Endpoint, keep bool) bool {
	if q.closed {
		return false
	}
	if q.embryos == nil {
		q.embryos = make(map[*Endpoint]bool)
	}
	q.embryos[e] = keep
	if keep {
		q.kept++
	}
	return true
}

// addKept makes an endpoint that comes of a cookie an embryo with a place kept
// for it; false if there is none.
func (q *acceptQueue) addKept(e *Endpoint) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ready)+q.kept < q.backlog && q.insert(e, true)
}

// keep keeps a place for an embryo that may become ready; false if there is
// none.
func (q *acceptQueue) keep(e *Endpoint) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	kept, ok := q.embryos[e]
	switch {
	case !ok || q.closed:
		return false
	case kept:
		return true
	case len(q.ready)+q.kept >= q.backlog:
		return false
	}
	q.embryos[e] = true
	q.kept++
	return true
}

// unkeep undoes keep.
func (q *acceptQueue) unkeep(e *Endpoint) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.embryos[e] {
		q.embryos[e] = false
		q.kept--
	}
}

// forget removes an embryo that came to nothing.
func (q *acceptQueue) forget(e *Endpoint) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.remove(e)
}

func (q *acceptQueue) remove(e *Endpoint) {
	if q.embryos[e] {
		q.kept--
	}
	delete(q.embryos, e)
}

// promote makes an embryo ready. It reports false if the listener has closed.
func (q *acceptQueue) promote(e *Endpoint) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.remove(e)
	q.ready = append(q.ready, e)
	return true
}

// remind has notify called once more in a while, if connections are waiting
// then. The notification of a connection comes from another goroutine than its
// last packet; a user who begins to wait after one and before the other may
// take it to be still to come.
func (q *acceptQueue) remind(clock tcpip.Clock, notify func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.reminder != nil {
		return
	}
	q.reminder = clock.AfterFunc(reminderDelay, func() {
		q.mu.Lock()
		q.reminder = nil
		waiting := len(q.ready) > 0
		q.mu.Unlock()
		if waiting {
			notify()
		}
	})
}

// next takes the connection that has been ready longest, nil if there is none.
func (q *acceptQueue) next() *Endpoint {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.ready) == 0 || q.frozen.Load() {
		return nil
	}
	e := q.ready[0]
	q.ready[0] = nil
	q.ready = q.ready[1:]
	return e
}

// pending reports whether a connection can be accepted.
func (q *acceptQueue) pending() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ready) > 0 && !q.frozen.Load()
}

// isClosed reports whether the queue takes no more connections.
func (q *acceptQueue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

// close ends the queue and returns the connections nobody will accept.
func (q *acceptQueue) close() []*Endpoint {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if q.reminder != nil {
		q.reminder.Stop()
		q.reminder = nil
	}
	all := q.ready
	for e := range q.embryos {
		all = append(all, e)
	}
	q.ready, q.embryos, q.kept = nil, nil, 0
	return all
}
