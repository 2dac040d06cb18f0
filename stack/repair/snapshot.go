package repair

import (
	"io"
	"net/netip"
	"time"
)

// State is a connection's state, with the values of Linux
// (include/net/tcp_states.h).
type State uint8

// The states a Snapshot can be in. A listener is StateListen.
const (
	StateEstablished State = 1
	StateSynSent     State = 2
	StateSynReceived State = 3
	StateFinWait1    State = 4
	StateFinWait2    State = 5
	StateTimeWait    State = 6
	StateClosed      State = 7
	StateCloseWait   State = 8
	StateLastAck     State = 9
	StateListen      State = 10
	StateClosing     State = 11
)

// Snapshot is a connection at rest: all that is needed to set it down again.
// Its core is what Linux can restore; Extra is what only this TCP can.
//
// The queues refer to the connection's memory, which stays as it is for as
// long as the Snapshot is reachable, whatever becomes of the connection.
type Snapshot struct {
	Core
	Extra *Extra // nil: the core is all there is
	// Children are the connections of a listener that nobody has accepted:
	// half-open ones (SYN-RECEIVED) and those in the accept queue, in order.
	Children []*Snapshot

	release func()
}

// OnRelease has f called by Release, once s is empty, and after what was asked
// for before.
func (s *Snapshot) OnRelease(f func()) {
	if before := s.release; before != nil {
		last := f
		f = func() { before(); last() }
	}
	s.release = f
}

// Release returns memory, that of the Snapshot and what its queues refer to, to
// where it is pooled; the Snapshot must not be used after it, nor be released
// again. Not to call it is no fault: the garbage collector does as well.
func (s *Snapshot) Release() {
	release, children := s.release, s.Children
	*s = Snapshot{}
	for _, child := range children {
		child.Release()
	}
	if release != nil {
		release()
	}
}

// Core is the part of a Snapshot that any TCP understands.
type Core struct {
	Local, Remote netip.AddrPort // Remote is invalid for a listener
	State         State

	// SendSeq is the sequence number of the first byte of SendQueue: SND.UNA,
	// less one if the peer has acknowledged our FIN. In SYN-SENT and
	// SYN-RECEIVED it is that of the first byte after our SYN.
	SendSeq uint32
	// SendQueue is what the peer has not acknowledged, in order; its last
	// Unsent bytes never left.
	SendQueue Bytes
	Unsent    int
	// RecvSeq is the sequence number after the last byte of RecvQueue:
	// RCV.NXT, less one if the peer's FIN was received.
	RecvSeq uint32
	// RecvQueue is what was received in order and has not been read.
	RecvQueue Bytes

	// FINQueued: the user has closed its direction, and our FIN follows
	// SendQueue. FINSent: it has left at least once. FINAcked: the peer has it.
	FINQueued, FINSent, FINAcked bool
	// FINReceived: the peer's FIN came in order, after RecvQueue.
	FINReceived bool

	Options Options
	Window  Window // zero: not known
	// Timestamp is the value of our timestamp clock, in ticks of a millisecond
	// or, with TimestampMicros, of a microsecond. The restored connection goes
	// on from it, so that the peer's PAWS check sees no step back.
	Timestamp       uint32
	TimestampMicros bool
	NoDelay, Cork   bool
}

// Options are what the two sides agreed on when the connection was opened:
// TCP_REPAIR_OPTIONS of Linux.
type Options struct {
	MSS        uint16 // the peer's, as clamped by us; bytes
	Scaling    bool   // window scaling was agreed on
	SendScale  uint8  // shift of the windows we receive, at most 14
	RecvScale  uint8  // shift of the windows we send, at most 14
	SACK       bool
	Timestamps bool
}

// MaxScale is the largest window scale there is (RFC 7323 section 2.3).
const MaxScale = 14

// Window is Linux's struct tcp_repair_window, windows in bytes.
type Window struct {
	SndWl1    uint32 // sequence number of the segment that last updated SndWnd
	SndWnd    uint32 // the peer's window
	MaxWindow uint32 // the largest it ever was
	RcvWnd    uint32 // our window, from RcvWup on
	RcvWup    uint32 // RCV.NXT when it was last advertised
}

