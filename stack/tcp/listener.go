package tcp

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// listener is what an endpoint has in LISTEN. Its packets are processed
// without the endpoint's lock: they only concern the queue, or make a new
// endpoint.
type listener struct {
	ep    *Endpoint
	queue acceptQueue
	// lastCookie is when a SYN was last answered with a cookie, zero if never.
	// It is a conn.Time.
	lastCookie atomic.Int64
	// options are what the connections share of the listener's.
	options atomic.Pointer[tcpip.SocketOptions]
}

// Listen implements tcpip.Endpoint. On a listener it changes the backlog.
func (e *Endpoint) Listen(backlog int) tcpip.Error {
	e.mu.Lock()
	defer e.unlock()
	return e.listen(backlog, false)
}

// listen makes a bound endpoint a listener, frozen or not. e.mu is held.
func (e *Endpoint) listen(backlog int, frozen bool) tcpip.Error {
	switch e.EndpointState() {
	case StateListen:
		e.listening.Load().queue.setBacklog(backlog)
		return nil
	case StateBound:
	default:
		return &tcpip.ErrInvalidEndpointState{}
	}
	l := &listener{ep: e}
	l.queue.setBacklog(backlog)
	l.queue.frozen.Store(frozen)
	// Packets come as soon as the endpoint is registered.
	e.listening.Store(l)
	if err := e.register(&e.place, e.place.nets, e.ends.id()); err != nil {
		e.listening.Store(nil)
		return err
	}
	e.setState(StateListen)
	if !frozen {
		e.proto.places.fill(e.ends.id()) // the tombstone of an earlier one
	}
	return nil
}

// Accept implements tcpip.Endpoint.
func (e *Endpoint) Accept(peer *tcpip.FullAddress) (tcpip.Endpoint, *waiter.Queue, tcpip.Error) {
	l := e.listening.Load()
	if l == nil {
		return nil, nil, &tcpip.ErrInvalidEndpointState{}
	}
	child := l.queue.next()
	if child == nil {
		if l.queue.isClosed() {
			return nil, nil, &tcpip.ErrInvalidEndpointState{}
		}
		return nil, nil, &tcpip.ErrWouldBlock{}
	}
	if peer != nil {
		child.mu.Lock()
		*peer = child.remote()
		child.unlock()
	}
	return child, child.wq, nil
}

// readiness is what a listener is ready for.
func (l *listener) readiness() (mask waiter.EventMask) {
	if l.queue.pending() {
		mask |= waiter.ReadableEvents
	}
	if l.queue.isClosed() {
		mask |= waiter.ReadableEvents | waiter.EventHUp
	}
	return mask
}

// deliver makes a connection acceptable whose handshake is complete. No lock
// is held.
func (l *listener) deliver(child *Endpoint) {
	if !l.queue.promote(child) {
		child.Abort()
		return
	}
	if b := &l.ep.proto.batcher; addTo(b, &b.ready, l) {
		return
	}
	// Not in this goroutine, which brought the handshake's last packet and is
	// perhaps the very one that is still in Connect at the other end of a
	// loopback: a waiter of the listener has other work than its peers', and
	// may wait for what comes after Connect (gVisor's tests of readiness do).
	go l.notify()
	l.queue.remind(l.ep.proto.stack.Clock(), l.notify)
}

func (l *listener) notify() { l.ep.wq.Notify(waiter.ReadableEvents) }

// input takes a segment that was sent to the listener, and owns it.
func (l *listener) input(p *packet) {
	switch {
	case l.ep.proto.places.swallow(p):
		return
	case l.queue.frozen.Load():
		l.refuse(p, conn.DropSocketRepair)
		return
	}
	switch action, reason := conn.ListenVerdict(&p.seg); action {
	case conn.ListenOpen:
		l.inputSyn(p)
	case conn.ListenReset:
		if !l.ep.proto.arrived(p) {
			l.inputAck(p)
		}
	default:
		l.refuse(p, reason)
	}
}

// refuse drops a segment.
func (l *listener) refuse(p *packet, reason conn.DropReason) {
	l.ep.refuse(p, reason)
	l.ep.proto.droppedPackets.Increment()
}

// reset answers a segment with a reset.
func (l *listener) reset(p *packet, reason conn.DropReason) {
	l.ep.proto.drop(reason)
	l.ep.countRefused(reason)
	l.ep.proto.answerReset(p)
}

// inputSyn takes a SYN: the second step.
func (l *listener) inputSyn(p *packet) {
	if l.queue.isClosed() {
		l.reset(p, conn.DropNoSocket) // shut down: nobody will accept
		return
	}
	switch l.queue.admit(l.ep.proto.options.snapshot().alwaysCookies) {
	case admitNot:
		l.ep.stats.all().ReceiveErrors.ListenOverflowSynDrop.Increment()
		l.ep.proto.stats.ListenOverflowSynDrop.Increment()
		l.refuse(p, conn.DropListenOverflow)
	case admitCookie:
		l.sendCookie(p)
	case admitEmbryo:
		l.hatch(p)
	}
}

