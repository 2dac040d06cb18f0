package linux

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// holder is a socket that keeps a place: frozen, and with a filter that drops
// everything.
type holder struct {
	factory Factory
	key     key
	tomb    bool    // of a connection that has gone
	of      *Socket // that connection, if it has been made of it
	expiry  *time.Timer

	mu    sync.Mutex
	fd    int // -1 once it has ended
	catch *catch
	// What the socket had dropped before; once it has ended, how many were
	// held and how many swallowed.
	before, held, swallowed uint64
}

var _ repair.Reservation = (*holder)(nil)

// Reserve implements repair.Reserver. Holding segments takes CAP_NET_RAW; hold
// counts what the kernel needs for them, about twice what they have.
func (f *Factory) Reserve(flow repair.Flow, hold int, lifetime time.Duration) (repair.Reservation, error) {
	return f.hold(flow, hold, lifetime, false)
}

// Bury implements repair.Reserver. For a connection that this process has
// frozen it is to be called before Close, and then nothing slips between the
// two. The connection stays in the kernel's tables for lifetime, whoever closes
// it.
func (f *Factory) Bury(flow repair.Flow, lifetime time.Duration) (repair.Reservation, error) {
	h, err := f.entomb(flow, lifetime)
	if err != nil {
		return nil, err
	}
	if h != nil {
		return h, nil
	}
	return f.hold(flow, 0, lifetime, true)
}

// entomb makes a holder of the frozen connection itself, if there is one.
func (f *Factory) entomb(flow repair.Flow, lifetime time.Duration) (*holder, error) {
	k := key{flow: flow}
	if err := f.do(k.here); err != nil {
		return nil, err
	}
	places.Lock()
	s := places.frozen[k]
	places.Unlock()
	if s == nil {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 || !s.filter.attached {
		return nil, nil
	}
	return s.entomb(lifetime)
}

// entomb makes a holder of a connection that is frozen by its filter. s.mu is
// held.
func (s *Socket) entomb(lifetime time.Duration) (*holder, error) {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, failed("F_DUPFD_CLOEXEC", err)
	}
	return (&holder{factory: s.factory, key: *s.at, fd: fd, tomb: true, of: s}).settle(lifetime)
}

