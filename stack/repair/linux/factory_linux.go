package linux

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// Factory makes Sockets of the kernel's. Its zero value is ready for use; it
// must not be changed after the first call.
type Factory struct {
	// Do runs f where sockets are to be made: on a thread in another network
	// namespace, for instance. Nil runs it right here.
	Do func(f func() error) error
	// NoFilter leaves the filter out with which sockets are frozen. A kernel
	// without protection of its own then acknowledges bytes that a snapshot
	// misses. It is there to show that.
	NoFilter bool
	// Helper is the path of the socket of a Helper, which is asked where the
	// right to TCP_REPAIR is lacking. Empty: nobody is.
	Helper string
	// BesideListener lets Restore set down any connection whose local port a
	// listener holds. One of which the snapshot says that the peer opened it came
	// of a listener, and may live beside one here too.
	BesideListener bool
	// Tombstone is how long the place of a frozen connection is kept once its
	// Socket is closed, if Bury has not done so: late segments draw no reset
	// meanwhile. Zero: not at all. Only this process can restore a connection
	// there before it is over.
	Tombstone time.Duration
}

var (
	_ repair.Restorer = (*Factory)(nil)
	_ repair.Reserver = (*Factory)(nil)
)

func (f *Factory) do(g func() error) error {
	if f.Do == nil {
		return g()
	}
	return f.Do(g)
}

// Socket implements repair.Factory.
func (f *Factory) Socket(local netip.AddrPort) (repair.Socket, error) {
	var s *Socket
	err := f.do(func() (err error) {
		s, err = f.open(local.Addr())
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// open makes a plain TCP socket of the address's family.
func (f *Factory) open(local netip.Addr) (*Socket, error) {
	if !local.IsValid() {
		return nil, fmt.Errorf("linux: no local address: %w", repair.ErrAddress)
	}
	fd, err := unix.Socket(domain(local), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return nil, failed("socket", err)
	}
	return &Socket{factory: *f, fd: fd}, nil
}

func domain(a netip.Addr) int {
	if a.Unmap().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Restore implements repair.Restorer, for ESTABLISHED, FIN-WAIT-1, FIN-WAIT-2,
// CLOSE-WAIT, CLOSING and LAST-ACK; the error wraps repair.ErrState for others,
// and repair.ErrAddrInUse also if a listener holds the port (BesideListener).
// Segments that arrive meanwhile, and until the Socket is thawed, are dropped,
// or kept by a Reserve of this process. A reservation or tombstone of this
// process gives way, and no segment slips between the two.
//
// Of Extra, the name of the congestion control, the right-most window edge and
// the user's settings have their use here. Bytes that never left, and a FIN
// after them, are sent when the Socket is thawed.
func (f *Factory) Restore(snap *repair.Snapshot) (repair.Socket, error) {
	p, err := newPlan(snap)
	if err != nil {
		return nil, err
	}
	var s *Socket
	err = f.do(func() (err error) {
		s, err = f.restore(p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (f *Factory) restore(p *plan) (_ *Socket, err error) {
	beside := f.BesideListener || p.Extra != nil && p.Extra.Passive
	if !beside && listenerHolds(p.Local) {
		return nil, fmt.Errorf("linux: a listener holds port %d of %v: %w", p.Local.Port(), p.Local.Addr(), repair.ErrAddrInUse)
	}
	s, err := f.open(p.Local.Addr())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.Close() // silently: it is in repair
		}
	}()
	if err := s.freeze(dropUnmarked(mark)); err != nil {
		return nil, err
	}
	if err := s.prepare(p); err != nil {
		return nil, err
	}
	if err := s.takePlace(p); err != nil {
		return nil, err
	}
	if err := s.fill(p); err != nil {
		return nil, err
	}
	return s, s.register()
}