// hatch makes an embryo of an admitted SYN.
func (l *listener) hatch(p *packet) {
	child, err := l.ep.newChild(p, nil)
	if err != nil {
		l.queue.refuseComing()
		l.ep.failedAttempt()
		p.release()
		return
	}
	// child is locked and nobody else's yet.
	early, reply := l.fastOpen(p)
	if early {
		l.hatchEarly(child, p, reply)
		return
	}
	child.parent = l
	if !l.queue.add(child) {
		child.discard()
		l.reset(p, conn.DropNoSocket)
		return
	}
	now := child.proto.now()
	if d := child.settings.deferAccept; d > 0 {
		child.opening = &opening{deferUntil: now.Add(d)}
	}
	cfg := child.config(now)
	cfg.FastOpen = reply
	child.conn.Accept(now, &cfg, &p.seg)
	child.started = true
	child.unlock()
}

// newChild makes the endpoint for the connection that a SYN, or the ACK of a
// cookie, opens. Without a queue (nil) it uses one of its own. It is registered and returned locked; the caller starts its
// connection.
func (e *Endpoint) newChild(p *packet, wq *waiter.Queue) (*Endpoint, tcpip.Error) {
	route, err := e.proto.replyRoute(p)
	if err != nil {
		return nil, err
	}
	child := newBareEndpoint(e.proto, p.net, wq)
	child.inherit(e)
	child.mu.Lock()
	child.passive, child.connectDone = true, true
	child.route = route
	nets := only(p.net)
	child.place = child.placeFor(nets)
	child.nic, child.addressBound = p.nic, true
	if err := child.register(&child.place, nets, p.id); err != nil {
		child.discard()
		return nil, err
	}
	child.ends = endsOf(p.id)
	child.place.local, child.place.remote = true, true
	// Keeps others from binding the port when the listener is gone.
	child.place.portReserved = child.proto.stack.ReserveTuple(child.place.reservation(p.id))
	return child, nil
}

// discard gives up a locked endpoint whose connection has not started.
func (e *Endpoint) discard() {
	e.userGone = true
	e.parent = nil
	e.setState(StateClose)
	e.release()
	e.unlock()
}

// inherit copies a listener's options to a connection of its. e is nobody
// else's yet.
func (e *Endpoint) inherit(from *Endpoint) {
	from.mu.Lock()
	e.settings, e.owner = from.settings, from.owner
	e.settingsShared, from.settingsShared = true, true
	from.unlock()
	e.ops.values.Store(from.shareOptions())
}

// nicChecker is a socket-option handler that does nothing but know which
// interfaces there are.
type nicChecker struct {
	tcpip.DefaultSocketOptionsHandler
	stack *stack.Stack
}

// HasNIC implements tcpip.SocketOptionsHandler.
func (c *nicChecker) HasNIC(id int32) bool { return c.stack.HasNIC(tcpip.NICID(id)) }

// inputEmbryo takes a segment for a half-open connection. A place in the
// accept queue is kept for the connection before the segment can complete it:
// with none the last ACK is dropped, and the retransmitted SYN-ACK will draw
// another. e.mu is held.
func (e *Endpoint) inputEmbryo(now conn.Time, p *packet) {
	l := e.parent
	completing := p.seg.Flags&(header.TCPFlagSyn|header.TCPFlagRst|header.TCPFlagAck) == header.TCPFlagAck
	if !completing || e.conn.Frozen() {
		e.inputConn(now, p)
		return
	}
	if e.deferred(now, p) {
		p.release()
		return
	}
	e.adoptCookie(now, p)
	if !l.queue.keep(e) {
		e.stats.all().ReceiveErrors.ListenOverflowAckDrop.Increment()
		e.proto.stats.ListenOverflowAckDrop.Increment()
		e.refuse(p, conn.DropListenOverflow)
		return
	}
	e.inputConn(now, p)
	if e.conn.State() == conn.StateSynReceived {
		l.queue.unkeep(e)
	}
}

// deferred reports whether TCP_DEFER_ACCEPT makes the last ACK of the
// handshake wait for data. The peer takes the connection for open and will
// send; the SYN-ACK that is sent again in the meantime does no harm.
func (e *Endpoint) deferred(now conn.Time, p *packet) bool {
	return e.opening != nil && e.opening.deferUntil > now && p.seg.DataLen() == 0 && !p.seg.Has(header.TCPFlagFin)
}
