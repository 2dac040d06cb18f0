package packetdrill

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/waiter"
)

// Events, which have poll's bits.
const (
	eventIn      = waiter.EventIn
	eventRdHup   = waiter.EventRdHUp
	alwaysPolled = waiter.EventErr | waiter.EventHUp
	allEvents    = waiter.EventMask(0xffff)
)

var pollNames = []string{"IN", "PRI", "OUT", "ERR", "HUP", "NVAL", "RDNORM", "WRNORM", "RDHUP", "EXCLUSIVE", "ONESHOT", "ET"}

// expire bounds a call that waits by its own timeout in milliseconds, and
// reports whether it has run out.
func (r *runner) expire(c *call, ms int64) bool {
	if ms < 0 {
		return false
	}
	c.until = c.start + time.Duration(ms)*time.Millisecond
	return r.now() >= c.until
}

// doPoll is poll([{fd=…, events=…, revents=…}, …], count, timeout).
func doPoll(r *runner, c *call) outcome {
	list, _ := c.arg(0).(Array)
	ready := int64(0)
	var differ, got []string
	for _, e := range list.Elems {
		p, _ := e.(Struct)
		fd, err1 := r.eval(p.Field("fd"))
		events, err2 := r.eval(p.Field("events"))
		if err1 != nil || err2 != nil {
			r.failCall(c, "%s is no {fd=…, events=…, revents=…}", exprText(e))
		}
		revents := constants["POLLNVAL"]
		if f := r.files[int(fd)]; f != nil {
			mask := waiter.EventMask(events) | alwaysPolled
			revents = int64(f.ready(mask) & mask)
		}
		if revents != 0 {
			ready++
		}
		if f := p.Field("revents"); f != nil {
			if want, err := r.eval(f); err != nil || want != revents {
				differ = append(differ, fmt.Sprint(fd))
			}
		}
		got = append(got, fmt.Sprintf("{fd=%d, revents=%s}", fd, flagsText("POLL", revents, pollNames...)))
	}
	if ready == 0 && !r.expire(c, r.intArg(c, 2)) {
		return blocked
	}
	if differ != nil {
		return wrong(exprText(list), fmt.Sprint(got), "revents of descriptor %v differ", differ)
	}
	return returned(ready)
}

// epoll is an epoll instance.
type epoll struct {
	items []*epollItem // in the order in which they were added
}

// epollItem is one descriptor that an epoll instance watches.
type epollItem struct {
	fd    int64
	file  file
	mask  waiter.EventMask
	flags int64 // EPOLLET, EPOLLONESHOT
	data  int64
	// edge is set by the file when something happens, and cleared when it
	// has been reported.
	edge atomic.Bool
	off  bool // EPOLLONESHOT has shot
	wq   *waiter.Queue
	on   waiter.Entry
}

func (e *epoll) ready(mask waiter.EventMask) waiter.EventMask {
	for _, it := range e.items {
		if it.events() != 0 {
			return mask & eventIn
		}
	}
	return 0
}

func (e *epoll) abandon() {
	for _, it := range e.items {
		it.forget()
	}
	e.items = nil
}

// watch registers the item with its file.
func (it *epollItem) watch() {
	it.edge.Store(true)
	if it.wq != nil {
		it.on.Init(it, it.mask)
		it.wq.EventRegister(&it.on)
	}
}

func (it *epollItem) forget() {
	if it.wq != nil {
		it.wq.EventUnregister(&it.on)
	}
}

// NotifyEvent implements waiter.EventListener.
func (it *epollItem) NotifyEvent(waiter.EventMask) { it.edge.Store(true) }

// events is what the item has to report.
func (it *epollItem) events() int64 {
	if it.off || it.flags&epollET != 0 && !it.edge.Load() {
		return 0
	}
	return int64(it.file.ready(it.mask) & it.mask)
}

// doEpollCreate is epoll_create(size).
func doEpollCreate(r *runner, c *call) outcome { return returned(r.install(c, &epoll{})) }

// epollOf is the epoll instance that the first argument names.
func (r *runner) epollOf(c *call) (*epoll, errno) {
	switch f := r.files[int(r.intArg(c, 0))].(type) {
	case *epoll:
		return f, ""
	case nil:
		return nil, "EBADF"
	}
	return nil, "EINVAL"
}

// doEpollCtl is epoll_ctl(fd, operation, fd, {events=…, fd=…}).
func doEpollCtl(r *runner, c *call) outcome {
	e, err := r.epollOf(c)
	if err != "" {
		return failed(err)
	}
	op, fd := r.intArg(c, 1), r.intArg(c, 2)
	target := r.files[int(fd)]
	if target == nil {
		return failed("EBADF")
	}
	at := slices.IndexFunc(e.items, func(it *epollItem) bool { return it.fd == fd })
	switch {
	case op == epollAdd && at >= 0:
		return failed("EEXIST")
	case op != epollAdd && at < 0:
		return failed("ENOENT")
	}
	if at >= 0 {
		e.items[at].forget()
		if op == epollDel {
			e.items = slices.Delete(e.items, at, at+1)
			return returned(0)
		}
	}
	it := r.epollItem(c, fd, target)
	if op == epollAdd {
		e.items = append(e.items, it)
	} else {
		e.items[at] = it
	}
	it.watch()
	return returned(0)
}

func (r *runner) epollItem(c *call, fd int64, target file) *epollItem {
	ev, _ := c.arg(3).(Struct)
	events, err := r.eval(ev.Field("events"))
	if err != nil {
		r.failCall(c, "epoll_ctl: events: %v", err)
	}
	it := &epollItem{fd: fd, file: target, flags: events, mask: waiter.EventMask(events)&allEvents | alwaysPolled}
	if s, ok := target.(*sock); ok {
		it.wq = s.wq
	}
	it.data, _ = r.epollData(ev)
	return it
}

// epollData is the value that goes with an event: its fd, ptr, u32 or u64.
func (r *runner) epollData(ev Struct) (int64, bool) {
	for _, name := range []string{"fd", "ptr", "u32", "u64"} {
		if f := ev.Field(name); f != nil {
			if v, err := r.eval(f); err == nil {
				return v, true
			}
		}
	}
	return 0, false
}

// doEpollWait is epoll_wait(fd, {events=…, fd=…}, count, timeout). The events
// are one, or an array.
func doEpollWait(r *runner, c *call) outcome {
	e, err := r.epollOf(c)
	if err != "" {
		return failed(err)
	}
	limit := r.intArg(c, 2)
	type report struct {
		it     *epollItem
		events int64
	}
	var list []report
	for _, it := range e.items {
		if ev := it.events(); ev != 0 && int64(len(list)) < limit {
			list = append(list, report{it, ev})
		}
	}
	if len(list) == 0 && !r.expire(c, r.intArg(c, 3)) {
		return blocked
	}
	want := []Expr{c.arg(1)}
	if a, ok := c.arg(1).(Array); ok {
		want = a.Elems
	}
	for i, rep := range list {
		rep.it.edge.Store(false)
		rep.it.off = rep.it.flags&epollOneshot != 0
		if i >= len(want) {
			break
		}
		got := fmt.Sprintf("{events=%s, fd=%d}", flagsText("EPOLL", rep.events, pollNames...), rep.it.data)
		ev, _ := want[i].(Struct)
		events, err := r.eval(ev.Field("events"))
		data, ok := r.epollData(ev)
		if err != nil || events != rep.events || ok && data != rep.it.data {
			return wrong(exprText(want[i]), got, "the event is another")
		}
	}
	return returned(int64(len(list)))
}
