package tcp

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/ports"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// Endpoint is one TCP socket: unbound, bound, listening, or with a connection.
//
// Lock order: a goroutine that holds mu may take the stack's tables, the
// listener's queue and the inbox, never another endpoint's mu. Packets are
// written and waiters notified with no lock held at all.
type Endpoint struct {
	tcpip.DefaultSocketOptionsHandler

	// What every packet touches stands first.

	proto     *protocol
	mu        sync.Mutex
	inbox     inbox
	listening atomic.Pointer[listener] // written with mu held
	stats     tally
	state     atomic.Uint32 // an EndpointState; written with mu held
	ready     atomic.Uint32 // a waiter.EventMask: what Readiness reports; likewise

	// The rest, but for what says otherwise, is guarded by mu.

	flags
	net   tcpip.NetworkProtocolNumber
	bound tcpip.NICID // by Bind; 0: to none
	nic   tcpip.NICID // the connection's; 0: the routes say

	wq       *waiter.Queue
	settings *settings // not to be written to if shared; see change
	ops      socketOptions
	route    *stack.Route
	// confirmAt is when route is next to be confirmed.
	confirmAt conn.Time
	// parent is the listener whose connection this is, until the handshake is
	// over. The endpoint is an embryo there, or with Fast Open may have been
	// accepted already: then early is set.
	parent  *listener
	opening *opening     // nil: nothing is special about the handshake
	kept    *reservation // holds what comes while the connection, restored, is frozen
	others  *others      // what is to be done once the lock is let go; nil: nothing
	waiting *waiting     // nil: nobody waits
	timer   timer
	wake    waiter.EventMask // for the next unlock to notify

	ends ends

	// conn is in use from started on, and stays readable after its end.
	conn conn.Conn

	place     place
	owner     *tcpip.PacketOwner // nil: none
	lastError atomic.Pointer[tcpip.Error]
	number    uint64       // never changes
	ownWQ     waiter.Queue // what wq is, unless the user has brought one
	view      RepairSocket // never changes
}

// flags are all of an endpoint that takes no more than a byte.
type flags struct {
	started        bool
	sending        bool // some goroutine is writing packets; see unlock
	late           bool // the batcher will have an acknowledgement sent
	news           bool // the batcher will tell the waiters
	putOffs        uint8
	released       bool // nothing of the stack's is held any more
	passive        bool // opened by a peer's SYN
	early          bool // see parent
	settingsShared bool
	addressBound   bool // to an address, which is the local one
	connectDone    bool // Connect has reported the outcome of the handshake
	readShut       bool // by the user
	writeShut      bool
	userGone       bool         // Close was called
	givenUp        surrender    // goes before conn.Err
	queue          repair.Queue // selected by OptionRepairQueue
	gauges         gauges
}

// waiting is what other goroutines wait for.
type waiting struct {
	quiet *sync.Cond    // signalled when sending ends; its lock is the endpoint's
	done  chan struct{} // closed when released is set
}

// forWaiting returns what is to be waited for. e.mu is held.
func (e *Endpoint) forWaiting() *waiting {
	if e.waiting == nil {
		e.waiting = new(waiting)
	}
	return e.waiting
}

// isEmbryo reports whether a listener has the endpoint, half-open, in its queue.
// e.mu is held.
func (e *Endpoint) isEmbryo() bool { return e.parent != nil && !e.early }

// place is what an endpoint holds in the stack's tables.
type place struct {
	device tcpip.NICID
	flags  ports.Flags // as they were when the port was reserved
	nets   netSet
	// Of which of the endpoint's ends the port is reserved for the address: an
	// endpoint that Bind gave a port has it for every peer, and perhaps every
	// address of the host.
	local, remote bool
	portReserved  bool
	// Whose packets are delivered to the endpoint.
	registered bool
	listedFor  netSet
}

var (
	_ tcpip.Endpoint             = (*Endpoint)(nil)
	_ stack.TransportEndpoint    = (*Endpoint)(nil)
	_ tcpip.SocketOptionsHandler = (*Endpoint)(nil)
)

func newEndpoint(p *protocol, net tcpip.NetworkProtocolNumber, wq *waiter.Queue) *Endpoint {
	e := newBareEndpoint(p, net, wq)
	e.resemble(p.fresh())
	return e
}

// newBareEndpoint makes an endpoint whose settings and options are to be set.
func newBareEndpoint(p *protocol, net tcpip.NetworkProtocolNumber, wq *waiter.Queue) *Endpoint {
	e := &Endpoint{
		proto:  p,
		wq:     wq,
		number: p.lastID.Add(1),
		net:    net,
	}
	e.view.e = e
	if wq == nil {
		e.wq = &e.ownWQ
	}
	e.setState(StateInitial)
	e.ready.Store(uint32(waiter.WritableEvents | waiter.EventHUp)) // as Linux's tcp_poll has it
	return e
}

// ID is the endpoint's number: positive, unique among the stack's endpoints,
// and the same for as long as the endpoint lives.
func (e *Endpoint) ID() uint64 { return e.number }

