package tcp

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// settings are an endpoint's options that tcpip.SocketOptions has no place
// for. A connection that a listener accepts starts with a copy of the
// listener's.
type settings struct {
	user            conn.UserOptions
	congestion      string
	ttl             uint8 // IPv4; 0: the network's default
	hopLimit        uint8 // IPv6; 0: likewise
	tos             uint8 // without the ECN bits
	trafficClass    uint8
	mtuDiscover     mtuDiscovery
	finWait2        time.Duration // TCP_LINGER2; 0: the stack's; negative: none
	deferAccept     time.Duration
	fastOpenBacklog int           // TCP_FASTOPEN
	fastOpenKeys    *fastOpenKeys // TCP_FASTOPEN_KEY; nil: the stack's
	fastOpenConnect bool          // TCP_FASTOPEN_CONNECT
	notSentLowat    int64         // TCP_NOTSENT_LOWAT; 0: the stack's
	synCount        int           // TCP_SYNCNT; 0: the stack's
	rcvBufSet       bool          // by the user: no auto-tuning
	sndBufSet       bool
}

// change returns the endpoint's settings to be changed. Until then it shares
// them, a connection with its listener. e.mu is held.
func (e *Endpoint) change() *settings {
	if e.settingsShared {
		own := *e.settings
		e.settings, e.settingsShared = &own, false
	}
	return e.settings
}

func defaultSettings(o *optionValues) settings {
	return settings{
		congestion: o.congestion,
		user: conn.UserOptions{
			NoDelay: !o.delay,
			Pacing:  o.tuning.Pacing,
			Keepalive: conn.Keepalive{
				Idle:     DefaultKeepaliveIdle,
				Interval: DefaultKeepaliveInterval,
				Count:    DefaultKeepaliveCount,
			},
		},
	}
}

// mtuDiscovery is the value of IP_MTU_DISCOVER.
type mtuDiscovery tcpip.PMTUDStrategy

// df reports whether packets carry the Don't Fragment bit, and path MTU
// discovery works.
func (m mtuDiscovery) df() bool {
	return m != mtuDiscovery(tcpip.PMTUDiscoveryDont)
}

// config gathers what a connection is born with. e.mu is held; e.route, e.ends
// and the settings are in place.
func (e *Endpoint) config(now conn.Time) conn.Config {
	return e.configFor(e.proto.secrets.numbersFor(e.ends.id(), now))
}

// configFor is config with given numbers. e.mu is held.
func (e *Endpoint) configFor(numbers flowNumbers) conn.Config {
	o := e.proto.options.snapshot()
	mss := routeMSS(e.route)
	rcvBuf, rcvMax, scaleFor := e.receiveBuffer(o)
	cfg := conn.Config{
		ISS:              numbers.isn,
		TSOffset:         numbers.tsOffset,
		MSS:              mss,
		GSOMax:           gsoMax(e.route),
		RcvBuf:           rcvBuf,
		RcvBufMax:        rcvMax,
		ScaleFor:         scaleFor,
		SndBuf:           max(int(e.options().GetSendBufferSize()), 1),
		WindowScaling:    !o.tuning.NoWindowScaling,
		Timestamps:       !o.tuning.NoTimestamps,
		ECN:              o.tuning.ecn(e.passive),
		SACK:             o.sack,
		MinRTO:           o.minRTO,
		MaxRTO:           o.maxRTO,
		Retries:          o.retries,
		SYNRetries:       o.synRetries,
		TimeWait:         o.timeWait,
		FinWait2:         e.finWait2(o),
		InvalidRateLimit: e.proto.invalidRateLimit(),
		NoIdleRestart:    o.tuning.NoIdleRestart,
		LikeLinux:        o.tuning.LikeLinux,
		LeastBurst:       o.tuning.LeastBurst,
		DelayedACK:       !o.tuning.NoDelayedACK, // and only where an exchange is interactive
		RACK:             o.recovery&tcpip.TCPRACKLossDetection != 0,
		Congestion:       e.settings.congestion,
		Options:          e.settings.user,
	}
	cfg.Options.NotSentLowat = e.notSentLowat()
	if e.settings.synCount > 0 {
		cfg.SYNRetries = e.settings.synCount
	}
	if !e.settings.sndBufSet {
		cfg.SndBufMax = o.sndBuf.Max
	}
	cfg.Profile = e.proto.profile.Load()
	if p := cfg.Share(); p != cfg.Profile {
		e.proto.profile.Store(p)
		cfg.Profile = p
	}
	return cfg
}

// invalidRateLimit is the stack's limit on answers to segments that do not
// belong where they are, as conn.Config wants it: negative for none.
func (p *protocol) invalidRateLimit() time.Duration {
	var v stack.TCPInvalidRateLimitOption
	if err := p.stack.Option(&v); err != nil {
		return 0
	}
	if v == 0 {
		return -1
	}
	return time.Duration(v)
}

// receiveBuffer is the largest window a connection starts with, how far tuning
// may raise it (0: not at all), and the buffer that its window scale is for,
// all in bytes. e.mu is held.
func (e *Endpoint) receiveBuffer(o *optionValues) (size, most, scaleFor int) {
	scaleFor = int(e.options().GetReceiveBufferSize())
	size = max(scaleFor/SegOverheadFactor, 1)
	if o.moderate && !e.settings.rcvBufSet {
		most = o.rcvBuf.Max / SegOverheadFactor
		scaleFor = max(scaleFor, o.rcvBuf.Max)
	}
	return size, most, scaleFor
}

// finWait2 is how long the connection, once closed, waits for the peer's FIN.
func (e *Endpoint) finWait2(o *optionValues) time.Duration {
	switch d := e.settings.finWait2; {
	case d < 0:
		return -1
	case d > 0:
		return d
	}
	if o.linger == 0 {
		return -1
	}
	return o.linger
}

// gsoMax is the most payload that the link takes in one packet, to cut it up;
// 0 if it does not.
func gsoMax(r *stack.Route) int {
	if !r.HasHostGSOCapability() || r.Loop()&stack.PacketLoop != 0 {
		return 0
	}
	const maxHeaders = header.IPv6MinimumSize + header.TCPHeaderMaximumSize
	// An IPv4 packet's length, like an IPv6 payload's, is a 16-bit field.
	return max(min(int(r.GSOMaxSize()), 0xffff)-maxHeaders, 0)
}

// FindWndScale is the window scale for a receive buffer of wnd bytes: the
// smallest with which a window field can express it, in whole units.
// https://www.rfc-editor.org/rfc/rfc7323#section-2.3
func FindWndScale(wnd seqnum.Size) int {
	const maxField, maxScale = 0xffff, 14
	scale := 0
	for scale < maxScale && wnd>>scale > maxField {
		scale++
	}
	return scale
}
