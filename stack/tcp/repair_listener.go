package tcp

import (
	"cmp"
	"fmt"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// A frozen listener is silent and still like a frozen connection: SYNs are
// dropped, nothing is accepted, and the connections that nobody has accepted
// are frozen too. Linux has nothing of the kind.

// freeze stops the queue and returns what is in it: the ready ones in order,
// then the half-open.
func (q *acceptQueue) freeze() (all []*Endpoint) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.frozen.Store(true)
	for e := range q.embryos {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *Endpoint) int { return cmp.Compare(a.number, b.number) })
	return append(slices.Clone(q.ready), all...)
}

// snapshot freezes the listener and reads it out. After an error it is as it
// was.
func (l *listener) snapshot() (*repair.Snapshot, error) {
	was := l.queue.frozen.Load()
	e := l.ep
	s := &repair.Snapshot{Extra: new(repair.Extra)}
	for _, child := range l.queue.freeze() {
		sock := child.Repair()
		if err := sock.SetRepair(repair.On); err != nil {
			return nil, l.giveBack(s, was, err)
		}
		if st, _ := sock.State(); st == repair.StateClosed {
			continue // reset while it waited
		}
		c, err := sock.Snapshot()
		if err != nil {
			return nil, l.giveBack(s, was, err)
		}
		s.Children = append(s.Children, c)
	}
	l.queue.mu.Lock()
	s.Extra.Backlog = uint32(l.queue.backlog)
	l.queue.mu.Unlock()
	e.mu.Lock()
	defer e.unlock()
	s.State = repair.StateListen
	s.Local, _ = e.flow()
	u := &e.settings.user
	s.NoDelay, s.Cork = u.NoDelay, u.Cork
	s.Extra.Socket = repair.SocketOptions{
		Keepalive:         u.Keepalive.On,
		KeepaliveIdle:     u.Keepalive.Idle,
		KeepaliveInterval: u.Keepalive.Interval,
		KeepaliveCount:    u.Keepalive.Count,
		UserTimeout:       u.UserTimeout,
		MaxSegment:        u.MaxSegment,
		WindowClamp:       u.Clamp,
		FastOpenBacklog:   e.settings.fastOpenBacklog,
	}
	s.Extra.IP = e.ipSettings()
	return s, nil
}

// giveBack undoes a snapshot that failed.
func (l *listener) giveBack(s *repair.Snapshot, wasFrozen bool, err error) error {
	s.Release()
	if !wasFrozen {
		_ = l.thaw(repair.OffNoProbe)
	}
	return fmt.Errorf("a connection that waits to be accepted: %w", err)
}

// thaw ends a freeze.
func (l *listener) thaw(m repair.Mode) error {
	all := l.queue.freeze()
	l.queue.frozen.Store(false)
	for _, child := range all {
		if err := child.Repair().SetRepair(m); err != nil {
			return err
		}
	}
	if l.queue.pending() {
		l.ep.wq.Notify(waiter.ReadableEvents)
	}
	return nil
}

// restoreListener sets a listener down, frozen, with its connections.
func (f *RepairFactory) restoreListener(p *protocol, snap *repair.Snapshot) (repair.Socket, error) {
	addr, net := toAddress(snap.Local.Addr())
	if snap.Local.Addr().IsUnspecified() {
		addr = tcpip.Address{} // of both families, if it is IPv6's
	}
	e := f.endpoint(p, net)
	e.mu.Lock()
	// What is left here of its connections does not keep it away.
	e.ownOptions().SetReuseAddress(true)
	user := &e.change().user
	user.NoDelay, user.Cork = snap.NoDelay, snap.Cork
	backlog := 1
	if x := snap.Extra; x != nil {
		*user = listenerOptions(*user, &x.Socket)
		e.change().fastOpenBacklog = max(x.Socket.FastOpenBacklog, 0)
		e.change().setIP(net, &x.IP)
		e.ownOptions().SetBindToDevice(int32(device(f.Stack, x)))
		backlog = int(min(x.Backlog, 1<<16))
	}
	err := e.bind(tcpip.FullAddress{NIC: f.NIC, Addr: addr, Port: snap.Local.Port()})
	if err == nil {
		err = e.listen(backlog, true)
	}
	e.unlock()
	if err != nil {
		e.Close()
		return nil, fmt.Errorf("%w: listening on %s", socketError(err), snap.Local)
	}
	l := e.listening.Load()
	done := make([]func(), 0, len(snap.Children)) // what undoes them
	for _, child := range snap.Children {
		c, filled, err := f.restore(p, child, true)
		if err != nil {
			for _, undo := range done {
				undo()
			}
			l.discard()
			return nil, err
		}
		c.passive = true
		switch {
		case c.conn.Early():
			c.parent, c.early = l, true
		case c.conn.State() == conn.StateSynReceived:
			c.parent = l
		}
		l.queue.restore(c)
		c.unlock()
		done = append(done, func() {
			// First: at no time is the place nobody's.
			p.places.putBack(filled)
			c.withdraw()
		})
	}
	p.places.fill(e.ends.id()) // its own tombstone
	return e.Repair(), nil
}

// listenerOptions are what a listener's connections begin with.
func listenerOptions(u conn.UserOptions, o *repair.SocketOptions) conn.UserOptions {
	u.Keepalive = conn.Keepalive{On: o.Keepalive, Idle: o.KeepaliveIdle, Interval: o.KeepaliveInterval, Count: o.KeepaliveCount}
	u.UserTimeout = max(o.UserTimeout, 0)
	u.MaxSegment = o.MaxSegment
	u.Clamp = int(min(seqnum.Size(max(o.WindowClamp, 0)), 1<<30))
	return u
}

// restore puts a connection where it was in the queue, whatever the backlog.
func (q *acceptQueue) restore(e *Endpoint) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e.isEmbryo() {
		q.insert(e, false)
		return
	}
	if e.parent != nil {
		q.early++
	}
	q.ready = append(q.ready, e)
}

// discard ends a frozen listener that was not to be.
func (l *listener) discard() {
	l.queue.close()
	l.queue.frozen.Store(false) // it lives nowhere else, and leaves no tombstone
	l.ep.Close()
}

// withdraw ends a connection that has just been restored, as if it had not. What
// was held for it is somebody else's again.
func (e *Endpoint) withdraw() {
	e.mu.Lock()
	defer e.unlock()
	e.userGone = true
	e.kept = nil
	e.conn.Close(e.proto.now())
}