// do runs f with the endpoint locked and everything that arrived before taken
// into account, then sends what is to be sent and tells whom it concerns.
func (e *Endpoint) do(f func(now conn.Time)) {
	e.mu.Lock()
	now := e.proto.now()
	e.drain(now)
	f(now)
	e.unlock()
}

// unlock lets go of e.mu after it has settled what was done under it: the
// inbox is empty, output is on its way, the timer stands, waiters know.
//
// Output is pulled with the lock held but written without it, because a write
// may run far: into a queueing discipline, or, on a loopback, straight into the
// peer's HandlePacket and from there back into ours. To keep the order one
// goroutine at a time sends; others leave their output to it. That also bounds
// the recursion: an endpoint appears on a call stack once as a sender, however
// many answers its own packets draw.
//
// What a batch of packets calls for waits for the batch to end, whoever has the
// lock meanwhile; see Batcher.
func (e *Endpoint) unlock() { e.endTurn(false) }

// endTurn is unlock, which puts nothing off if all is set.
func (e *Endpoint) endTurn(all bool) {
	for ; ; all = false {
		now := e.proto.now()
		e.drain(now)
		var out outbox
		later := false
		if !e.sending {
			if later = !all && e.putOff(); !later {
				e.pull(now, &out)
				e.sending = out.n > 0
			}
		}
		n := e.observe()
		if later && e.putOffNews(n.wake) {
			n.wake = 0
		}
		if !e.sending {
			e.rest(now)
		}
		n.others, e.others = e.others, nil
		e.mu.Unlock()

		n.tell(e)
		if out.n > 0 {
			out.write(e)
			e.mu.Lock()
			e.sending = false
			if w := e.waiting; w != nil && w.quiet != nil {
				w.quiet.Broadcast()
			}
			continue
		}
		// A packet pushed after our drain, by a goroutine that found the lock
		// taken, is ours to process.
		if e.inbox.empty() || !e.mu.TryLock() {
			return
		}
	}
}

// letGo unlocks an endpoint that nothing was done to.
func (e *Endpoint) letGo() {
	e.mu.Unlock()
	// A packet pushed meanwhile waits for whoever had the lock.
	if !e.inbox.empty() && e.mu.TryLock() {
		e.unlock()
	}
}

// settled lets go of an endpoint with a frozen connection, which has nothing to
// send: it publishes what others may see.
func (e *Endpoint) settled() {
	e.publishState(e.conn.State())
	e.ready.Store(uint32(e.readiness()))
	e.letGo()
}

// rest is what remains to do when there is nothing to send. e.mu is held.
func (e *Endpoint) rest(now conn.Time) {
	if !e.started {
		return
	}
	if e.conn.State() == conn.StateClosed {
		e.release()
		return
	}
	e.timer.arm(e, now, e.conn.Deadline())
}

// news is what a turn with the lock has brought that concerns others.
type news struct {
	wake    waiter.EventMask
	accept  *listener // whose queue the endpoint is ready for
	orphans *listener // whose embryo the endpoint no longer is
	others  *others
}

// others is what concerns other endpoints, which must wait for the lock.
type others struct {
	strays  []packet    // packets that are not the endpoint's any more
	abandon []*Endpoint // to be aborted
}

// forOthers returns the endpoint's others to be added to. e.mu is held.
func (e *Endpoint) forOthers() *others {
	if e.others == nil {
		e.others = new(others)
	}
	return e.others
}

// tell passes the news on. No lock is held.
func (n *news) tell(e *Endpoint) {
	if n.orphans != nil {
		n.orphans.queue.forget(e)
	}
	if n.accept != nil {
		n.accept.deliver(e)
	}
	if n.wake != 0 {
		e.wq.Notify(n.wake)
	}
	if n.others == nil {
		return
	}
	for _, child := range n.others.abandon {
		child.Abort()
	}
	e.proto.redeliver(e, n.others.strays)
}

// observe takes note of what the connection has become. e.mu is held.
func (e *Endpoint) observe() (n news) {
	if !e.started {
		n.wake, e.wake = e.wake, 0
		return n
	}
	ev := e.conn.Events()
	from, to := conn.State(e.state.Load()), e.conn.State()
	e.countState(ev, from, to)
	e.countEvents()
	e.publishState(to)
	e.publishBuffers()
	if err := e.conn.Err(); err != nil && ev&conn.EventError != 0 && e.givenUp == notGivenUp {
		e.UpdateLastError(tcpipError(err))
	}
	if to == conn.StateClosed {
		e.leave()
	}
	if ev&conn.EventEstablished != 0 && e.conn.Deadline() == conn.Never {
		e.timer.stop() // the handshake's, which would lie about for a second
	}
	if l := e.parent; l != nil && to != conn.StateSynReceived {
		e.parent = nil
		switch {
		case e.early:
			l.queue.endEarly()
		case to == conn.StateClosed:
			n.orphans = l
		default:
			n.accept = l
		}
	}
	e.ready.Store(uint32(e.readiness()))
	n.wake = wakeFor(ev) | e.wake
	e.wake = 0
	return n
}

