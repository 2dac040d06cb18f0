package tcp_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp"
)

// Segments that come in one batch draw one acknowledgement, at its end; the
// data is there before.
func TestBatch(t *testing.T) {
	w := newWire(t)
	ep, iss := w.open()
	const size = 1000
	in := func(i uint32) {
		w.inject(segment{seq: peerISN + 1 + i*size, ack: iss, flags: header.TCPFlagAck, window: 65535, payload: strings.Repeat("x", size)}, nil)
	}
	b := tcp.BatcherOf(w.stack)
	var got bytes.Buffer

	// No more than eight are put off.
	b.Begin()
	const early = 16
	for i := range uint32(early) {
		in(i)
		if i%8 == 7 {
			w.want(header.TCPFlagAck)
		} else {
			w.quiet("before the eighth")
		}
	}
	b.End(false)
	w.quiet("after a batch of which all is acknowledged")
	if _, err := ep.Read(&got, tcpip.ReadOptions{}); err != nil {
		t.Fatal(tcpipErr(err))
	}

	b.Begin()
	for i := range uint32(3) {
		in(early + i)
	}
	w.quiet("before the end of the batch")
	if _, err := ep.Read(&got, tcpip.ReadOptions{}); err != nil {
		t.Fatal(tcpipErr(err))
	}
	w.quiet("when the user reads before the end of the batch")
	b.End(false)
	if ack := w.want(header.TCPFlagAck).ack; ack != peerISN+1+(early+3)*size {
		t.Errorf("acknowledged %d, want %d", ack, peerISN+1+(early+3)*size)
	}
	w.quiet("after the acknowledgement")
	if got.Len() != (early+3)*size {
		t.Errorf("read %d bytes", got.Len())
	}

	// A hole is told of at once, and so is what fills it.
	b.Begin()
	in(early + 4)
	w.want(header.TCPFlagAck)
	in(early + 3)
	if ack := w.want(header.TCPFlagAck).ack; ack != peerISN+1+(early+5)*size {
		t.Errorf("acknowledged %d, want %d", ack, peerISN+1+(early+5)*size)
	}
	// For some time after it none is put off; then data of ours carries the
	// acknowledgement, and nothing is left for the end.
	for i := range uint32(early - 2) { // two have gone
		in(early + 5 + i)
		w.want(header.TCPFlagAck)
	}
	in(2*early + 3)
	w.quiet("in the batch")
	if _, err := ep.Write(strings.NewReader("y"), tcpip.WriteOptions{}); err != nil {
		t.Fatal(tcpipErr(err))
	}
	if s := w.want(header.TCPFlagAck); s.payload != "y" || s.ack != peerISN+1+(2*early+4)*size {
		t.Errorf("sent %q, acknowledging %d", s.payload, s.ack)
	}
	b.End(false)
	w.quiet("after the batch")
}

// Whoever reads is told at the end of the batch, and before the acknowledgement,
// which an answer of theirs then carries.
func TestBatchedAnswer(t *testing.T) {
	w := newWire(t)
	ep, iss, wq := w.openWaiting()
	told := false
	entry := waiter.NewFunctionEntry(waiter.ReadableEvents, func(waiter.EventMask) {
		told = true
		if _, err := ep.Write(strings.NewReader("answer"), tcpip.WriteOptions{}); err != nil {
			t.Error(tcpipErr(err))
		}
	})
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	b := tcp.BatcherOf(w.stack)
	b.Begin()
	w.inject(segment{seq: peerISN + 1, ack: iss, flags: header.TCPFlagAck, window: 65535, payload: "question"}, nil)
	w.quiet("in the batch")
	if told {
		t.Error("whoever reads was told before the end of the batch")
	}
	if ep.Readiness(waiter.ReadableEvents)&waiter.ReadableEvents == 0 {
		t.Error("not readable before the end of the batch")
	}
	b.End(false)
	if s := w.want(header.TCPFlagAck); s.payload != "answer" || s.ack != peerISN+1+uint32(len("question")) {
		t.Errorf("sent %q, acknowledging %d", s.payload, s.ack)
	}
	w.quiet("after the answer")
}

