package tcp

import (
	"errors"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// Tuning holds settings of a stack's TCP that gVisor has no option for. The
// zero value is the default. Connections look at it when they begin.
type Tuning struct {
	// NoTimestamps and NoWindowScaling neither offer nor accept the options of
	// RFC 7323 (Linux tcp_timestamps, tcp_window_scaling).
	NoTimestamps, NoWindowScaling bool
	// NoDelayedACK acknowledges every batch of data at once, in interactive
	// exchanges too.
	NoDelayedACK bool
	// NoIdleRestart keeps the congestion window however long a connection sent
	// nothing (Linux tcp_slow_start_after_idle=0).
	NoIdleRestart bool
	// LikeLinux follows Linux where gVisor's TCP, or a RFC's letter, has it
	// otherwise; see conn.Config.LikeLinux for what that is.
	LikeLinux bool
	// LeastBurst is how many segments leave in one piece, with LikeLinux, on however
	// slow a path (Linux tcp_min_tso_segs). 0: 2.
	LeastBurst int
	// NotSentLowat is the bound of SetNotSentLowat for endpoints that set none
	// (Linux tcp_notsent_lowat). 0: none.
	NotSentLowat int64
	// Tombstone is how long the place of a connection that was closed in repair
	// mode swallows segments: 0: DefaultTombstone; negative: it answers them with
	// a reset, as Linux does.
	Tombstone time.Duration
	// Pacing spreads what a connection sends over the round trip, rather than
	// send as acknowledgements and writes come: at twice the congestion window
	// for each round trip in slow start, at 1.2 times it later. It spares
	// shallow buffers on long paths, and costs a timer. See also
	// Endpoint.SetPacing.
	Pacing bool
	// FastOpen says what Fast Open is used for. 0: nothing.
	FastOpen FastOpenMode
	// ECN says when congestion notification is used.
	ECN ECNMode
}

// DefaultTombstone is as long as TIME-WAIT: no segment that was under way when
// the connection left arrives later.
const DefaultTombstone = DefaultTCPTimeWaitTimeout

// ECNMode says when a connection uses Explicit Congestion Notification (RFC
// 3168). The values are Linux's of tcp_ecn.
type ECNMode uint8

const (
	// ECNOff neither asks for it nor agrees to it.
	ECNOff ECNMode = iota
	// ECNOn asks for it on outgoing connections and agrees on incoming ones.
	ECNOn
	// ECNPassive agrees only.
	ECNPassive
)

// errNotOurs is reported for a stack that runs another TCP.
var errNotOurs = errors.New("the stack's TCP is not ustack's")

// TuningOf returns the settings of a stack's TCP, the default where the stack
// runs another TCP.
func TuningOf(s *stack.Stack) Tuning {
	if p := protocolOf(s); p != nil {
		return p.options.snapshot().tuning
	}
	return Tuning{}
}

// SetTuning changes the settings of a stack's TCP, for connections that begin
// later. It is an error if the stack runs another TCP, or a mode is unknown.
func SetTuning(s *stack.Stack, t Tuning) error {
	p := protocolOf(s)
	if p == nil {
		return errNotOurs
	}
	if t.ECN > ECNPassive {
		return errors.New("unknown ECN mode")
	}
	if t.LeastBurst < 0 {
		return errors.New("a burst may not be negative")
	}
	if t.NotSentLowat < 0 {
		return errors.New("a bound on what is unsent may not be negative")
	}
	p.options.update(func(o *optionValues) tcpip.Error {
		o.tuning = t
		return nil
	})
	return nil
}

// ecn reports whether a connection that begins offers or accepts ECN.
func (t Tuning) ecn(passive bool) bool {
	return t.ECN == ECNOn || t.ECN == ECNPassive && passive
}

// SetPacing turns pacing on or off for one endpoint, whatever its stack's Tuning
// says. Connections that a listener accepts begin with what the listener has.
func (e *Endpoint) SetPacing(on bool) {
	e.do(func(now conn.Time) {
		e.setUser(now, func(o *conn.UserOptions) { o.Pacing = on })
	})
}

// Pacing reports whether the endpoint paces what it sends.
func (e *Endpoint) Pacing() bool {
	e.mu.Lock()
	defer e.unlock()
	return e.settings.user.Pacing
}
