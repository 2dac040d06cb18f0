package tcp

import (
	"bytes"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// SetFastOpenBacklog lets a listener accept data on SYNs with a good cookie, for
// up to n connections whose handshake is not over (TCP_FASTOPEN); 0 ends that.
// It may be called before Listen. Tuning.FastOpen must allow it, too.
func (e *Endpoint) SetFastOpenBacklog(n int) tcpip.Error {
	if n < 0 {
		return &tcpip.ErrInvalidOptionValue{}
	}
	e.mu.Lock()
	defer e.unlock()
	switch e.EndpointState() {
	case StateInitial, StateBound, StateListen:
	default:
		return &tcpip.ErrInvalidOptionValue{}
	}
	e.change().fastOpenBacklog = n
	return nil
}

// FastOpenBacklog returns what SetFastOpenBacklog has set.
func (e *Endpoint) FastOpenBacklog() int {
	e.mu.Lock()
	defer e.unlock()
	return e.settings.fastOpenBacklog
}

// SetFastOpenKeys sets keys for a listener's own cookies (TCP_FASTOPEN_KEY), as
// the function of the same name does for the stack's.
func (e *Endpoint) SetFastOpenKeys(keys ...FastOpenKey) tcpip.Error {
	if len(keys) == 0 || len(keys) > maxFastOpenKeys {
		return &tcpip.ErrInvalidOptionValue{}
	}
	e.mu.Lock()
	defer e.unlock()
	own := fastOpenKeys(slices.Clone(keys))
	e.change().fastOpenKeys = &own
	return nil
}

// FastOpenKeys returns the keys in force for a listener.
func (e *Endpoint) FastOpenKeys() []FastOpenKey {
	e.mu.Lock()
	own := e.settings.fastOpenKeys
	e.unlock()
	if own == nil {
		return slices.Clone(e.proto.serverKeys())
	}
	return slices.Clone(*own)
}

// fastOpen decides on a SYN that has been admitted: whether its data is taken,
// and what Fast Open option the SYN-ACK carries, nil for none.
// https://www.rfc-editor.org/rfc/rfc7413#section-4.2.2
func (l *listener) fastOpen(p *packet) (early bool, reply *conn.FastOpen) {
	asked, data := p.seg.Options.FastOpen, p.seg.DataLen() > 0
	if asked == nil && !data {
		return false, nil
	}
	e := l.ep
	mode := e.proto.options.snapshot().tuning.FastOpen
	if mode&FastOpenServer == 0 {
		return false, nil
	}
	e.mu.Lock()
	room := e.settings.fastOpenBacklog
	e.unlock()
	if !l.queue.mayBeEarly(room, mode&FastOpenListeners != 0) {
		return false, nil
	}
	if mode&FastOpenServerNoCookie != 0 {
		return true, nil
	}
	if asked == nil {
		return false, nil
	}
	keys := e.FastOpenKeys()
	if len(keys) == 0 {
		return false, nil
	}
	mine := keys[0].cookie(p.id)
	reply = &conn.FastOpen{Cookie: mine, Experimental: asked.Experimental}
	switch {
	case len(asked.Cookie) == 0:
		return false, reply
	case bytes.Equal(asked.Cookie, mine):
		return true, nil
	case len(keys) > 1 && bytes.Equal(asked.Cookie, keys[1].cookie(p.id)):
		return true, reply // good for the last time
	}
	return false, reply
}

// hatchEarly makes a connection of a SYN with a good cookie that may be accepted
// at once. child is locked, and nobody else's yet.
func (l *listener) hatchEarly(child *Endpoint, p *packet, reply *conn.FastOpen) {
	if !l.queue.addEarly(child) {
		child.discard()
		l.reset(p, conn.DropNoSocket)
		return
	}
	child.parent, child.early = l, true
	now := child.proto.now()
	cfg := child.config(now)
	cfg.FastOpen, cfg.Early = reply, true
	child.conn.Accept(now, &cfg, &p.seg)
	child.started = true
	child.unlock()
	go l.ep.wq.Notify(waiter.ReadableEvents) // as deliver does
}

// mayBeEarly reports whether another connection may be accepted before its
// handshake is over. room is how many may be; with all, as many as the backlog.
func (q *acceptQueue) mayBeEarly(room int, all bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if room == 0 && all {
		room = q.backlog
	}
	return q.early < room
}

// addEarly makes an admitted SYN's endpoint ready at once. It reports false if
// the listener has closed in the meantime.
func (q *acceptQueue) addEarly(e *Endpoint) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.coming--
	if q.closed {
		return false
	}
	q.early++
	q.ready = append(q.ready, e)
	return true
}

// endEarly is called when the handshake of one is over, one way or the other.
func (q *acceptQueue) endEarly() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.early--
}