// In a long batch those who read are told at a turn; the acknowledgement waits on.
func TestBatchTurn(t *testing.T) {
	w := newWire(t)
	_, iss, wq := w.openWaiting()
	told := 0
	entry := waiter.NewFunctionEntry(waiter.ReadableEvents, func(waiter.EventMask) { told++ })
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	in := func(seq uint32) {
		w.inject(segment{seq: seq, ack: iss, flags: header.TCPFlagAck, window: 65535, payload: "x"}, nil)
	}
	b := tcp.BatcherOf(w.stack)
	b.Begin()
	b.Turn()
	for i := range 2 {
		in(peerISN + 1 + uint32(i))
		if told != i {
			t.Fatalf("told %d times before turn %d", told, i+1)
		}
		b.Turn()
		b.Turn()
		if told != i+1 {
			t.Fatalf("told %d times after turn %d", told, i+1)
		}
		w.quiet("at a turn")
	}
	b.End(false)
	if told != 2 {
		t.Errorf("told %d times of two segments", told)
	}
	if ack := w.want(header.TCPFlagAck).ack; ack != peerISN+3 {
		t.Errorf("acknowledged %d, want %d", ack, peerISN+3)
	}
	w.quiet("after the batch")
}

// Whoever accepts is told at the end of the batch, on the goroutine that ends
// it, when the first request has come too; the answer acknowledges that.
func TestBatchedAccept(t *testing.T) {
	w := newWire(t)
	l, wq := listenEndpoint(t, w.stack, families[0], 0, w.ports[0], 5)
	accepted := false
	entry := waiter.NewFunctionEntry(waiter.ReadableEvents, func(waiter.EventMask) {
		accepted = true
		child, _, err := l.Accept(nil)
		if err != nil {
			t.Errorf("Accept: %s", err)
			return
		}
		t.Cleanup(child.Close)
		if _, err := child.Write(strings.NewReader("answer"), tcpip.WriteOptions{}); err != nil {
			t.Error(tcpipErr(err))
		}
	})
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	b := tcp.BatcherOf(w.stack)
	b.Begin()
	w.inject(segment{seq: peerISN, flags: header.TCPFlagSyn, window: 65535}, nil)
	iss := w.want(header.TCPFlagSyn | header.TCPFlagAck).seq
	for _, payload := range []string{"", "question"} {
		w.inject(segment{seq: peerISN + 1, ack: iss + 1, flags: header.TCPFlagAck, window: 65535, payload: payload}, nil)
	}
	w.quiet("in the batch")
	if accepted {
		t.Error("whoever accepts was told before the end of the batch")
	}
	if l.Readiness(waiter.ReadableEvents)&waiter.ReadableEvents == 0 {
		t.Error("nothing to accept before the end of the batch")
	}
	b.End(false)
	if !accepted {
		t.Fatal("whoever accepts was not told by the end of the batch")
	}
	if s := w.want(header.TCPFlagAck); s.payload != "answer" || s.ack != peerISN+1+uint32(len("question")) {
		t.Errorf("sent %q, acknowledging %d", s.payload, s.ack)
	}
	w.quiet("after the answer")
}

// Where more packets are waiting, the acknowledgement of a single one waits for
// the next, but no longer than a delayed acknowledgement does.
func TestBatchWithMoreToCome(t *testing.T) {
	w := newWire(t)
	_, iss := w.open()
	next := uint32(peerISN + 1)
	b := tcp.BatcherOf(w.stack)
	in := func(n int, more bool) {
		b.Begin()
		for range n {
			w.inject(segment{seq: next, ack: iss, flags: header.TCPFlagAck, window: 65535, payload: "x"}, nil)
			next++
		}
		b.End(more)
	}
	acknowledged := func(when string) {
		t.Helper()
		if ack := w.want(header.TCPFlagAck).ack; ack != next {
			t.Errorf("%s: acknowledged %d, want %d", when, ack, next)
		}
	}
	// The peer is in slow start, or might be.
	for range 16 {
		in(1, true)
		acknowledged("at first")
	}
	in(1, true)
	w.quiet("after one of more packets")
	in(1, true)
	acknowledged("after the second")
	in(2, true)
	acknowledged("after two at once")
	in(1, false)
	acknowledged("after the last")
	in(1, true)
	w.quiet("after one of more packets")
	w.clock.Advance(50 * time.Millisecond)
	acknowledged("in time")
	w.quiet("at the end")
}
