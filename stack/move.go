package stack

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// ErrNotFrozen is why a connection that is not in repair mode is not buried.
var ErrNotFrozen = errors.New("connection is not frozen")

// Checkpoint freezes a connection and reads it out. It stays frozen, so that
// what was read stays true: SetRepair(repair.Off) lets it go on, Bury or Close
// ends it without a word once it lives elsewhere. After an error it is as it
// was.
func (c *Conn) Checkpoint() (*repair.Snapshot, error) { return repair.Checkpoint(c.ep.Repair()) }

// Checkpoint is Conn.Checkpoint by ID. For an ID that is not in Conns the error
// wraps ErrNoConn.
func (s *Stack) Checkpoint(id uint64) (*repair.Snapshot, error) {
	ep, err := s.endpoint(id)
	if err != nil {
		return nil, err
	}
	return repair.Checkpoint(ep.Repair())
}

// Bury ends a frozen connection, by its ID, that lives elsewhere now. Its peer
// is told nothing, and what it still sends here is swallowed for a while. Who
// reads from the connection or writes to it gets an error. The error wraps
// ErrNoConn or ErrNotFrozen.
func (s *Stack) Bury(id uint64) error {
	ep, err := s.endpoint(id)
	if err != nil {
		return err
	}
	if !ep.Frozen() {
		return fmt.Errorf("%w: %d", ErrNotFrozen, id)
	}
	return ep.Repair().Close()
}

// Restore sets a connection down, in the state it was in. It is frozen:
// SetRepair(repair.Off) lets it go. After an error, which wraps one of package
// repair's, nothing has changed. The snapshot is not used any more when Restore
// returns.
func (s *Stack) Restore(snap *repair.Snapshot) (*Conn, error) {
	if snap.State == repair.StateListen {
		return nil, fmt.Errorf("restore: %w: a listener is not a connection", repair.ErrState)
	}
	sock, err := repair.Restore(s.places(), snap)
	if err != nil {
		return nil, err
	}
	r := sock.(*tcp.RepairSocket)
	return s.newConn(r.Endpoint(), r.WaiterQueue())
}

// Checkpoint freezes the listener and reads it out, with the connections that
// nobody has accepted: half-open ones too. They are all silent and still until
// Resume, or Close, which leaves tombstones where the connections were.
func (l *Listener) Checkpoint() (*repair.Snapshot, error) { return l.ep.Repair().Snapshot() }

// Resume ends what Checkpoint began.
func (l *Listener) Resume() error { return repair.Resume(l.ep.Repair(), repair.Off) }

// RestoreListener sets a listener down with the connections that nobody has
// accepted. It is frozen: Resume lets it go. After an error, which wraps one of
// package repair's, nothing has changed.
func (s *Stack) RestoreListener(snap *repair.Snapshot) (*Listener, error) {
	if snap.State != repair.StateListen {
		return nil, fmt.Errorf("restore: %w: a connection is not a listener", repair.ErrState)
	}
	sock, err := repair.Restore(s.places(), snap)
	if err != nil {
		return nil, err
	}
	r := sock.(*tcp.RepairSocket)
	l := &Listener{stack: s, ep: r.Endpoint(), wq: r.WaiterQueue(), addr: snap.Local}
	l.acc.init(l.wq, readEvents)
	if !s.track(l) {
		l.end()
		return nil, net.ErrClosed
	}
	return l, nil
}

// Reserve keeps the place of a connection that is to be restored, for at most
// lifetime: segments to it draw no reset. Up to hold bytes of them are kept for
// the connection, so that they need not be sent again. The error wraps
// repair.ErrAddrInUse if the place is taken.
func (s *Stack) Reserve(f repair.Flow, hold int, lifetime time.Duration) (repair.Reservation, error) {
	return repair.Reserve(s.places(), f, hold, lifetime)
}

func (s *Stack) places() *tcp.RepairFactory { return &tcp.RepairFactory{Stack: s.net} }

// endpoint finds a connection's endpoint.
func (s *Stack) endpoint(id uint64) (*tcp.Endpoint, error) {
	for _, ep := range tcp.Endpoints(s.net) {
		if ep.ID() == id && isConn(ep) {
			return ep, nil
		}
	}
	return nil, fmt.Errorf("%w: %d", ErrNoConn, id)
}
