package netsim

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp"
)

// Bulk is a connection over which one host sends another as much as it can,
// from the time it was made on. Its ends are driven by the stacks'
// notifications.
type Bulk struct {
	net      *Net
	listener tcpip.Endpoint
	sender   *socket
	receiver *socket // nil until accepted

	limit int64 // bytes to send; negative: without end
	sent  int64
	shut  bool // the sender has sent its FIN
	got   int64
	done  bool // the receiver has read it
	err   error
}

// socket is an endpoint and what to do when it is ready.
type socket struct {
	ep    tcpip.Endpoint
	wq    *waiter.Queue
	entry waiter.Entry
	act   func()
	due   bool // act is queued
}

// Endless is a limit of StartBulk: send without end.
const Endless = -1

// StartBulk has the first host of a link connect to the second on port and send
// it limit bytes and then a FIN.
func (n *Net) StartBulk(l *Link, a, b *Host, port uint16, limit int64) (*Bulk, error) {
	f := &Bulk{net: n, limit: limit}
	to := tcpip.FullAddress{Addr: l.B(), Port: port}
	if err := f.listen(b, to); err != nil {
		return nil, err
	}
	ep, wq, err := newEndpoint(a)
	if err != nil {
		return nil, fmt.Errorf("netsim: endpoint: %s", err)
	}
	f.sender = n.watch(ep, wq, f.send)
	err = ep.Connect(to)
	if _, started := err.(*tcpip.ErrConnectStarted); !started {
		return nil, fmt.Errorf("netsim: connect: %v", err)
	}
	n.unaccepted = append(n.unaccepted, f)
	return f, nil
}

func (f *Bulk) listen(h *Host, at tcpip.FullAddress) error {
	ep, _, err := newEndpoint(h)
	if err != nil {
		return fmt.Errorf("netsim: endpoint: %s", err)
	}
	f.listener = ep
	if err := ep.Bind(at); err != nil {
		return fmt.Errorf("netsim: bind: %s", err)
	}
	if err := ep.Listen(backlog); err != nil {
		return fmt.Errorf("netsim: listen: %s", err)
	}
	return nil
}

// Sender is the sending endpoint.
func (f *Bulk) Sender() tcpip.Endpoint { return f.sender.ep }

// Received is how many bytes the receiver has read.
func (f *Bulk) Received() int64 { return f.got }

// Done reports whether the receiver has read everything and then the end.
func (f *Bulk) Done() bool { return f.done }

// Err is what went wrong, nil so far if nothing has: an error of either
// endpoint, or bytes that came out other than they went in.
func (f *Bulk) Err() error { return f.err }

func newEndpoint(h *Host) (tcpip.Endpoint, *waiter.Queue, tcpip.Error) {
	wq := new(waiter.Queue)
	ep, err := h.stack.NewEndpoint(tcp.ProtocolNumber, header.IPv4ProtocolNumber, wq)
	return ep, wq, err
}

// watch has act run whenever an endpoint may be ready.
func (n *Net) watch(ep tcpip.Endpoint, wq *waiter.Queue, act func()) *socket {
	s := &socket{ep: ep, wq: wq, act: act}
	s.entry = waiter.NewFunctionEntry(waiter.EventIn|waiter.EventOut|waiter.EventErr|waiter.EventHUp|waiter.EventRdHUp,
		func(waiter.EventMask) { n.notify(s) })
	wq.EventRegister(&s.entry)
	return s
}

// notify queues a socket's act, once. It is called from within the stack, maybe
// on a goroutine of its own.
func (n *Net) notify(s *socket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !s.due {
		s.due = true
		n.ready = append(n.ready, s)
	}
}

// accept takes the connection if it has come, and reports whether f is done
// with that. It is asked after every event, and not by the listener's
// notifications, which may come at any time: TCPs give them from goroutines.
func (f *Bulk) accept() bool {
	ep, wq, err := f.listener.Accept(nil)
	switch err.(type) {
	case nil:
		f.receiver = f.net.watch(ep, wq, f.receive)
		f.receive()
		f.listener.Close()
	case *tcpip.ErrWouldBlock:
		return false
	default:
		f.fail("accept", err)
	}
	return true
}

// send writes until the endpoint takes no more.
func (f *Bulk) send() {
	for !f.shut && f.err == nil {
		n := int64(chunk)
		if f.limit >= 0 {
			n = min(n, f.limit-f.sent)
		}
		if n == 0 {
			f.shut = true
			f.fail("shutdown", f.sender.ep.Shutdown(tcpip.ShutdownWrite))
			return
		}
		var r bytes.Reader
		r.Reset(pattern(f.sent, n))
		k, err := f.sender.ep.Write(&r, tcpip.WriteOptions{})
		f.sent += k
		if _, wait := err.(*tcpip.ErrWouldBlock); wait {
			return
		}
		f.fail("write", err)
	}
}

// receive reads all there is to read, and lets the receive buffer grow as a
// reader does that keeps up.
func (f *Bulk) receive() {
	for !f.done && f.err == nil {
		r, err := f.receiver.ep.Read((*sink)(f), tcpip.ReadOptions{})
		f.receiver.ep.ModerateRecvBuf(r.Count)
		switch err.(type) {
		case *tcpip.ErrWouldBlock:
			return
		case *tcpip.ErrClosedForReceive:
			f.done = true
			f.receiver.ep.Close()
			f.sender.ep.Close()
			return
		}
		f.fail("read", err)
	}
}

func (f *Bulk) fail(what string, err tcpip.Error) {
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("netsim: %s: %s", what, err)
	}
}

// sink is a Bulk as the writer that takes what was received.
type sink Bulk

// Write implements io.Writer. What is not what was sent is an error.
func (s *sink) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), chunk)
		if !bytes.Equal(rest[:n], pattern(s.got, int64(n))) {
			s.err = fmt.Errorf("netsim: bytes %d to %d are not those that were sent", s.got, s.got+int64(n))
			return 0, s.err
		}
		s.got += int64(n)
		rest = rest[n:]
	}
	return len(p), nil
}

// backlog is more than the one connection that comes, lest it be greeted with a
// SYN cookie, which does not remember all options.
const backlog = 16

// chunk is how much is written and compared at once.
const chunk = 64 << 10

// stream is the first bytes of what a Bulk sends, which goes on with the same
// again. Its period, a prime, is no multiple of anything that could go wrong.
var stream = func() []byte {
	b := make([]byte, period+chunk)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		if i < period {
			b[i] = byte(r.Uint32())
		} else {
			b[i] = b[i-period]
		}
	}
	return b
}()

const period = 65521

// pattern is n bytes, chunk at most, of the stream, from at on.
func pattern(at, n int64) []byte {
	i := at % period
	return stream[i : i+n]
}