// hold makes a holder of a fresh socket, or of a tombstone of ours. What comes
// for the place is kept from before the moment it is taken.
func (f *Factory) hold(flow repair.Flow, size int, lifetime time.Duration, tomb bool) (*holder, error) {
	h := &holder{factory: *f, key: key{flow: flow}, fd: -1, tomb: tomb}
	err := f.do(func() (err error) {
		if err := h.key.here(); err != nil {
			return err
		}
		if size > 0 {
			if h.catch, err = newCatch(flow, size); err != nil {
				return err
			}
		}
		if h.inherit(); h.fd < 0 {
			h.fd, err = f.occupy(flow)
		}
		if err != nil && h.catch != nil {
			err = errors.Join(err, h.catch.close())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return h.settle(lifetime)
}

// inherit takes the socket of a tombstone in the same place.
func (h *holder) inherit() {
	places.Lock()
	old := places.held[h.key]
	places.Unlock()
	if old == nil || !old.tomb || old.inUse() {
		return
	}
	old.mu.Lock()
	defer old.mu.Unlock()
	if old.fd < 0 {
		return
	}
	old.held, old.swallowed = old.count()
	h.fd, old.fd = old.fd, -1
	old.forget()
}

// inUse reports whether the connection of a tombstone has not gone after all.
func (h *holder) inUse() bool { return h.of != nil && h.of.FD() >= 0 }

// occupy makes a socket that keeps the place of a connection.
func (f *Factory) occupy(flow repair.Flow) (int, error) {
	if err := flow.Validate(); err != nil {
		return -1, fmt.Errorf("linux: %w", err)
	}
	s, err := f.open(flow.Local.Addr())
	if err != nil {
		return -1, err
	}
	s.factory.NoFilter = false
	err = s.freeze(dropAll)
	if err == nil {
		err = s.bind(flow.Local)
	}
	if err == nil {
		err = s.connect(flow.Remote)
	}
	if err != nil {
		return -1, errors.Join(err, s.Close())
	}
	return s.fd, nil // s is not registered, and has no other use
}

// settle makes a holder known, and lets it end after lifetime.
func (h *holder) settle(lifetime time.Duration) (*holder, error) {
	h.before = drops(h.fd)
	places.Lock()
	taken := places.held[h.key] != nil
	if !taken {
		places.held[h.key] = h
		h.expiry = time.AfterFunc(lifetime, h.Cancel)
	}
	places.Unlock()
	if taken {
		h.end()
		return nil, fmt.Errorf("linux: the place of %v is kept already: %w", h.key.flow, repair.ErrAddrInUse)
	}
	return h, nil
}

// Cancel implements repair.Reservation.
func (h *holder) Cancel() {
	h.forget()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end()
}

// rest puts a socket that has nothing to send in the place of the connection
// that has gone, because the kernel's timers repeat what was not acknowledged to
// a frozen one too. If that fails the place is given up.
func (h *holder) rest() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd < 0 {
		return
	}
	if err := h.factory.do(h.renew); err != nil {
		h.forget()
		h.end()
	}
}

// renew is again, with no moment at which the place has no owner where that is
// possible: see giveWay.
func (h *holder) renew() error {
	device, err := deviceTowards(h.key.flow.Remote.Addr())
	if err != nil || h.bindTo(device) != nil {
		return h.again()
	}
	fd, err := h.factory.occupy(h.key.flow)
	if err != nil {
		return err
	}
	_, swallowed := h.count()
	_ = disconnect(h.fd) // there may be other descriptors of it
	_ = unix.Close(h.fd)
	h.fd, h.before = fd, drops(fd)-swallowed
	return nil
}

// forget takes the holder off the list.
func (h *holder) forget() {
	places.Lock()
	defer places.Unlock()
	h.expiry.Stop()
	if places.held[h.key] == h {
		delete(places.held, h.key)
	}
}

// end closes the socket, silently, and gives up what was held.
func (h *holder) end() {
	if h.fd < 0 {
		return
	}
	h.held, h.swallowed = h.count()
	if h.catch != nil {
		_ = h.catch.close()
	}
	_ = unix.Close(h.fd)
	h.fd, h.catch = -1, nil
}

// Segments implements repair.Reservation.
func (h *holder) Segments() (held, swallowed uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd >= 0 {
		return h.count()
	}
	return h.held, h.swallowed
}

// count tells what has become of the segments so far: those that found no room
// to be held are swallowed.
func (h *holder) count() (held, swallowed uint64) {
	all := drops(h.fd) - h.before
	if h.catch == nil {
		return 0, all
	}
	swallowed = min(drops(h.catch.fd), all)
	return all - swallowed, swallowed
}

// drops is how many segments a socket has dropped.
func drops(fd int) uint64 {
	var m [memInfoWords]uint32
	if n, err := words(fd, unix.SOL_SOCKET, unix.SO_MEMINFO, m[:]); err != nil || n <= memInfoDrops {
		return 0
	}
	return uint64(m[memInfoDrops])
}

// takePlace connects the socket, in the place of a holder of ours if there is
// one.
func (s *Socket) takePlace(p *plan) error {
	places.Lock()
	h := places.held[key{cookie(s.fd), p.Flow()}]
	places.Unlock()
	if h == nil || h.inUse() {
		s.applyDevice(p)
		return s.connect(p.Remote)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd < 0 {
		s.applyDevice(p)
		return s.connect(p.Remote)
	}
	if err := h.giveWay(s, p); err != nil {
		return err
	}
	s.applyDevice(p)
	s.catch, h.catch = h.catch, nil
	_ = disconnect(h.fd) // a tombstone may have other descriptors
	_ = unix.Close(h.fd)
	h.fd = -1
	h.forget()
	return nil
}

// giveWay lets the socket connect beside the holder. To the kernel the two are
// different once the holder is bound to a device and the socket is not, and it
// finds the socket first because that came last: at no time has the place no
// owner. Where that is not possible there is a moment without one.
func (h *holder) giveWay(s *Socket, p *plan) error {
	device, err := deviceTowards(p.Remote.Addr())
	if err != nil {
		return err
	}
	if err := h.bindTo(device); err == nil {
		if err = s.connect(p.Remote); err == nil {
			h.held, h.swallowed = h.count()
			return nil
		}
		if h.bindTo(0) == nil {
			return err
		}
		return errors.Join(err, h.again())
	}
	h.held, h.swallowed = h.count()
	_ = disconnect(h.fd)
	if err := s.connect(p.Remote); err != nil {
		return errors.Join(err, h.again())
	}
	return nil
}

func (h *holder) bindTo(device int) error {
	return unix.SetsockoptInt(h.fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, device)
}

// again takes the place back that a Restore could not fill.
func (h *holder) again() error {
	_, swallowed := h.count()
	_ = disconnect(h.fd)
	_ = unix.Close(h.fd)
	fd, err := h.factory.occupy(h.key.flow)
	if err != nil {
		h.fd = -1
		return err
	}
	h.fd, h.before = fd, drops(fd)-swallowed
	return nil
}
