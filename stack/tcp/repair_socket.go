package tcp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// RepairSocket is an endpoint as TCP_REPAIR shows it: a repair.Socket, and a
// repair.Snapshotter. It is a view of the endpoint, with no state of its own,
// and safe for concurrent use. An Endpoint cannot be a Socket itself, because
// gVisor gives the same names to other methods.
type RepairSocket struct{ e *Endpoint }

var (
	_ repair.Snapshotter = (*RepairSocket)(nil)
	_ repair.Sender      = (*RepairSocket)(nil)
)

// Repair returns the endpoint as TCP_REPAIR shows it.
func (e *Endpoint) Repair() *RepairSocket { return &e.view }

// Endpoint returns the endpoint.
func (r *RepairSocket) Endpoint() *Endpoint { return r.e }

// WaiterQueue returns the queue that the endpoint notifies.
func (r *RepairSocket) WaiterQueue() *waiter.Queue { return r.e.wq }

// Addrs implements repair.Socket. What is not known is invalid.
func (r *RepairSocket) Addrs() (local, remote netip.AddrPort, err error) {
	r.e.mu.Lock()
	defer r.e.letGo()
	local, remote = r.e.flow()
	return local, remote, nil
}

// flow is the two ends as far as there are any. e.mu is held.
func (e *Endpoint) flow() (local, remote netip.AddrPort) {
	id := e.ends.id()
	if id.LocalPort != 0 {
		a := fromAddress(id.LocalAddress)
		if !a.IsValid() {
			a = netip.IPv4Unspecified()
			if e.net == header.IPv6ProtocolNumber {
				a = netip.IPv6Unspecified()
			}
		}
		local = netip.AddrPortFrom(a, id.LocalPort)
	}
	if id.RemotePort != 0 {
		remote = netip.AddrPortFrom(fromAddress(id.RemoteAddress), id.RemotePort)
	}
	return local, remote
}

// fromAddress translates gVisor's address; one of no family is invalid.
func fromAddress(a tcpip.Address) netip.Addr {
	ip, _ := netip.AddrFromSlice(a.AsSlice())
	return ip
}

// toAddress translates an address and says which protocol it is of. IPv4 in
// IPv6 is IPv4.
func toAddress(a netip.Addr) (tcpip.Address, tcpip.NetworkProtocolNumber) {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return tcpip.AddrFrom4(a.As4()), header.IPv4ProtocolNumber
	}
	return tcpip.AddrFrom16(a.As16()), header.IPv6ProtocolNumber
}

// State implements repair.Socket.
func (r *RepairSocket) State() (repair.State, error) {
	r.e.mu.Lock()
	defer r.e.letGo()
	if r.e.listening.Load() != nil {
		return repair.StateListen, nil
	}
	return r.e.conn.State(), nil
}

// SetRepair implements repair.Socket. See Endpoint.SetRepair; unlike that it
// also freezes an endpoint that has no connection yet, to restore one on it. A
// listener is ErrPermission, as on Linux, except to end what Snapshot began.
func (r *RepairSocket) SetRepair(m repair.Mode) error {
	e := r.e
	e.mu.Lock()
	switch l := e.listening.Load(); {
	case l == nil && m.Valid() && e.started:
		return e.setRepair(m)
	case l != nil && l.queue.frozen.Load() && m.Valid() && m != repair.On:
		e.unlock()
		return l.thaw(m)
	case l != nil:
		e.unlock()
		return repair.ErrPermission
	case !m.Valid():
		e.unlock()
		return repair.ErrInvalid
	}
	defer e.unlock()
	if m != repair.On {
		e.forbidReuse()
	}
	return e.conn.SetRepair(e.proto.now(), m)
}

// Repair implements repair.Socket.
func (r *RepairSocket) Repair() (bool, error) {
	r.e.mu.Lock()
	defer r.e.letGo()
	if l := r.e.listening.Load(); l != nil {
		return l.queue.frozen.Load(), nil
	}
	return r.e.conn.Frozen(), nil
}

// frozen runs f on the connection if it is frozen; if not, the error is why.
func (r *RepairSocket) frozen(why error, f func(now conn.Time, c *conn.Conn) error) error {
	r.e.mu.Lock()
	defer r.e.letGo()
	if !r.e.conn.Frozen() {
		return why
	}
	return f(r.e.proto.now(), &r.e.conn)
}