// Bytes is a run of bytes in pieces, which are not copied and not to be
// changed.
type Bytes [][]byte

// Len is the number of bytes.
func (b Bytes) Len() (n int) {
	for _, p := range b {
		n += len(p)
	}
	return n
}

// WriteTo writes the bytes to w.
func (b Bytes) WriteTo(w io.Writer) (n int64, err error) {
	for _, p := range b {
		m, err := w.Write(p)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Slice returns the bytes from lo up to hi, as far as there are any.
func (b Bytes) Slice(lo, hi int) (part Bytes) {
	for _, p := range b {
		from, to := min(max(lo, 0), len(p)), min(max(hi, 0), len(p))
		if from < to {
			part = append(part, p[from:to])
		}
		lo, hi = lo-len(p), hi-len(p)
	}
	return part
}

// Extra is what this TCP knows of a connection and Linux cannot restore.
// Ages and times left are as of the moment of the checkpoint.
//
// The tags number the fields in the binary form; a number is never used for
// anything else again. A sequence number that is near SendSeq or RecvSeq is
// written as what it is away from that, and its tag says so.
type Extra struct {
	ISS uint32 `wire:"1"` // our initial sequence number
	IRS uint32 `wire:"2"` // the peer's

	Congestion Congestion    `wire:"3"`
	RTT        RTT           `wire:"4"`
	Sent       []SentSegment `wire:"5"`      // the scoreboard: all that is in flight but a SYN, in order
	Held       []Span        `wire:"6"`      // data that arrived before its turn, in order and joined
	EarlyFIN   *uint32       `wire:"7,recv"` // where the peer's FIN stands that came before its turn

	TSRecent    uint32        `wire:"8"` // the peer's timestamp to echo (TS.Recent)
	TSRecentAge time.Duration `wire:"9"`
	// Advertised is the right-most window edge that the peer was ever told.
	Advertised uint32 `wire:"10,recv"`

	ECN     ECN           `wire:"11"`
	PathMSS uint16        `wire:"12"` // largest segment the path takes, bytes of payload and options
	Socket  SocketOptions `wire:"13"`
	Timers  []Timer       `wire:"14"`
	// Counters are those of the connection, in an order that only grows.
	Counters []uint64 `wire:"15"`
	// SYNSends is how often our SYN has left.
	SYNSends uint8 `wire:"16"`
	// Backlog is a listener's.
	Backlog uint32 `wire:"17"`

	// Passive: the peer's SYN opened the connection.
	Passive bool `wire:"18"`
	// Orphan: the user has closed the socket, and nobody will read or write.
	Orphan bool `wire:"19"`
	// ReadShut: the user has shut the receiving direction.
	ReadShut bool     `wire:"20"`
	Blocks   []Range  `wire:"21"` // SACK blocks to report, the latest first
	Recovery Recovery `wire:"22"`
	Activity Activity `wire:"23"`
	// Records are where records end that no segment may reach across, within
	// what is not acknowledged, in order (MSG_EOR).
	Records []uint32 `wire:"24"`

	IP IPSettings `wire:"25"`
	// FastOpen is about data before the handshake is over.
	FastOpen FastOpen `wire:"26"`
}

// FastOpen is where TCP Fast Open (RFC 7413) stands. The data itself is in the
// queues: of a client what went with its SYN, of a server what came with the
// peer's, and its answer.
type FastOpen struct {
	Serves bool `wire:"1"` // a server took the SYN's data: data flows in SYN-RECEIVED
	Asks   bool `wire:"2"` // a client takes data on the SYN-ACK
	More   bool `wire:"3"` // the user will write at once when the handshake is over
	Quiet  bool `wire:"4"` // the peer knows our window from our SYN-ACK only
	Taken  bool `wire:"5"` // all of the SYN's data was taken
}

// IPSettings are what the user wants of the layer below. Zeros leave it to the
// host.
type IPSettings struct {
	TTL          uint8        `wire:"1"` // time to live, or hop limit
	TOS          uint8        `wire:"2"` // type of service, or traffic class, without the bits of ECN
	MTUDiscovery MTUDiscovery `wire:"3"`
	// Device is the name of the interface that the socket is bound to. Where
	// there is none of that name the routes decide.
	Device string `wire:"4"`
}

// MTUDiscovery is IP_MTU_DISCOVER: Linux's value, plus one.
type MTUDiscovery uint8

// The ways of path MTU discovery (include/uapi/linux/in.h).
const (
	MTUDiscoveryDefault MTUDiscovery = iota
	MTUDiscoveryDont
	MTUDiscoveryWant
	MTUDiscoveryDo
	MTUDiscoveryProbe
	MTUDiscoveryInterface
	MTUDiscoveryOmit
)

// Range is a run of sequence numbers, Start included and End not.
type Range struct {
	Start uint32 `wire:"1,recv"`
	End   uint32 `wire:"2,recv"`
}

// Recovery is what loss recovery remembers besides the scoreboard.
type Recovery struct {
	// Proportional rate reduction (RFC 6937), in bytes.
	Threshold int64 `wire:"1"`
	Before    int64 `wire:"2"`
	Delivered int64 `wire:"3"`
	Sent      int64 `wire:"4"`
	Window    int64 `wire:"5"`
	First     int64 `wire:"6"`

	// RACK (RFC 8985): the last sent of all segments that were delivered, if
	// any was, and how much reordering to expect.
	Seen      bool          `wire:"7"`
	SeenEnd   uint32        `wire:"8,send"`
	SeenAge   time.Duration `wire:"9"`
	SeenRTT   time.Duration `wire:"10"`
	Reordered bool          `wire:"11"`
	Steps     uint8         `wire:"12"`
	Persist   uint8         `wire:"13"`

	// How the last reduction could prove to have been wrong (RFC 3522, 5682).
	Undo          bool   `wire:"14"`
	UndoFrom      uint32 `wire:"15,send"`
	UndoCount     int    `wire:"16"`
	UndoResent    bool   `wire:"17"`
	UndoTimestamp uint32 `wire:"18"`
	Doubtful      bool   `wire:"19"` // the timeout may have been spurious

	// The tail loss probe: one is due; one is out, and was a repetition.
	ProbeDue      bool   `wire:"20"`
	Probing       bool   `wire:"21"`
	ProbeRepeated bool   `wire:"22"`
	ProbeEnd      uint32 `wire:"23,send"`

	// Stalled is how long the oldest segment has been waiting.
	Stalled time.Duration `wire:"24"`
	// Round: the round trip in progress ends when this is acknowledged.
	Round uint32 `wire:"25,send"`
	// Whether the congestion window was what held the sender back.
	Limited      bool   `wire:"26"`
	MostInFlight int64  `wire:"27"`
	LimitedUntil uint32 `wire:"28,send"`
}

// Activity is when something last happened, and what follows from that.
type Activity struct {
	DataSent     time.Duration `wire:"1"`      // since data was last sent; negative: never
	DataReceived time.Duration `wire:"2"`      // since data last came; negative: never
	Received     time.Duration `wire:"3"`      // since any segment last came
	SmallEnd     uint32        `wire:"4,send"` // end of the last small segment (RFC 896)
	RecvMSS      uint16        `wire:"5"`      // largest payload the peer has sent
	QuickACKs    uint8         `wire:"6"`      // acknowledgements not to be delayed
	Interactive  bool          `wire:"7"`      // our data answers the peer's
	OwedACKs     uint8         `wire:"8"`      // acknowledgements that had not left yet
	Probes       uint8         `wire:"9"`      // keepalive probes unanswered

	// Tuning of the receive buffer: the receiver's own measure of the round
	// trip, what the user took since it began, and the most in any.
	RecvRTT    time.Duration `wire:"10"`
	Taken      int           `wire:"11"`
	TakenSince time.Duration `wire:"12"` // negative: it has taken nothing yet
	MostTaken  int           `wire:"13"`

	// More: the last write said that another follows (MSG_MORE), and nothing
	// has been acknowledged since.
	More bool `wire:"14"`

	// Opened is how long ago the handshake was over; negative: it is not. The
	// others are how long the sender was busy, and what then held it back.
	Opened        time.Duration `wire:"15"`
	Busy          time.Duration `wire:"16"`
	WindowLimited time.Duration `wire:"17"`
	BufferLimited time.Duration `wire:"18"`
}

// Congestion is where a connection stands in controlling congestion.
type Congestion struct {
	Name      string           `wire:"1"`      // the algorithm's
	Window    int64            `wire:"2"`      // bytes
	Threshold int64            `wire:"3"`      // bytes; 0: none yet
	State     map[string]int64 `wire:"4"`      // what only the algorithm knows
	Phase     uint8            `wire:"5"`      // Linux's enum tcp_ca_state: Open, Disorder, CWR, Recovery, Loss
	Point     uint32           `wire:"6,send"` // the phase ends when this is acknowledged
	DupACKs   uint32           `wire:"7"`      // in a row
	Retries   int              `wire:"8"`      // retransmission timeouts in a row
}

// RTT is the round-trip time estimate of RFC 6298.
type RTT struct {
	Smoothed time.Duration `wire:"1"` // 0: no sample yet
	Variance time.Duration `wire:"2"`
	Min      time.Duration `wire:"3"`
	Backoff  uint8         `wire:"4"` // doublings of the timeout in force
	Latest   time.Duration `wire:"5"` // sample
}

// SentSegment is one entry of the scoreboard.
type SentSegment struct {
	Seq   uint32        `wire:"1,send"`
	Len   uint32        `wire:"2"`
	Flags uint8         `wire:"3"` // SegmentSACKed and the others
	Age   time.Duration `wire:"4"` // since it was last sent
}

// Flags of a SentSegment.
const (
	SegmentSACKed            = 1 << iota // the peer has it
	SegmentLost                          // judged lost
	SegmentRetransmitted                 // judged lost, and a retransmission is under way
	SegmentEverRetransmitted             // no round-trip sample comes of it
)

// Span is data that arrived before its turn.
type Span struct {
	Seq  uint32 `wire:"1,recv"`
	Data Bytes  `wire:"2"`
}

// ECN is the state of explicit congestion notification (RFC 3168).
type ECN struct {
	Agreed bool `wire:"1"`
	Echo   bool `wire:"2"` // ECE goes on every acknowledgement
	CWR    bool `wire:"3"` // CWR goes on the next data
}

// SocketOptions are the user's settings. Durations of 0 mean that it is off or
// that the default applies, as in the option of that name.
type SocketOptions struct {
	Keepalive         bool          `wire:"1"`
	KeepaliveIdle     time.Duration `wire:"2"`
	KeepaliveInterval time.Duration `wire:"3"`
	KeepaliveCount    int           `wire:"4"`
	UserTimeout       time.Duration `wire:"5"`
	Linger            bool          `wire:"6"`
	LingerTimeout     time.Duration `wire:"7"`
	// Buffer sizes in bytes, and how far auto-tuning may raise them: 0 where
	// the user has chosen the size.
	SendBuffer    int `wire:"8"`
	SendBufferMax int `wire:"9"`
	RecvBuffer    int `wire:"10"`
	RecvBufferMax int `wire:"11"`

	MaxSegment  uint16 `wire:"12"` // TCP_MAXSEG
	WindowClamp int    `wire:"13"` // TCP_WINDOW_CLAMP, bytes
	// NotSentLowat is TCP_NOTSENT_LOWAT, bytes.
	NotSentLowat int64 `wire:"14"`
	Pacing       bool  `wire:"15"` // spread what is sent over the round trip
	// FastOpenBacklog is a listener's TCP_FASTOPEN.
	FastOpenBacklog int `wire:"16"`
}

// TimerKind names a timer.
type TimerKind uint8

// Timer is one that was running.
type Timer struct {
	Kind TimerKind     `wire:"1"`
	Left time.Duration `wire:"2"` // until it expires; negative: it is overdue
}

// The timers.
const (
	TimerRetransmit TimerKind = iota + 1
	TimerPersist
	TimerDelayedACK
	TimerKeepalive
	TimerFinWait2 // an orphan waits for the peer's FIN
	TimerTimeWait
	TimerTailLoss
	TimerReordering
	TimerCork
)
