package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// Defaults that Config uses for its zero fields.
const (
	DefaultMSS        = 536                    // RFC 9293 MUST-15, IPv4
	DefaultBuffer     = 1 << 20                // bytes, each direction
	InitialRTO        = time.Second            // RFC 6298 (2.1)
	DefaultMinRTO     = 200 * time.Millisecond // Linux TCP_RTO_MIN
	DefaultMaxRTO     = 120 * time.Second      // Linux TCP_RTO_MAX
	DefaultRetries    = 15                     // Linux tcp_retries2
	DefaultSYNRetries = 6                      // Linux tcp_syn_retries
	DefaultTimeWait   = 60 * time.Second
	DefaultFinWait2   = 60 * time.Second
)

// Config is what a connection is born with. It holds values, never sources of
// them: clocks, randomness and routes belong to the caller. Connect, Accept
// and Restore copy what they need.
type Config struct {
	// ISS is the initial send sequence number, chosen by the caller as RFC
	// 6528 wants it.
	ISS seqnum.Value
	// TSOffset is added to the millisecond clock to make timestamp values, so
	// that they differ from flow to flow (RFC 7323 section 5.4).
	TSOffset uint32

	// MSS is the most payload a segment may carry on this path, before
	// options: the route's MTU less the IP and TCP headers. It bounds what we
	// send and is what we advertise. 0: DefaultMSS.
	MSS uint16
	// AdvertisedMSS, if not 0, is advertised instead of MSS (TCP_MAXSEG).
	AdvertisedMSS uint16
	// GSOMax is the most payload one outgoing Segment may carry when the link
	// cuts it up; less than two MSS: none does.
	GSOMax int

	// RcvBuf is how many bytes of the peer's data are kept for the user, in
	// and out of order: the largest window advertised. RcvBufMax, if larger,
	// is how far auto-tuning may raise it; the window scale is the smallest
	// that fits it.
	RcvBuf, RcvBufMax int
	// ScaleFor, in bytes, asks for a window scale that fits it even if the
	// receive buffer needs less.
	ScaleFor int
	// SndBuf is how many bytes the user may have written that the peer has
	// not acknowledged. SndBufMax, if larger, is the auto-tuning bound.
	SndBuf, SndBufMax int

	// What we offer on our SYN, or accept on the peer's.
	WindowScaling, Timestamps, SACK, ECN bool

	// Congestion names the congestion control; empty or unknown: cc.Default.
	Congestion string

	MinRTO, MaxRTO time.Duration
	// Retries is how often data is retransmitted before the peer is given up,
	// SYNRetries the same for SYN and SYN-ACK.
	Retries, SYNRetries int
	// TimeWait is how long TIME-WAIT lasts, FinWait2 how long a closed
	// connection waits in FIN-WAIT-2 (Linux tcp_fin_timeout); negative
	// FinWait2: not at all.
	TimeWait, FinWait2 time.Duration

	// InvalidRateLimit is the least time between answers to segments without
	// data that lie outside the window; 0: half a second, negative: none.
	InvalidRateLimit time.Duration

	// DelayedACK lets acknowledgements wait for data or a second segment, as
	// RFC 1122 section 4.2.3.2 says. Off: one per batch of input.
	DelayedACK bool
	// NoIdleRestart keeps the congestion window however long nothing was sent
	// (Linux tcp_slow_start_after_idle=0).
	NoIdleRestart bool
	// FastOpen is the option for our first SYN or for our SYN-ACK (RFC 7413); nil:
	// none. A SYN that has to be sent again is sent without it.
	FastOpen *FastOpen
	// SYNData is how many bytes WriteSYN may put on our SYN.
	SYNData int
	// Early lets Accept take the data on the SYN, and data flow before the
	// handshake is over: the SYN brought a good cookie.
	Early bool

	// LikeLinux follows Linux where gVisor's TCP, or a RFC's letter, has it
	// otherwise: the send buffer counts memory, not bytes; a window probe is
	// empty; a FIN passes a full congestion window; an acknowledgement of what was
	// never sent is dropped without a word, a SYN in TIME-WAIT that opens nothing is
	// answered, and no more leaves in one piece than Linux would send at a time.
	LikeLinux bool
	// LeastBurst is how many segments may leave in one piece, with LikeLinux, on
	// however slow a path (Linux tcp_min_tso_segs). 0: 2.
	LeastBurst int
	// RACK selects RFC 8985 loss detection where SACK is in use.
	RACK bool

	Options UserOptions

	// Profile, if not nil, is that of a connection like this one will be, which
	// shares it if it says the same as the rest of the Config.
	Profile *Profile
}

// UserOptions are the settings that may change during a connection's life.
type UserOptions struct {
	NoDelay     bool // send small segments at once (TCP_NODELAY)
	Cork        bool // hold small segments back, for 200 ms at most (TCP_CORK)
	Pacing      bool // spread what is sent over the round trip
	Keepalive   Keepalive
	UserTimeout time.Duration // RFC 5482; 0: none
	// MaxSegment, if not 0, bounds the payload of what we send and advertise.
	MaxSegment uint16
	// NotSentLowat, if not 0, bounds how many bytes wait to be sent for the first
	// time: a Write takes no more, and a writer is woken once less than half of
	// it waits (TCP_NOTSENT_LOWAT).
	NotSentLowat int64
	// Clamp, if not 0, bounds the window advertised (TCP_WINDOW_CLAMP).
	Clamp int
}

// Keepalive is when and how often a silent peer is asked whether it is there.
// https://www.rfc-editor.org/rfc/rfc1122#page-101
type Keepalive struct {
	On             bool
	Idle, Interval time.Duration
	Count          int // unanswered probes before the peer is given up
}

// DefaultKeepalive holds Linux's figures, off.
var DefaultKeepalive = Keepalive{Idle: 2 * time.Hour, Interval: 75 * time.Second, Count: 9}

// normal fills in what must not be zero.
func (k Keepalive) normal() Keepalive {
	k.Idle = orDefault(max(k.Idle, 0), DefaultKeepalive.Idle)
	k.Interval = orDefault(max(k.Interval, 0), DefaultKeepalive.Interval)
	k.Count = orDefault(max(k.Count, 0), DefaultKeepalive.Count)
	return k
}

// orDefault returns v, or def where v is zero.
func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
