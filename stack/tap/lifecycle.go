//go:build linux

package tap

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Attach implements stack.LinkEndpoint. Reading starts with the first
// dispatcher; nil stops it without waiting, because the stack holds locks here
// that a delivery in progress may be waiting for.
func (e *Endpoint) Attach(d stack.NetworkDispatcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	previous := e.attached
	if previous != nil {
		previous.stopped.Store(true)
		for _, q := range e.queues {
			q.ring()
		}
	}
	if d == nil || e.closed {
		return
	}
	e.attached = newDelivery(d)
	go e.read(e.attached, previous)
}

// read runs d's readers. Their turn comes when those before them, if there were
// any, have gone.
func (e *Endpoint) read(d, previous *delivery) {
	defer close(d.done)
	if previous != nil {
		<-previous.done
	}
	if !e.begin(d) {
		return
	}
	var readers sync.WaitGroup
	for _, q := range e.queues {
		readers.Go(func() {
			r := reader{delivery: d, queue: q}
			if err := r.run(e); err != nil {
				e.fail(err)
			}
		})
	}
	readers.Wait()
}

// begin silences the bells that stopped the readers before d's, unless d has
// been stopped by now.
func (e *Endpoint) begin(d *delivery) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d.stopped.Load() || e.closed {
		return false
	}
	for _, q := range e.queues {
		q.hush()
	}
	return true
}

// fail ends the endpoint because of err.
func (e *Endpoint) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.err != nil {
		return
	}
	e.err = err
	e.log.Error("device failed", "device", e.name, "error", err)
	close(e.done)
}

// IsAttached implements stack.LinkEndpoint.
func (e *Endpoint) IsAttached() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.attached != nil && !e.attached.stopped.Load()
}

// Wait implements stack.LinkEndpoint. After Close it returns when the readers
// have gone. After Attach(nil) it does not wait for a delivery that began
// before: the stack waits with its lock held, which that delivery may need, and
// nothing more will be delivered after it.
func (e *Endpoint) Wait() {
	e.mu.Lock()
	d := e.attached
	e.mu.Unlock()
	if d == nil || (d.stopped.Load() && d.delivering.Load() != 0) {
		return
	}
	<-d.done
}

// Close implements stack.LinkEndpoint: it releases the device, which vanishes
// if Open made it, and stops reading without waiting for it. It may be called
// again.
func (e *Endpoint) Close() {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	e.closed = true
	if e.err == nil {
		close(e.done)
	}
	action := e.onClose
	e.onClose = nil
	e.mu.Unlock()
	if action != nil {
		action()
	}
	for _, q := range e.queues {
		q.close()
	}
}

// SetOnCloseAction implements stack.LinkEndpoint.
func (e *Endpoint) SetOnCloseAction(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onClose = f
}
