package conn

import (
	"io"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	"github.com/tcprepair/ustack/stack/repair"
)

// Conn is one TCP connection. The zero value is CLOSED and waits for Connect,
// Accept or Restore.
type Conn struct{}

// Connect begins an active open: CLOSED to SYN-SENT. Output yields the SYN.
func (c *Conn) Connect(now Time, cfg *Config) {}

// Accept begins a passive open with the SYN that a listener received: CLOSED
// to SYN-RECEIVED. Output yields the SYN-ACK. syn's payload is released.
func (c *Conn) Accept(now Time, cfg *Config, syn *Segment) {}

// AcceptCookie makes an ESTABLISHED connection of the ACK that returned a SYN
// cookie; syn is the SYN as it was reconstructed (Seq one less than the ACK's,
// MSS and the options the cookie carried). The caller then gives ack to Input.
func (c *Conn) AcceptCookie(now Time, cfg *Config, syn *Segment) {}

// Input takes a segment whose checksum was right. It owns the payload. The
// verdict says whether the segment was used or why it was refused; answers are
// owed and come from Output.
func (c *Conn) Input(now Time, s *Segment) DropReason { return NotDropped }

// Output fills out with the next segment to send, up to Config.GSOMax of
// payload, and reports whether there is one. Call it until it reports false,
// or until there is no more room on the link.
func (c *Conn) Output(now Time, out *Segment) bool { return false }

// Tick runs the timers that have expired.
func (c *Conn) Tick(now Time) {}

// Deadline is when Tick wants to be called next, Never if no timer is set.
func (c *Conn) Deadline() Time { return Never }

// Write copies up to n bytes from r to the send queue and reports how many it
// took: fewer than n if there is no room (ErrWouldBlock only if none at all).
// more says that another Write follows at once, as MSG_MORE does.
func (c *Conn) Write(now Time, r io.Reader, n int, more bool) (int, error) { return 0, nil }

// Read moves up to n bytes of the receive queue to w. With peek they stay.
// After the last byte before a FIN it reports ErrClosedForReceive.
func (c *Conn) Read(now Time, w io.Writer, n int, peek bool) (int, error) { return 0, nil }

// Shutdown closes one or both directions. Closing the sending side queues a
// FIN behind what was written.
func (c *Conn) Shutdown(now Time, read, write bool) error { return nil }

// Close says that the user is gone. What was written is still delivered and a
// FIN follows; if data is unread, or data arrives later, the peer is reset
// (RFC 1122 section 4.2.2.13). The connection lives on until EventClosed.
func (c *Conn) Close(now Time) {}

// Abort resets the connection (RFC 9293 section 3.10.5). Output yields the RST.
func (c *Conn) Abort(now Time) {}

// Events returns what happened since the last call.
func (c *Conn) Events() Event { return 0 }

// State returns the connection's state.
func (c *Conn) State() State { return StateClosed }

// Err returns why the connection ended early, nil if it has not.
func (c *Conn) Err() error { return nil }

// Readable is how many bytes Read can return at once.
func (c *Conn) Readable() int { return 0 }

// Writable is how many bytes Write would take now.
func (c *Conn) Writable() int { return 0 }

// PathError tells of an ICMP error about a segment of ours that began at seq.
// err is ErrHostUnreachable, ErrNetUnreachable or ErrRefused.
func (c *Conn) PathError(now Time, seq seqnum.Value, err error) DropReason { return NotDropped }

// PathMTU tells that a segment of ours that began at seq was too big; mss is
// what a packet of the path's MTU can carry.
func (c *Conn) PathMTU(now Time, seq seqnum.Value, mss uint16) DropReason { return NotDropped }

// SetOptions changes the user's settings.
func (c *Conn) SetOptions(now Time, o UserOptions) {}

// Options returns the user's settings.
func (c *Conn) Options() UserOptions { return UserOptions{} }

// SetBuffers changes the buffer sizes, in bytes; 0 leaves one as it is. It
// ends auto-tuning of that side.
func (c *Conn) SetBuffers(now Time, rcv, snd int) {}

// Buffers returns the buffer sizes in bytes, as auto-tuning has left them.
func (c *Conn) Buffers() (rcv, snd int) { return 0, 0 }

// SetCongestion replaces the congestion controller by name.
func (c *Conn) SetCongestion(name string) error { return nil }

// SetRepair freezes (On) or thaws (Off, OffNoProbe) the connection.
func (c *Conn) SetRepair(now Time, m repair.Mode) error { return nil }

// Frozen reports whether the connection is in repair mode.
func (c *Conn) Frozen() bool { return false }

// QueueSeq is the sequence number after the last byte of a queue: RCV.NXT for
// the receive queue, the end of what was written for the send queue, as
// Linux's TCP_QUEUE_SEQ reports them.
func (c *Conn) QueueSeq(q repair.Queue) (seqnum.Value, error) { return 0, nil }

// Drops counts refused segments by reason.
func (c *Conn) Drops() *[NumDropReasons]uint32 { return new([NumDropReasons]uint32) }

// Info describes the connection as Linux's tcp_info does.
func (c *Conn) Info(now Time) Info { return Info{} }

// Info is a picture of a connection. Sizes are bytes unless they say otherwise.
type Info struct {
	State                                State
	RTT, RTTVar, RTO                     time.Duration
	MinRTT                               time.Duration
	Cwnd, Ssthresh                       int64
	SndMSS, RcvMSS                       int
	SndUna, SndNxt                       seqnum.Value
	RcvNxt                               seqnum.Value
	SndWnd, RcvWnd                       int64
	SndWScale, RcvWScale                 uint8
	Unsent, Unread                       int
	InFlight                             int64
	Unacked, Sacked, Lost, Retrans       int    // segments
	Retransmits                          uint64 // segments, in all
	BytesAcked                           uint64
	BytesReceived                        uint64
	SegsIn, SegsOut                      uint64
	Timestamps, SACK, WindowScaling, ECN bool
	Frozen                               bool
	CongestionControl                    string
}

// Reset returns the RST that answers a segment for which there is no
// connection, and whether there is one to send: a RST is never answered.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.1
func Reset(s *Segment) (Segment, bool) { return Segment{}, false }