// QueueSeq implements repair.Socket. Of the send queue it counts our FIN.
func (r *RepairSocket) QueueSeq(q repair.Queue) (seq uint32, err error) {
	err = r.frozen(repair.ErrInvalid, func(_ conn.Time, c *conn.Conn) error {
		v, err := c.QueueSeq(q)
		if err != nil {
			return repair.ErrInvalid
		}
		seq = uint32(v)
		if q == repair.SendQueue && c.FINQueued() {
			seq++
		}
		return nil
	})
	return seq, err
}

// SetQueueSeq implements repair.Socket.
func (r *RepairSocket) SetQueueSeq(q repair.Queue, seq uint32) error {
	return r.frozen(repair.ErrPermission, func(_ conn.Time, c *conn.Conn) error {
		if r.e.started {
			return repair.ErrPermission
		}
		return c.SetQueueSeq(q, sequence(seq))
	})
}

// Peek implements repair.Socket.
func (r *RepairSocket) Peek(q repair.Queue, p []byte) (n int, err error) {
	err = r.frozen(repair.ErrPermission, func(_ conn.Time, c *conn.Conn) (err error) {
		n, err = c.PeekQueue(q, p)
		return err
	})
	return n, err
}

// WriteQueue implements repair.Socket.
func (r *RepairSocket) WriteQueue(q repair.Queue, p []byte) (n int, err error) {
	err = r.frozen(repair.ErrPermission, func(now conn.Time, c *conn.Conn) (err error) {
		n, err = c.WriteQueue(now, q, p)
		return err
	})
	return n, err
}

// Queued implements repair.Socket.
func (r *RepairSocket) Queued() (unread, unacked, unsent int, err error) {
	r.e.mu.Lock()
	defer r.e.letGo()
	c := &r.e.conn
	if !r.e.started {
		return 0, 0, 0, nil
	}
	return c.Unread(), c.Unacked(), min(c.Unsent(), c.Unacked()), nil
}

// Options implements repair.Socket.
func (r *RepairSocket) Options() (repair.Options, error) {
	r.e.mu.Lock()
	defer r.e.letGo()
	return r.e.conn.RepairOptions(), nil
}

// SetOptions implements repair.Socket. It sets all of them or none.
func (r *RepairSocket) SetOptions(o repair.Options) error {
	return r.frozen(repair.ErrInvalid, func(now conn.Time, c *conn.Conn) error {
		return c.SetRepairOptions(now, o)
	})
}

// Window implements repair.Socket. Outside repair it is ErrPermission.
func (r *RepairSocket) Window() (w repair.Window, err error) {
	err = r.frozen(repair.ErrPermission, func(_ conn.Time, c *conn.Conn) error {
		w = c.Window()
		return nil
	})
	return w, err
}

// SetWindow implements repair.Socket.
func (r *RepairSocket) SetWindow(w repair.Window) error {
	return r.frozen(repair.ErrPermission, func(_ conn.Time, c *conn.Conn) error { return c.SetWindow(w) })
}

// Timestamp implements repair.Socket.
func (r *RepairSocket) Timestamp() (value uint32, micros bool, err error) {
	r.e.mu.Lock()
	defer r.e.letGo()
	value, micros = r.e.conn.Timestamp(r.e.proto.now())
	return value, micros, nil
}

// SetTimestamp implements repair.Socket.
func (r *RepairSocket) SetTimestamp(value uint32, micros bool) error {
	return r.frozen(repair.ErrPermission, func(now conn.Time, c *conn.Conn) error {
		return c.SetTimestamp(now, value, micros)
	})
}

// Bind implements repair.Socket.
func (r *RepairSocket) Bind(local netip.AddrPort) error {
	addr, net := toAddress(local.Addr())
	e := r.e
	e.mu.Lock()
	defer e.unlock()
	if !e.conn.Frozen() || local.Port() == 0 {
		return socketError(e.bind(tcpip.FullAddress{Addr: addr, Port: local.Port()}))
	}
	switch {
	case e.EndpointState() != StateInitial:
		return repair.ErrInvalid
	case e.proto.stack.CheckLocalAddress(e.bound, net, addr) == 0:
		return fmt.Errorf("%w: %s", repair.ErrAddress, local.Addr())
	}
	e.bindTo(stack.TransportEndpointID{LocalPort: local.Port(), LocalAddress: addr}, e.bound)
	e.setState(StateBound)
	return nil
}