// publishState sets the endpoint's state from the connection's.
func (e *Endpoint) publishState(s conn.State) {
	switch {
	case s != conn.StateClosed:
		e.setState(connState(s))
	case e.givenUp != notGivenUp || e.conn.Err() != nil:
		e.setState(StateError)
	default:
		e.setState(StateClose)
	}
}

// publishBuffers makes visible what auto-tuning has made of the buffers. e.mu
// is held.
func (e *Endpoint) publishBuffers() {
	o := &e.ops
	rcv, snd := e.bufferSizes()
	if rcv != o.rcvBuf {
		if o.rcvBuf != 0 && o.own.Load() {
			e.options().SetReceiveBufferSize(int64(rcv)*SegOverheadFactor, false)
		}
		o.rcvTuned, o.rcvBuf = o.rcvBuf != 0, rcv
	}
	if snd != o.sndBuf {
		if o.sndBuf != 0 && o.own.Load() {
			e.options().SetSendBufferSize(int64(snd), false)
		}
		o.sndTuned, o.sndBuf = o.sndBuf != 0, snd
	}
}

// bufferSizes are the connection's. e.mu is held.
func (e *Endpoint) bufferSizes() (rcv, snd uint32) {
	r, s := e.conn.Buffers()
	return uint32(r), uint32(s)
}

// wakeFor says which waiters an event concerns.
func wakeFor(ev conn.Event) (mask waiter.EventMask) {
	if ev&conn.EventReadable != 0 {
		mask |= waiter.ReadableEvents
	}
	if ev&(conn.EventWritable|conn.EventEstablished) != 0 {
		mask |= waiter.WritableEvents
	}
	if ev&conn.EventPeerClosed != 0 {
		mask |= waiter.ReadableEvents | waiter.EventRdHUp
	}
	if ev&conn.EventError != 0 {
		mask |= waiter.EventErr | waiter.ReadableEvents | waiter.WritableEvents
	}
	if ev&conn.EventClosed != 0 {
		mask |= waiter.EventHUp | waiter.ReadableEvents | waiter.WritableEvents
	}
	return mask
}

// readiness says what an endpoint with a connection is ready for, as Linux's
// tcp_poll does. e.mu is held.
func (e *Endpoint) readiness() (mask waiter.EventMask) {
	s := e.conn.State()
	peerDone := e.conn.ReadEnded()
	closed := s == conn.StateClosed
	if s == conn.StateSynSent || s == conn.StateSynReceived && !e.conn.Early() {
		return 0
	}
	if e.conn.Readable() > 0 || peerDone {
		mask |= waiter.ReadableEvents
	}
	if peerDone {
		mask |= waiter.EventRdHUp
	}
	if e.conn.WriteReady() || closed || e.writeShut {
		mask |= waiter.WritableEvents
	}
	if closed || peerDone && e.writeShut {
		mask |= waiter.EventHUp
	}
	if closed && (e.givenUp != notGivenUp || e.conn.Err() != nil) {
		mask |= waiter.EventErr
	}
	return mask
}

// Readiness implements tcpip.Endpoint. It takes no lock that is held while
// waiters are notified, so it may be called from a notification.
func (e *Endpoint) Readiness(mask waiter.EventMask) waiter.EventMask {
	ready := waiter.EventMask(e.ready.Load())
	if l := e.listening.Load(); l != nil {
		ready = l.readiness()
	}
	// The two names of each kind go together, whichever was asked for.
	for _, kind := range []waiter.EventMask{waiter.ReadableEvents, waiter.WritableEvents} {
		if mask&kind != 0 {
			mask |= kind
		}
	}
	return ready & (mask | waiter.EventErr | waiter.EventHUp)
}

// SetOwner implements tcpip.Endpoint.
func (e *Endpoint) SetOwner(owner tcpip.PacketOwner) {
	e.mu.Lock()
	defer e.unlock()
	e.owner = &owner
}

// packetOwner is who owns the endpoint's packets; nil: nobody. e.mu is held.
func (e *Endpoint) packetOwner() tcpip.PacketOwner {
	if e.owner == nil {
		return nil
	}
	return *e.owner
}

// Info implements tcpip.Endpoint. The result is a *stack.TransportEndpointInfo.
func (e *Endpoint) Info() tcpip.EndpointInfo {
	e.mu.Lock()
	defer e.unlock()
	info := e.transportInfo()
	info.BindNICID, info.RegisterNICID = e.bound, e.nic
	if e.addressBound {
		info.BindAddr = info.ID.LocalAddress
	}
	return &info
}

// transportInfo is what gVisor's stack wants to know of the endpoint's ends.
// e.mu is held.
func (e *Endpoint) transportInfo() stack.TransportEndpointInfo {
	return stack.TransportEndpointInfo{NetProto: e.net, TransProto: ProtocolNumber, ID: e.ends.id()}
}

// StopWork keeps the endpoint locked, so that what arrives has to wait, until
// ResumeWork. It is for tests.
func (e *Endpoint) StopWork() { e.mu.Lock() }

// ResumeWork undoes StopWork.
func (e *Endpoint) ResumeWork() { e.unlock() }
