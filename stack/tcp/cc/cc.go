// Package cc is TCP congestion control: how much a connection may have in
// flight. A Controller is told what happened, in bytes and nanoseconds, and
// answers with a window. It never sees a connection, a clock or a packet.
package cc

import (
	"fmt"
	"math"
	"time"
)

// InitialWindow returns the congestion window a connection starts with, in
// bytes, for a maximum segment size of mss bytes.
// https://www.rfc-editor.org/rfc/rfc6928#section-2
func InitialWindow(mss int) int64 {
	return min(10*int64(mss), max(2*int64(mss), 14600))
}

// Unlimited is the slow-start threshold of a connection that has not met
// congestion.
const Unlimited int64 = math.MaxInt64

// maxWindow bounds every window: no TCP can use more than the largest scaled
// receive window (RFC 7323 section 2.3).
const maxWindow = 1 << 30

// Ack tells of an acknowledgement that reported new data delivered outside
// fast recovery, where proportional rate reduction governs (RFC 6937). After a
// timeout it is slow start that clocks out what was lost, so acknowledgements
// in that state count.
type Ack struct {
	Now        int64         // nanoseconds on the caller's monotonic clock
	Acked      int64         // bytes newly acknowledged, cumulatively
	Flight     int64         // bytes in flight before this acknowledgement
	MSS        int           // bytes of payload in a full segment
	RTT        time.Duration // this acknowledgement's round-trip sample; 0: none
	SRTT       time.Duration // the smoothed round trip; 0: none yet
	NewRound   bool          // the first acknowledgement of data sent after the last round began
	AppLimited bool          // the window was not what limited the sender: do not grow
}

// Signal is a kind of congestion.
type Signal uint8

// The signals.
const (
	// Loss: recovery begins because segments were found lost.
	Loss Signal = iota
	// ECN: the peer echoed a congestion mark (RFC 3168).
	ECN
	// Timeout: the retransmission timer fired for the first time for this data.
	Timeout
)

// Congestion tells of a signal, once for each window in which it was seen.
type Congestion struct {
	Now    int64
	Signal Signal
	Flight int64 // bytes in flight when the signal came (RFC 5681's FlightSize)
	MSS    int
}

// Controller decides the congestion window of one connection. It is not safe
// for concurrent use. All sizes are in bytes. No argument makes it panic: what
// is out of range is brought into range.
type Controller interface {
	// Name is what New knows it by.
	Name() string
	// Window is the congestion window, at least one MSS.
	Window() int64
	// Threshold is the slow-start threshold, or Unlimited.
	Threshold() int64
	// OnAck grows the window.
	OnAck(Ack)
	// OnCongestion reduces it: after Loss and ECN, Window equals Threshold,
	// which is never below two MSS; after Timeout it is one MSS.
	OnCongestion(Congestion)
	// OnIdle tells that nothing was sent for idle while the retransmission
	// timeout was rto; the window decays as RFC 2861 says, never below the
	// restart window.
	OnIdle(now int64, idle, rto time.Duration, mss int)
	// Undo takes back the latest OnCongestion: it was a false alarm
	// (RFC 4015, RFC 5682). The window becomes what it was before, or stays
	// if it is larger. Without one to take back it does nothing.
	Undo(now int64)
	// State returns everything that Restore needs to go on from here.
	State() State
}

// State is a controller's memory in a form that can be stored and carried to
// another process. Times are ages, so that they mean something on another
// clock.
type State struct {
	Name      string
	Window    int64
	Threshold int64            // 0: Unlimited
	Extra     map[string]int64 // what only this algorithm knows
}

// Default is the algorithm used where none is named.
const Default = "cubic"

// Names lists the algorithms, in the order a user should see them.
func Names() []string { return []string{"reno", "cubic"} }

// New returns a controller at the start of a connection. An unknown name is an
// error; the empty one means Default.
func New(name string, mss int) (Controller, error) {
	switch name {
	case "reno":
		return newReno(mss), nil
	case "cubic", "":
		return newCubic(mss), nil
	}
	return nil, fmt.Errorf("unknown congestion control %q", name)
}

// Restore returns a controller that goes on where the one that gave s left
// off, with now being the caller's clock and mss its maximum segment size. The
// time between is not counted: nothing could be sent in it. A State that
// lacks a value gets what a new connection has (a Window of 0: the initial
// window) and a value out of range is brought into range, so that only an
// unknown name is an error.
func Restore(s State, now int64, mss int) (Controller, error) {
	c, err := New(s.Name, mss)
	if err != nil {
		return nil, err
	}
	c.(restorer).restore(s, now, int64(clampMSS(mss)))
	return c, nil
}

// restorer is what every Controller of this package is besides.
type restorer interface {
	restore(s State, now, mss int64)
}
