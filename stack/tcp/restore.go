package tcp

import (
	"fmt"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// RepairFactory sets connections down on a stack whose TCP is this package's:
// it is a repair.Factory, a repair.Restorer and a repair.Reserver. What it
// returns are *RepairSockets. It is safe for concurrent use.
type RepairFactory struct {
	Stack *stack.Stack
	// NIC is the interface that the connections use; 0 leaves it to the routes.
	NIC tcpip.NICID
	// Queue, if set, makes the queue that a new endpoint notifies.
	Queue func() *waiter.Queue
	// Route, if set, finds the way from local to remote in place of the stack's
	// own table: looking that up is a good part of what an idle connection costs
	// to restore. The connection releases what it gets, so whoever has many
	// connections between two hosts may keep one Route and Acquire it for each.
	Route func(local, remote tcpip.Address) (*stack.Route, tcpip.Error)
	// Share allows a connection to be restored to a port that a listener holds,
	// or that is bound, even if it was not opened by its peer. One that was came
	// of a listener, and may live beside one here too.
	Share bool
}

var (
	_ repair.Restorer = (*RepairFactory)(nil)
	_ repair.Reserver = (*RepairFactory)(nil)
)

func sequence(v uint32) seqnum.Value { return seqnum.Value(v) }

// protocol returns the stack's TCP.
func (f *RepairFactory) protocol() (*protocol, error) {
	if p := protocolOf(f.Stack); p != nil {
		return p, nil
	}
	return nil, errNotOurs
}

// Socket implements repair.Factory.
func (f *RepairFactory) Socket(local netip.AddrPort) (repair.Socket, error) {
	p, err := f.protocol()
	if err != nil {
		return nil, err
	}
	_, net := toAddress(local.Addr())
	e := f.endpoint(p, net)
	return e.Repair(), nil
}

// endpoint makes an endpoint, which is nobody else's yet.
func (f *RepairFactory) endpoint(p *protocol, net tcpip.NetworkProtocolNumber) *Endpoint {
	var wq *waiter.Queue // nil: one of the endpoint's own
	if f.Queue != nil {
		wq = f.Queue()
	}
	e := newEndpoint(p, net, wq)
	e.bound = f.NIC
	return e
}

// Restore implements repair.Restorer: a connection in any state, or a listener
// with those that nobody has accepted. What is returned is a *RepairSocket, and
// frozen. If there is a tombstone or a reservation in the place it makes way;
// what the reservation holds is for the connection, when it is thawed.
//
// The error wraps ErrAddress, ErrNoRoute, ErrAddrInUse, ErrState, ErrInvalid
// or ErrTooBig of package repair.
func (f *RepairFactory) Restore(snap *repair.Snapshot) (repair.Socket, error) {
	p, err := f.protocol()
	if err != nil {
		return nil, err
	}
	if snap.State == repair.StateListen {
		if err := snap.Validate(); err != nil {
			return nil, err
		}
		return f.restoreListener(p, snap)
	}
	if err := snap.Flow().Validate(); err != nil {
		return nil, err
	}
	e, _, err := f.restore(p, snap, f.Share)
	if err != nil {
		return nil, err
	}
	e.settled()
	return e.Repair(), nil
}

// restore sets a connection down and returns its endpoint locked, and what has
// made way for it, if anything has.
func (f *RepairFactory) restore(p *protocol, snap *repair.Snapshot, shared bool) (*Endpoint, *reservation, error) {
	id, net := tuple(snap.Local, snap.Remote)
	e := f.endpoint(p, net)
	s := settlement{id: id, net: net, nic: f.NIC, find: f.Route, shared: shared, snap: snap, device: device(f.Stack, snap.Extra)}
	if s.device != 0 {
		s.nic = s.device
	}
	if x := snap.Extra; x != nil {
		e.passive = x.Passive
		s.shared = shared || x.Passive
	}
	e.mu.Lock()
	if err := e.settle(p.now(), &s); err != nil {
		e.discard()
		return nil, nil, err
	}
	e.adopt(snap, s.device)
	return e, s.filled, nil
}

// tuple translates the two ends.
func tuple(local, remote netip.AddrPort) (id stack.TransportEndpointID, net tcpip.NetworkProtocolNumber) {
	id.LocalAddress, net = toAddress(local.Addr())
	id.RemoteAddress, _ = toAddress(remote.Addr())
	id.LocalPort, id.RemotePort = local.Port(), remote.Port()
	return id, net
}

// settlement is where and how a connection is set down that has not been opened
// by a handshake.
type settlement struct {
	id     stack.TransportEndpointID
	net    tcpip.NetworkProtocolNumber
	nic    tcpip.NICID
	device tcpip.NICID                                                   // that the endpoint is bound to; 0: none
	find   func(local, remote tcpip.Address) (*stack.Route, tcpip.Error) // nil: the stack does
	shared bool                                                          // the port may be somebody else's
	snap   *repair.Snapshot
	filled *reservation // that settle has taken the place from
	mss    uint16       // of a connection without a snapshot, that primitives are to restore
}

// route finds the way to the peer.
func (s *settlement) route(st *stack.Stack) (r *stack.Route, err error) {
	var failed tcpip.Error
	if s.find != nil {
		r, failed = s.find(s.id.LocalAddress, s.id.RemoteAddress)
	} else {
		r, failed = st.FindRoute(s.nic, s.id.LocalAddress, s.id.RemoteAddress, s.net, false)
	}
	switch {
	case failed == nil:
		return r, nil
	case st.CheckLocalAddress(s.nic, s.net, s.id.LocalAddress) == 0:
		return nil, fmt.Errorf("%w: %s", repair.ErrAddress, s.id.LocalAddress)
	}
	return nil, fmt.Errorf("%w: %s", repair.ErrNoRoute, s.id.RemoteAddress)
}

// start makes the connection.
func (s *settlement) start(e *Endpoint, now conn.Time) error {
	cfg := e.configFor(flowNumbers{}) // it has its own
	if s.snap == nil {
		return e.conn.RepairConnect(now, &cfg, s.mss)
	}
	if s.snap.Extra != nil {
		// What the user or tuning made of the buffers may go as far as the
		// stack allows.
		o := e.proto.options.snapshot()
		cfg.RcvBufMax = max(cfg.RcvBufMax, o.rcvBuf.Max/SegOverheadFactor)
		cfg.SndBufMax = max(cfg.SndBufMax, o.sndBuf.Max)
	}
	return e.conn.Restore(now, &cfg, s.snap)
}

// settle gives an endpoint that has no connection one that comes from
// elsewhere, and registers it. After an error the endpoint is as it was. e.mu
// is held.
func (e *Endpoint) settle(now conn.Time, s *settlement) error {
	route, err := s.route(e.proto.stack)
	if err != nil {
		return err
	}
	were, net := e.ends, e.net
	e.route, e.ends, e.net = route, endsOf(s.id), s.net
	if err := e.begin(now, s); err != nil {
		e.route, e.ends, e.net = nil, were, net
		route.Release()
		return err
	}
	e.nic, e.addressBound = s.nic, true
	e.started = true
	e.connectDone = e.conn.State() != conn.StateSynSent
	// The stack's counters have not seen what was before, and shall not.
	e.skipEvents()
	e.gauges.enter(e.proto, e.conn.State())
	s.filled = e.proto.places.fill(s.id)
	if s.filled.holds() {
		e.kept = s.filled
	}
	return nil
}

// begin gives an endpoint with a route its connection and its place. e.mu is held.
func (e *Endpoint) begin(now conn.Time, s *settlement) error {
	if err := s.start(e, now); err != nil {
		return err
	}
	place, err := e.settleAt(s)
	if err != nil {
		e.unsettle(now)
		return err
	}
	e.place = place
	return nil
}

// unsettle makes the endpoint's connection what it was before settle: unused,
// frozen, with the queues' beginnings that were chosen. e.mu is held.
func (e *Endpoint) unsettle(now conn.Time) {
	e.conn.Release()
	send, _ := e.conn.QueueSeq(repair.SendQueue)
	recv, _ := e.conn.QueueSeq(repair.RecvQueue)
	e.conn = conn.Conn{}
	// None of these can fail on an unused connection.
	_ = e.conn.SetRepair(now, repair.On)
	_ = e.conn.SetQueueSeq(repair.SendQueue, send)
	_ = e.conn.SetQueueSeq(repair.RecvQueue, recv)
}

// settleAt takes the port and the place in the stack's table.
func (e *Endpoint) settleAt(s *settlement) (place, error) {
	p := place{
		device: s.device,
		nets:   only(s.net),
		local:  true,
		remote: true,
	}
	if s.shared {
		p.portReserved = e.proto.stack.ReserveTuple(p.reservation(s.id))
	} else if _, err := e.proto.stack.ReservePort(e.proto.stack.SecureRNG(), p.reservation(s.id), nil); err == nil {
		p.portReserved = true
	} else if !e.proto.connected(s.id, s.net, s.nic) {
		return place{}, fmt.Errorf("%w: port %d is bound here, or has a listener", repair.ErrAddrInUse, s.id.LocalPort)
	}
	var err tcpip.Error = &tcpip.ErrPortInUse{}
	if p.portReserved || s.shared {
		err = e.proto.stack.RegisterTransportEndpoint(p.nets.list(), ProtocolNumber, s.id, e, p.flags, p.device)
	}
	if err == nil {
		p.registered, p.listedFor = true, p.nets
		return p, nil
	}
	if p.portReserved {
		e.proto.stack.ReleasePort(p.reservation(s.id))
	}
	if _, dup := err.(*tcpip.ErrPortInUse); dup {
		return place{}, fmt.Errorf("%w: there is a connection with the same ends", repair.ErrAddrInUse)
	}
	return place{}, fmt.Errorf("registering: %s", err)
}

// connected reports whether there is a connection between these very ends.
func (p *protocol) connected(id stack.TransportEndpointID, net tcpip.NetworkProtocolNumber, nic tcpip.NICID) bool {
	e, ok := p.stack.FindTransportEndpoint(net, ProtocolNumber, id, nic).(*Endpoint)
	if !ok {
		return false
	}
	i := e.Info().(*stack.TransportEndpointInfo)
	return i.ID == id
}

// enter counts a connection that comes from elsewhere in a state.
func (g *gauges) enter(p *protocol, s conn.State) {
	if !s.Synchronized() {
		return
	}
	g.connected = true
	p.stats.CurrentConnected.Increment()
	if s == conn.StateEstablished {
		g.established = true
		p.stats.CurrentEstablished.Increment()
	}
}

// adopt takes the settings that a snapshot brought. e.mu is held, and e is
// nobody else's yet.
func (e *Endpoint) adopt(snap *repair.Snapshot, device tcpip.NICID) {
	want := *e.settings
	want.user = e.conn.Options()
	var linger tcpip.LingerOption
	if x := snap.Extra; x != nil {
		want.setIP(e.net, &x.IP)
		o := &x.Socket
		linger = tcpip.LingerOption{Enabled: o.Linger, Timeout: max(o.LingerTimeout, 0)}
		want.rcvBufSet = o.RecvBuffer > 0 && o.RecvBufferMax == 0
		want.sndBufSet = o.SendBuffer > 0 && o.SendBufferMax == 0
		e.readShut = x.ReadShut
		if x.Orphan {
			e.userGone = true
			tcpip.AddDanglingEndpoint(e)
		}
	}
	e.resemble(e.proto.restored(&want, linger, int32(device)))
	// The sizes of the buffers are each connection's own.
	e.ops.rcvBuf, e.ops.sndBuf = e.bufferSizes()
	e.ops.rcvTuned, e.ops.sndTuned = true, true
	e.writeShut = snap.FINQueued
}

// Reserve implements repair.Reserver. A tombstone gives way, and is there again
// for the rest of its life if the reservation ends without having been filled.
func (f *RepairFactory) Reserve(flow repair.Flow, hold int, lifetime time.Duration) (repair.Reservation, error) {
	return f.keep(flow, false, hold, lifetime)
}

// Bury implements repair.Reserver. ErrAddrInUse if there is a connection.
func (f *RepairFactory) Bury(flow repair.Flow, lifetime time.Duration) (repair.Reservation, error) {
	return f.keep(flow, true, 0, lifetime)
}

func (f *RepairFactory) keep(flow repair.Flow, tomb bool, hold int, lifetime time.Duration) (repair.Reservation, error) {
	p, err := f.protocol()
	if err != nil {
		return nil, err
	}
	if err := flow.Validate(); err != nil {
		return nil, err
	}
	if hold < 0 || lifetime <= 0 {
		return nil, fmt.Errorf("%w: %d bytes for %v", repair.ErrInvalid, hold, lifetime)
	}
	id, net := tuple(flow.Local, flow.Remote)
	if p.connected(id, net, f.NIC) {
		return nil, fmt.Errorf("%w: there is a connection with the same ends", repair.ErrAddrInUse)
	}
	r, err := p.places.put(p, id, tomb, hold, lifetime)
	if err != nil {
		return nil, fmt.Errorf("%w: the place is kept already", err)
	}
	return r, nil
}