// Connect implements repair.Socket. Outside repair it begins a handshake.
func (r *RepairSocket) Connect(remote netip.AddrPort) error {
	addr, net := toAddress(remote.Addr())
	e := r.e
	e.mu.Lock()
	defer e.unlock()
	now := e.proto.now()
	switch {
	case e.started || e.listening.Load() != nil:
		return repair.ErrInvalid
	case !e.conn.Frozen():
		return socketError(e.connect(now, tcpip.FullAddress{NIC: e.bound, Addr: addr, Port: remote.Port()}))
	case e.ends.localPort == 0:
		return fmt.Errorf("%w: not bound", repair.ErrInvalid)
	}
	id := e.ends.id()
	id.RemoteAddress, id.RemotePort = addr, remote.Port()
	s := settlement{id: id, net: net, nic: e.bound, shared: true, mss: header.TCPDefaultMSS}
	if net == header.IPv6ProtocolNumber {
		s.mss = 1220 // RFC 9293 section 3.7.1
	}
	return e.settle(now, &s)
}

// Close implements repair.Socket: Endpoint.Close, which leaves a tombstone
// where a frozen connection was. It also ends a frozen connection that its user
// has closed before, and that was still delivering what was written.
func (r *RepairSocket) Close() error {
	r.e.do(func(now conn.Time) {
		if e := r.e; e.userGone && e.started && e.conn.Frozen() {
			e.entomb()
			e.conn.Abort(now)
		} else {
			e.close(now)
		}
	})
	return nil
}

// Write implements repair.Sender. It does not wait for room.
func (r *RepairSocket) Write(p []byte) (int, error) {
	n, err := r.e.Write(bytes.NewReader(p), tcpip.WriteOptions{})
	return int(n), socketError(err)
}

// CloseWrite implements repair.Sender.
func (r *RepairSocket) CloseWrite() error { return socketError(r.e.Shutdown(tcpip.ShutdownWrite)) }

// Snapshot implements repair.Snapshotter. A listener is frozen by it, with all
// its connections: SetRepair(Off) undoes that.
func (r *RepairSocket) Snapshot() (*repair.Snapshot, error) {
	if l := r.e.listening.Load(); l != nil {
		return l.snapshot()
	}
	r.e.mu.Lock()
	defer r.e.letGo()
	return r.e.snapshot()
}

// snapshot reads the connection out. e.mu is held.
func (e *Endpoint) snapshot() (*repair.Snapshot, error) {
	if !e.started {
		return nil, repair.ErrState
	}
	s, err := e.conn.Snapshot(e.proto.now(), newRecord())
	if err != nil {
		return nil, err
	}
	s.Local, s.Remote = e.flow()
	if l := e.options().GetLinger(); l.Enabled {
		s.Extra.Socket.Linger, s.Extra.Socket.LingerTimeout = true, l.Timeout
	}
	s.Extra.Passive = e.passive
	s.Extra.IP = e.ipSettings()
	return s, nil
}

// socketError translates gVisor's errors to those that package repair names.
func socketError(err tcpip.Error) error {
	switch err.(type) {
	case nil, *tcpip.ErrConnectStarted:
		return nil
	case *tcpip.ErrBadLocalAddress:
		return repair.ErrAddress
	case *tcpip.ErrPortInUse, *tcpip.ErrDuplicateAddress:
		return repair.ErrAddrInUse
	case *tcpip.ErrNetworkUnreachable, *tcpip.ErrHostUnreachable:
		return repair.ErrNoRoute
	case *tcpip.ErrClosedForSend, *tcpip.ErrNotConnected:
		return repair.ErrClosed
	case *tcpip.ErrInvalidEndpointState, *tcpip.ErrAlreadyBound, *tcpip.ErrAlreadyConnected:
		return repair.ErrInvalid
	}
	return errors.New(err.String())
}
