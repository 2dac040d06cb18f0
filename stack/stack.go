package stack

import (
	"fmt"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/tcprepair/ustack/stack/tcp"
)

// Stack is a network stack: addresses, routes, and the connections on them. It
// is safe for concurrent use.
type Stack struct {
	cfg   Config
	net   *gstack.Stack
	names map[tcpip.NICID]string // interface names; fixed once New returns

	mu     sync.Mutex
	closed bool
	open   map[closer]struct{} // the Conns and Listeners that Close must end
	done   chan struct{}       // closed when Close has finished
}

// closer is what Stack.Close ends: a Conn or a Listener.
type closer interface{ abort() }

// New makes a stack and brings its link up. If it fails, the link is still the
// caller's to close, though it may be closed by then.
func New(cfg Config) (*Stack, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Name == "" {
		cfg.Name = DefaultName
	}
	if cfg.Backlog == 0 {
		cfg.Backlog = DefaultBacklog
	}
	if cfg.Congestion == "" {
		cfg.Congestion = "cubic"
	}
	s := &Stack{
		cfg:   cfg,
		names: make(map[tcpip.NICID]string),
		open:  make(map[closer]struct{}),
		done:  make(chan struct{}),
		net: gstack.New(gstack.Options{
			NetworkProtocols: []gstack.NetworkProtocolFactory{
				ipv4.NewProtocol,
				ipv6.NewProtocolWithOptions(ipv6.Options{AutoGenLinkLocal: true}),
				arp.NewProtocol,
			},
			TransportProtocols: []gstack.TransportProtocolFactory{
				tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
			},
			HandleLocal: !cfg.NoHandleLocal,
		}),
	}
	if err := s.setTCPOptions(); err != nil {
		s.net.Destroy()
		return nil, err
	}
	if l, ok := cfg.Link.(batchLink); ok {
		b := tcp.BatcherOf(s.net)
		l.SetBatch(b.Begin, b.Turn, b.End)
	}
	if err := s.addInterfaces(); err != nil {
		s.net.Destroy()
		return nil, err
	}
	return s, nil
}

// batchLink is a link that can tell when it has no more packets for now, as
// stack/tap can.
type batchLink interface {
	SetBatch(begin, turn func(), end func(more bool))
}

// setTCPOptions passes the configuration on to the TCP protocol.
func (s *Stack) setTCPOptions() error {
	sack := tcpip.TCPSACKEnabled(!s.cfg.NoSACK)
	moderate := tcpip.TCPModerateReceiveBufferOption(!s.cfg.NoAutoTuning)
	cc := tcpip.CongestionControlOption(s.cfg.Congestion)
	options := []tcpip.SettableTransportProtocolOption{&sack, &moderate, &cc}
	if b := s.cfg.ReceiveBuffer; b.set() {
		options = append(options, &tcpip.TCPReceiveBufferSizeRangeOption{Min: min(minBuffer, b.Default), Default: b.Default, Max: b.Max})
	}
	if b := s.cfg.SendBuffer; b.set() {
		options = append(options, &tcpip.TCPSendBufferSizeRangeOption{Min: min(minBuffer, b.Default), Default: b.Default, Max: b.Max})
	}
	for _, o := range options {
		if err := s.net.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			if o == &cc {
				return fmt.Errorf("congestion control %q: there is none of that name", s.cfg.Congestion)
			}
			return fmt.Errorf("TCP option %T: %v", o, err)
		}
	}
	return nil
}

// minBuffer is the smallest buffer a socket may ask for, in bytes.
const minBuffer = 4096

// NetStack returns gVisor's stack, for what the facade does not cover:
// forwarders, UDP, packet filters, more interfaces. It must not be destroyed
// but by Close.
func (s *Stack) NetStack() *gstack.Stack { return s.net }

// Close ends everything: listeners first, then every connection, whose peers
// are told by a reset, then the link. It returns when nothing of the stack runs
// any more. To let connections end in order, close them and call Drain before.
// Further calls wait for the first and do nothing.
func (s *Stack) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.done
		return nil
	}
	s.closed = true
	open := s.open
	s.open = nil
	s.mu.Unlock()

	for c := range open {
		if l, ok := c.(*Listener); ok {
			l.abort()
		}
	}
	for c := range open {
		if _, ok := c.(*Listener); !ok {
			c.abort()
		}
	}
	s.net.Close()
	// The link goes before gVisor's Wait, which waits for links while it
	// holds a lock that a packet on its way in may need.
	for id := range s.names {
		s.net.RemoveNIC(id)
	}
	if s.cfg.Link != nil {
		s.cfg.Link.Wait()
	}
	s.net.Wait()
	close(s.done)
	return nil
}

// track registers c for Close, and reports false if Close came first.
func (s *Stack) track(c closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.open[c] = struct{}{}
	return true
}

// untrack forgets c, which has been closed.
func (s *Stack) untrack(c closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

func (s *Stack) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}
