package tcp_test

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// A half-open connection completed by an odd segment takes no place that is not there.
func TestBacklogBoundsAnyHandshake(t *testing.T) {
	w := newWire(t)
	const backlog = 5
	l, _ := listenEndpoint(t, w.stack, families[0], 0, 7, backlog)
	open := func(port uint16) segment {
		w.ports[1] = port
		w.inject(segment{seq: 1, flags: header.TCPFlagSyn, window: 1000}, nil)
		s, ok := w.next()
		if !ok {
			t.Fatalf("SYN from %d unanswered", port)
		}
		return s
	}
	var sa []segment
	for i := range uint16(4) {
		sa = append(sa, open(3000+i))
	}
	for i, s := range sa {
		w.ports[1] = uint16(3000 + i)
		w.inject(segment{seq: 2, ack: s.seq + 1, flags: header.TCPFlagAck, window: 1000}, nil)
	}
	sa = sa[:0]
	for i := range uint16(4) {
		sa = append(sa, open(4000+i))
	}
	for i, s := range sa {
		w.ports[1] = uint16(4000 + i)
		w.inject(segment{seq: 1, ack: s.seq + 1, flags: header.TCPFlagAck | header.TCPFlagSyn, window: 1000}, nil)
	}
	n := 0
	for {
		ep, _, err := l.Accept(nil)
		if err != nil {
			break
		}
		n++
		defer ep.Close()
	}
	if n > backlog {
		t.Errorf("%d connections were ready, the backlog is %d", n, backlog)
	}
}

// Places are given back: handshakes that die, by reset or by time, again and again.
func TestPlacesOfDeadHandshakesComeBack(t *testing.T) {
	w := newWire(t)
	l, _ := listenEndpoint(t, w.stack, families[0], 0, 7, 4)
	for round := range 20 {
		for i := range 3 {
			w.ports[1] = uint16(3000 + 10*round + i)
			w.inject(segment{seq: 1, flags: header.TCPFlagSyn, window: 1000}, nil)
			s := w.want(header.TCPFlagSyn | header.TCPFlagAck)
			switch i {
			case 0:
				w.inject(segment{seq: 2, flags: header.TCPFlagRst}, nil)
			case 1: // an ACK that acknowledges nothing of ours: reset, and the place stays free
				w.inject(segment{seq: 2, ack: s.seq + 77, flags: header.TCPFlagAck, window: 1000}, nil)
				w.want(header.TCPFlagRst)
			case 2:
				w.inject(segment{seq: 2, ack: s.seq + 1, flags: header.TCPFlagAck, window: 1000}, nil)
				ep, _, err := l.Accept(nil)
				if err != nil {
					t.Fatalf("round %d: %s", round, err)
				}
				w.inject(segment{seq: 2, flags: header.TCPFlagRst}, nil)
				ep.Close()
			}
		}
		w.clock.Advance(4 * time.Minute)
		w.link.Drain()
		if n := len(conns(w.stack)); n != 0 {
			t.Fatalf("round %d: %d connections are left", round, n)
		}
	}
}
