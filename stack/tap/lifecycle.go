//go:build linux

package tap

import "gvisor.dev/gvisor/pkg/tcpip/stack"

// Attach implements stack.LinkEndpoint. Reading starts with the first
// dispatcher; nil stops it without waiting, because the stack holds locks here
// that a delivery in progress may be waiting for.
func (e *Endpoint) Attach(d stack.NetworkDispatcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	previous := e.reader
	if previous != nil {
		previous.stopped.Store(true)
		e.queue.ring()
	}
	if d == nil || e.closed {
		return
	}
	r := newReader(d)
	e.reader = r
	go e.read(r, previous)
}

// read is the body of r's goroutine. Its turn comes when the reader before it,
// if there was one, has gone.
func (e *Endpoint) read(r, previous *reader) {
	defer close(r.done)
	if previous != nil {
		<-previous.done
	}
	if !e.begin(r) {
		return
	}
	if err := r.run(e); err != nil {
		e.fail(err)
	}
}

// begin silences the bell that stopped the reader before r, unless r has been
// stopped by now.
func (e *Endpoint) begin(r *reader) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.stopped.Load() || e.closed {
		return false
	}
	e.queue.hush()
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
	return e.reader != nil && !e.reader.stopped.Load()
}

// Wait implements stack.LinkEndpoint. After Close it returns when the reader
// has gone. After Attach(nil) it does not wait for a delivery that began
// before: the stack waits with its lock held, which that delivery may need, and
// nothing more will be delivered after it.
func (e *Endpoint) Wait() {
	e.mu.Lock()
	r := e.reader
	e.mu.Unlock()
	if r == nil || (r.stopped.Load() && r.delivering.Load()) {
		return
	}
	<-r.done
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
	e.queue.close()
}

// SetOnCloseAction implements stack.LinkEndpoint.
func (e *Endpoint) SetOnCloseAction(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onClose = f
}
