package conn

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// What the user's calls do in each state: RFC 9293 sections 3.10.2 to 3.10.5,
// with the changes of RFC 1122 and Linux that the rows name.
func TestUserCallsInEveryState(t *testing.T) {
	const fin, rst, silence = header.TCPFlagFin, header.TCPFlagRst, header.TCPFlags(0)
	type outcome struct {
		state State
		sent  header.TCPFlags // on the one segment that is sent; 0: none is
	}
	rows := []struct {
		state State
		// Shutdown of the sending side is the RFC's CLOSE: reading goes on.
		shutdown    outcome
		shutdownErr error
		// Close means that the user is gone; there is data that was not read in
		// every state in which there can be, which is reason for a reset (RFC 1122
		// section 4.2.2.13). idle is the same with nothing unread.
		closed, idle outcome
		abort        outcome
		write, read  error // once there is nothing to read
	}{
		{StateSynSent, outcome{StateSynSent, 0}, ErrNotConnected,
			outcome{StateClosed, 0}, outcome{StateClosed, 0}, outcome{StateClosed, 0}, ErrWouldBlock, ErrWouldBlock},
		{StateSynReceived, outcome{StateSynReceived, 0}, nil,
			outcome{StateSynReceived, 0}, outcome{StateSynReceived, 0}, outcome{StateClosed, rst}, ErrWouldBlock, ErrWouldBlock},
		{StateEstablished, outcome{StateFinWait1, fin}, nil,
			outcome{StateClosed, rst}, outcome{StateFinWait1, fin}, outcome{StateClosed, rst}, nil, ErrWouldBlock},
		{StateFinWait1, outcome{StateFinWait1, 0}, nil,
			outcome{StateClosed, rst}, outcome{StateFinWait1, 0}, outcome{StateClosed, rst}, ErrClosedForSend, ErrWouldBlock},
		{StateFinWait2, outcome{StateFinWait2, 0}, nil,
			outcome{StateClosed, rst}, outcome{StateFinWait2, 0}, outcome{StateClosed, rst}, ErrClosedForSend, ErrWouldBlock},
		{StateCloseWait, outcome{StateLastAck, fin}, nil,
			outcome{StateClosed, rst}, outcome{StateLastAck, fin}, outcome{StateClosed, rst}, nil, ErrClosedForReceive},
		// Section 3.10.5 deletes the TCB without a word from here on: both FINs have
		// been sent. Data that was not read is another matter.
		{StateClosing, outcome{StateClosing, 0}, nil,
			outcome{StateClosed, rst}, outcome{StateClosing, 0}, outcome{StateClosed, silence}, ErrClosedForSend, ErrClosedForReceive},
		{StateLastAck, outcome{StateLastAck, 0}, nil,
			outcome{StateClosed, rst}, outcome{StateLastAck, 0}, outcome{StateClosed, silence}, ErrClosedForSend, ErrClosedForReceive},
		// Nothing ends TIME-WAIT early, and there is nobody to tell (Linux has no
		// socket any more then).
		{StateTimeWait, outcome{StateTimeWait, 0}, nil,
			outcome{StateTimeWait, 0}, outcome{StateTimeWait, 0}, outcome{StateClosed, silence}, ErrClosedForSend, ErrClosedForReceive},
	}
	for _, row := range rows {
		for _, va := range variants[:2] {
			reach := func() *subject { return arrange(t, origin{state: row.state}, va) }
			verify := func(call string, s *subject, want outcome) {
				t.Helper()
				heard := s.hear(-1)
				var sent header.TCPFlags
				for _, g := range heard {
					sent |= g.Flags & (fin | rst)
				}
				if s.c.State() != want.state || sent != want.sent || len(heard) > 1 || len(heard) == 1 && want.sent == 0 {
					t.Errorf("%s, %s: %s then %s, sent %v, want %s and %s", row.state, va.name, call, s.c.State(), heard, want.state, want.sent)
				}
				s.c.Release()
			}
			empty := func(s *subject) {
				var b bytes.Buffer
				s.c.Read(s.now, &b, 1<<20, false)
				s.hear(-1)
			}

			s := reach()
			if err := s.c.Shutdown(s.now, false, true); err != row.shutdownErr {
				t.Errorf("%s, %s: shutdown: %v, want %v", row.state, va.name, err, row.shutdownErr)
			}
			verify("shutdown", s, row.shutdown)

			s = reach()
			s.c.Close(s.now)
			verify("close", s, row.closed)

			s = reach()
			empty(s)
			s.c.Close(s.now)
			verify("close with nothing unread", s, row.idle)

			s = reach()
			s.c.Abort(s.now)
			if err := s.c.Err(); err != ErrAborted {
				t.Errorf("%s, %s: abort: error %v", row.state, va.name, err)
			}
			verify("abort", s, row.abort)

			s = reach()
			empty(s)
			if _, err := s.c.Write(s.now, newBytes(10), 10, false); !errors.Is(err, row.write) {
				t.Errorf("%s, %s: write: %v, want %v", row.state, va.name, err, row.write)
			}
			var b bytes.Buffer
			if _, err := s.c.Read(s.now, &b, 10, false); !errors.Is(err, row.read) {
				t.Errorf("%s, %s: read: %v, want %v", row.state, va.name, err, row.read)
			}
			s.c.Release()
		}
	}
}

// Our FIN waits for the handshake where Shutdown or Close came before it was over.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.4 (SYN-RECEIVED)
func TestCloseInSynReceivedWaits(t *testing.T) {
	for _, gone := range []bool{false, true} {
		s := arrange(t, origin{state: StateSynReceived}, variants[1])
		if gone {
			s.c.Close(s.now)
		} else if err := s.c.Shutdown(s.now, false, true); err != nil {
			t.Fatal(err)
		}
		s.hear(0)
		s.now = s.now.Add(10 * time.Millisecond)
		s.tell(s.segment(flagACK, s.v.rcvNxt, s.v.nxt, 0), -1)
		if s.c.State() != StateFinWait1 || !s.c.finSent() {
			t.Errorf("gone %v: %s, FIN sent %v", gone, s.c.State(), s.c.finSent())
		}
		s.c.Release()
	}
}
