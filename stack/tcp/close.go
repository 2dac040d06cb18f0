package tcp

import (
	"cmp"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// Shutdown implements tcpip.Endpoint.
func (e *Endpoint) Shutdown(flags tcpip.ShutdownFlags) (err tcpip.Error) {
	e.do(func(now conn.Time) { err = e.shutdown(now, flags) })
	return err
}

func (e *Endpoint) shutdown(now conn.Time, flags tcpip.ShutdownFlags) tcpip.Error {
	read, write := flags&tcpip.ShutdownRead != 0, flags&tcpip.ShutdownWrite != 0
	if l := e.listening.Load(); l != nil {
		if read {
			o := e.forOthers()
			o.abandon = append(o.abandon, l.queue.close()...)
			e.wake |= waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr
		}
		return nil
	}
	if !e.started {
		return &tcpip.ErrNotConnected{}
	}
	switch s := e.conn.State(); {
	case s == conn.StateClosed:
		return &tcpip.ErrNotConnected{}
	case s == conn.StateSynSent:
		// There is nothing to end in order: the attempt is given up, as by
		// Linux's tcp_disconnect.
		e.giveUp(now, byShutdown)
		return nil
	}
	if (read || e.readShut) && (write || e.writeShut) && e.conn.Readable() > 0 {
		// Both directions shut are as good as closed, and what was received
		// will never be read: the peer has to know.
		// https://www.rfc-editor.org/rfc/rfc1122#page-88 (section 4.2.2.13)
		e.readShut, e.writeShut = true, true
		e.conn.Abort(now)
		return nil
	}
	e.lateSettings()
	if err := e.conn.Shutdown(now, read, write); err != nil {
		return tcpipError(err)
	}
	e.readShut, e.writeShut = e.readShut || read, e.writeShut || write
	if read {
		e.wake |= waiter.ReadableEvents | waiter.EventRdHUp
	}
	return nil
}

// lateSettings tells the connection of settings that may have changed since it
// began and matter when it ends. e.mu is held.
func (e *Endpoint) lateSettings() {
	o := e.proto.options.snapshot()
	e.conn.SetTimeWait(o.timeWait, e.finWait2(o))
}

// giveUp ends a handshake that has had no answer, without a word to the peer.
// e.mu is held.
func (e *Endpoint) giveUp(now conn.Time, why surrender) {
	e.givenUp = why
	e.UpdateLastError(why.err())
	e.conn.Close(now)
	e.wake |= waiter.EventErr
}

// surrender is how a user gave a handshake up that had no answer.
type surrender uint8

const (
	notGivenUp surrender = iota
	byShutdown
	byClose
)

// err is what the user hears of it from then on; nil if there was none.
func (s surrender) err() tcpip.Error {
	switch s {
	case byShutdown:
		return &tcpip.ErrConnectionReset{}
	case byClose:
		return &tcpip.ErrAborted{}
	}
	return nil
}

// Close implements tcpip.Endpoint. What was written is still delivered; the
// endpoint goes when the peer has acknowledged it and the FIN.
func (e *Endpoint) Close() {
	e.do(func(now conn.Time) { e.close(now) })
}

func (e *Endpoint) close(now conn.Time) {
	if e.userGone {
		return
	}
	e.userGone = true
	if !e.started {
		e.closeIdle()
		return
	}
	linger := e.options().GetLinger()
	switch s := e.conn.State(); {
	case s == conn.StateClosed:
		e.conn.Release() // what had come before it ended, and was not read
	case s == conn.StateSynSent && !e.conn.Frozen():
		e.giveUp(now, byClose)
	case linger.Enabled && linger.Timeout == 0 && s != conn.StateTimeWait && !e.conn.Frozen():
		e.conn.Abort(now)
	default:
		e.lateSettings()
		e.entomb()
		e.conn.Close(now)
	}
	e.writeShut = true
	// Whoever still waits in Read or Write learns that it is over.
	e.wake |= waiter.ReadableEvents | waiter.WritableEvents
	if e.conn.State() != conn.StateClosed {
		tcpip.AddDanglingEndpoint(e)
	}
}

// entomb leaves a tombstone where a frozen connection is about to end: it lives
// elsewhere, and what is still on its way here must draw no reset. e.mu is held.
func (e *Endpoint) entomb() {
	if lifetime := e.proto.tombstone(); e.conn.Frozen() && lifetime > 0 {
		// If the place is kept already, so much the better.
		_, _ = e.proto.places.put(e.proto, e.ends.id(), true, 0, lifetime)
	}
}

// tombstone is how long a tombstone stays; not above 0: there are none.
func (p *protocol) tombstone() time.Duration {
	return cmp.Or(p.options.snapshot().tuning.Tombstone, DefaultTombstone)
}

// closeIdle closes an endpoint without a connection. e.mu is held.
func (e *Endpoint) closeIdle() {
	if l := e.listening.Load(); l != nil {
		o := e.forOthers()
		o.abandon = append(o.abandon, l.queue.close()...)
		if lifetime := e.proto.tombstone(); l.queue.frozen.Load() && lifetime > 0 {
			// It lives elsewhere, and SYNs are on their way here.
			e.proto.places.buryListener(e.proto, e.ends.id(), e.place.listedFor, lifetime)
		}
	}
	e.setState(StateClose)
	e.leave()
	e.release()
	e.ready.Store(uint32(waiter.ReadableEvents | waiter.WritableEvents | waiter.EventHUp))
	e.wake |= waiter.EventHUp | waiter.ReadableEvents | waiter.WritableEvents
	e.listening.Store(nil)
}

// Abort implements stack.TransportEndpoint and tcpip.Endpoint: the connection
// is reset at once, and the endpoint gone.
func (e *Endpoint) Abort() {
	e.do(func(now conn.Time) {
		if !e.started || e.conn.State() == conn.StateClosed {
			e.close(now)
			return
		}
		e.userGone, e.writeShut = true, true
		e.entomb()
		e.conn.Abort(now)
	})
}

// Wait implements stack.TransportEndpoint: it returns when the endpoint holds
// nothing of the stack's any more.
func (e *Endpoint) Wait() {
	e.mu.Lock()
	if e.released {
		e.unlock()
		return
	}
	w := e.forWaiting()
	if w.done == nil {
		w.done = make(chan struct{})
	}
	done := w.done
	e.unlock()
	<-done
}
