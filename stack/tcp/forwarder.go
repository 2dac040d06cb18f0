package tcp

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// Forwarder lets its user decide about connections that no listener takes:
// ignore, refuse or accept them, to whatever address they are made. Its
// HandlePacket is for stack.Stack.SetTransportProtocolHandler.
type Forwarder struct {
	proto       *protocol
	rcvWnd      int
	maxInFlight int
	handler     func(*ForwarderRequest)

	mu       sync.Mutex
	inFlight map[stack.TransportEndpointID]struct{}
}

// NewForwarder returns a forwarder that calls handler, on a goroutine of its
// own, for every connection request. rcvWnd is the receive window of accepted
// connections in bytes; 0: the stack's default. At most maxInFlight requests
// are undecided at a time; further ones are dropped. The stack's TCP must be
// this package's.
func NewForwarder(s *stack.Stack, rcvWnd, maxInFlight int, handler func(*ForwarderRequest)) *Forwarder {
	p := protocolOf(s)
	if p == nil {
		panic("tcp: NewForwarder: the stack's TCP is another package's")
	}
	return &Forwarder{
		proto:       p,
		rcvWnd:      rcvWnd,
		maxInFlight: maxInFlight,
		handler:     handler,
		inFlight:    make(map[stack.TransportEndpointID]struct{}),
	}
}

// HandlePacket takes a packet that no endpoint took, and reports whether it
// asks for a connection.
func (f *Forwarder) HandlePacket(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.TCP(pkt.TransportHeader().Slice())
	const relevant = header.TCPFlagSyn | header.TCPFlagAck | header.TCPFlagRst | header.TCPFlagFin
	if len(h) < header.TCPMinimumSize || h.Flags()&relevant != header.TCPFlagSyn {
		return false
	}
	r := &ForwarderRequest{forwarder: f}
	if f.proto.receive(id, pkt, &r.syn) != conn.NotDropped {
		return true // counted; there is no one to answer to
	}
	if f.proto.places.swallowStray(&r.syn) {
		return true
	}
	r.tag, r.tagged = pkt.ExperimentOptionValue()
	if !f.admit(id) {
		r.syn.release()
		return true
	}
	go f.handler(r)
	return true
}

// admit reports whether a request is to be decided on: it is not already, and
// there are not too many.
func (f *Forwarder) admit(id stack.TransportEndpointID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, again := f.inFlight[id]; again {
		return false
	}
	if len(f.inFlight) >= f.maxInFlight {
		f.proto.stats.ForwardMaxInFlightDrop.Increment()
		f.proto.drop(conn.DropListenOverflow)
		return false
	}
	f.inFlight[id] = struct{}{}
	return true
}

// ForwarderRequest is a request for a connection. Whoever gets it must call
// Complete in the end, and may call CreateEndpoint before.
type ForwarderRequest struct {
	forwarder *Forwarder
	tag       uint16
	tagged    bool

	mu   sync.Mutex
	syn  packet
	done bool // Complete was called
	used bool // CreateEndpoint was
}

// ID returns the request's addresses and ports, as an endpoint for it would
// have them: local is the destination.
func (r *ForwarderRequest) ID() stack.TransportEndpointID { return r.syn.id }

// ForwardedPacketExperimentOption returns the value of the IP experiment
// option that the request carried, and whether it carried one.
func (r *ForwarderRequest) ForwardedPacketExperimentOption() (uint16, bool) {
	return r.tag, r.tagged
}

// Complete ends the request: another one for the same addresses and ports is
// a new one from now on. With sendReset the peer is told that the connection
// is refused. It must be called once.
func (r *ForwarderRequest) Complete(sendReset bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		panic("tcp: Complete called twice on a forwarder request")
	}
	r.done = true
	f := r.forwarder
	f.mu.Lock()
	delete(f.inFlight, r.syn.id)
	f.mu.Unlock()
	if sendReset {
		f.proto.answerReset(&r.syn)
		return
	}
	r.syn.release()
}

// CreateEndpoint accepts the connection and waits until the handshake is
// complete. Notifying queue makes it give up before. It may be called once, and
// not after Complete.
func (r *ForwarderRequest) CreateEndpoint(queue *waiter.Queue) (tcpip.Endpoint, tcpip.Error) {
	r.mu.Lock()
	if r.done || r.used {
		r.mu.Unlock()
		return nil, &tcpip.ErrInvalidEndpointState{}
	}
	r.used = true
	syn := r.syn
	syn.seg.Payload = r.syn.seg.Payload.Clone() // r's is released by Complete
	r.mu.Unlock()

	settled, wake := waiter.NewChannelEntry(waiter.EventOut | waiter.EventHUp)
	queue.EventRegister(&settled)
	defer queue.EventUnregister(&settled)
	e, err := r.forwarder.accept(&syn, queue)
	if err != nil {
		return nil, err
	}
	<-wake
	if e.EndpointState().connected() {
		return e, nil
	}
	err = e.LastError()
	if err == nil {
		err = &tcpip.ErrConnectionAborted{}
	}
	e.Abort()
	return nil, err
}

// accept begins the handshake that a SYN asks for.
func (f *Forwarder) accept(syn *packet, queue *waiter.Queue) (*Endpoint, tcpip.Error) {
	template := newEndpoint(f.proto, syn.net, queue)
	if f.rcvWnd > 0 {
		template.ownOptions().SetReceiveBufferSize(int64(f.rcvWnd)*SegOverheadFactor, false)
		template.change().rcvBufSet = true
	}
	e, err := template.newChild(syn, queue)
	if err != nil {
		syn.release()
		template.failedAttempt()
		return nil, err
	}
	now := f.proto.now()
	cfg := e.config(now)
	e.conn.Accept(now, &cfg, &syn.seg)
	e.started = true
	e.unlock()
	return e, nil
}
