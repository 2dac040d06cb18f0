package repairtest

import (
	"bytes"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/tcprepair/ustack/stack/repair"
)

// The timestamp clock can be read at any time, and set in repair.
func timestamp(t *testing.T, lab *Lab) {
	live, _ := lab.Connected(t)
	_, _, err := live.Timestamp()
	want(t, "reading outside repair", err, nil)
	want(t, "setting outside repair", live.SetTimestamp(1, false), repair.ErrPermission)
	s := connected(t, lab)
	must(t, "setting options", s.SetOptions(repair.Options{MSS: 1000, Timestamps: true}))
	const at = 4_294_967_000 // it will wrap
	must(t, "setting the clock", s.SetTimestamp(at, false))
	got, micros, err := s.Timestamp()
	must(t, "reading the clock", err)
	if micros || got-at > 5000 {
		t.Errorf("the clock is %d, micros %t, just after it was set to %d", got, micros, uint32(at))
	}
}

// What is written to a queue is in it, and nothing leaves.
func writeQueues(t *testing.T, lab *Lab) {
	live, _ := lab.Connected(t)
	_, err := live.WriteQueue(repair.SendQueue, []byte("x"))
	want(t, "outside repair", err, repair.ErrPermission)
	fresh := lab.Socket(t)
	freeze(t, fresh)
	_, err = fresh.WriteQueue(repair.SendQueue, []byte("x"))
	want(t, "in CLOSED", err, repair.ErrClosed)

	s := connected(t, lab)
	_, err = s.WriteQueue(repair.NoQueue, []byte("x"))
	want(t, "no queue", err, repair.ErrInvalid)
	for q, text := range map[repair.Queue]string{repair.RecvQueue: "received", repair.SendQueue: "sent before"} {
		before, err := s.QueueSeq(q)
		must(t, "the queue's number", err)
		n, err := s.WriteQueue(q, []byte(text))
		if err != nil || n != len(text) {
			t.Errorf("writing to the %v queue: %d, %v", q, n, err)
		}
		if seq, _ := s.QueueSeq(q); seq != before+uint32(len(text)) {
			t.Errorf("%d bytes took the %v queue's number from %d to %d", len(text), q, before, seq)
		}
		b := make([]byte, 100)
		if n, err := s.Peek(q, b); err != nil || string(b[:n]) != text {
			t.Errorf("the %v queue has %q (%v)", q, b[:n], err)
		}
	}
	unread, unacked, unsent, err := s.Queued()
	must(t, "asking for the queues", err)
	if unread != 8 || unacked != 11 || unsent != 0 {
		t.Errorf("%d unread, %d unacknowledged, %d unsent; want 8, 11, 0", unread, unacked, unsent)
	}
}

// Peeking is for repair, and takes nothing away.
func peek(t *testing.T, lab *Lab) {
	s, peer := lab.Connected(t)
	_, err := peer.Write([]byte("from the peer"))
	must(t, "the peer's write", err)
	received(t, s, 13)
	b := make([]byte, 100)
	_, err = s.Peek(repair.RecvQueue, b)
	want(t, "outside repair", err, repair.ErrPermission)
	freeze(t, s)
	_, err = s.Peek(repair.NoQueue, b)
	want(t, "no queue", err, repair.ErrInvalid)
	for range 2 {
		if n, err := s.Peek(repair.RecvQueue, b); err != nil || string(b[:n]) != "from the peer" {
			t.Errorf("the receive queue has %q (%v)", b[:n], err)
		}
	}
	if n, err := s.Peek(repair.RecvQueue, b[:4]); err != nil || string(b[:n]) != "from" {
		t.Errorf("the first four bytes are %q (%v)", b[:n], err)
	}
}

// A connection made in repair is ESTABLISHED at once and begins where it was
// told to.
func connecting(t *testing.T, lab *Lab) {
	s := connected(t, lab)
	if st, err := s.State(); err != nil || st != repair.StateEstablished {
		t.Errorf("state %v (%v)", st, err)
	}
	local, remote, err := s.Addrs()
	if err != nil || local != lab.Local || remote != lab.Remote {
		t.Errorf("ends %v, %v (%v); want %v, %v", local, remote, err, lab.Local, lab.Remote)
	}
	for q, n := range map[repair.Queue]uint32{repair.SendQueue: 1000, repair.RecvQueue: 5000} {
		if seq, err := s.QueueSeq(q); err != nil || seq != n {
			t.Errorf("the %v queue's number is %d (%v), want %d", q, seq, err, n)
		}
	}
	unread, unacked, unsent, err := s.Queued()
	if err != nil || unread+unacked+unsent != 0 {
		t.Errorf("%d, %d, %d bytes queued (%v)", unread, unacked, unsent, err)
	}
}

// There cannot be two connections with the same ends.
func duplicate(t *testing.T, lab *Lab) {
	connected(t, lab)
	s := lab.Socket(t)
	freeze(t, s)
	if err := s.Bind(lab.Local); err != nil {
		want(t, "bind", err, repair.ErrAddrInUse)
		return
	}
	must(t, "the send queue's beginning", s.SetQueueSeq(repair.SendQueue, 77))
	want(t, "connect", s.Connect(lab.Remote), repair.ErrAddrInUse)
	if seq, err := s.QueueSeq(repair.SendQueue); err != nil || seq != 77 {
		t.Errorf("after the refusal the send queue begins at %d (%v), was set to 77", seq, err)
	}
}

// Closing in repair tells the peer nothing.
func closing(t *testing.T, lab *Lab) {
	s, peer := lab.Connected(t)
	freeze(t, s)
	must(t, "close", s.Close())
	nothing(t, peer)
}

// nothing fails unless the peer sees neither data nor an end for a while.
func nothing(t *testing.T, peer net.Conn) {
	t.Helper()
	must(t, "a deadline", peer.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	n, err := peer.Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("the peer reads %d bytes, %v", n, err)
		}
	}
	must(t, "no deadline", peer.SetReadDeadline(time.Time{}))
}

// What the peer sends while the socket is frozen neither moves its queue nor is
// acknowledged; it comes again after the thaw, and the stream is whole.
func frozen(t *testing.T, lab *Lab) {
	s, peer := lab.Connected(t)
	freeze(t, s)
	before, err := s.QueueSeq(repair.RecvQueue)
	must(t, "the receive queue's number", err)
	text := bytes.Repeat([]byte("0123456789"), 1000)
	_, err = peer.Write(text)
	must(t, "the peer's write", err)
	nothing(t, peer)
	if seq, err := s.QueueSeq(repair.RecvQueue); err != nil || seq != before {
		t.Errorf("the receive queue's number moved from %d to %d (%v)", before, seq, err)
	}
	must(t, "thawing", s.SetRepair(repair.Off))
	received(t, s, len(text))
	freeze(t, s)
	b := make([]byte, len(text)+1)
	if n, err := s.Peek(repair.RecvQueue, b); err != nil || !bytes.Equal(b[:n], text) {
		t.Errorf("%d bytes after the thaw (%v), not what was sent", n, err)
	}
}
