package tcp

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/stack/tcp/cc"
)

// optionValues are the settings of a stack's TCP. An endpoint looks at them
// when it is made, bound, connected or closed, as each setting wants.
type optionValues struct {
	sack           bool
	recovery       tcpip.TCPRecovery
	delay          bool
	moderate       bool
	alwaysCookies  bool
	sndBuf         tcpip.TCPSendBufferSizeRangeOption
	rcvBuf         tcpip.TCPReceiveBufferSizeRangeOption
	congestion     string
	linger         time.Duration
	timeWait       time.Duration
	timeWaitReuse  tcpip.TCPTimeWaitReuseOption
	minRTO, maxRTO time.Duration
	retries        int
	synRetries     int
	tuning         Tuning
}

// options holds optionValues so that reading them costs no lock.
type options struct {
	mu  sync.Mutex // serializes writers
	now atomic.Pointer[optionValues]
}

func (o *options) init(congestion string) {
	o.now.Store(&optionValues{
		sack:     true,
		recovery: tcpip.TCPRACKLossDetection,
		moderate: true,
		sndBuf: tcpip.TCPSendBufferSizeRangeOption{
			Min: MinBufferSize, Default: DefaultSendBufferSize, Max: MaxBufferSize,
		},
		rcvBuf: tcpip.TCPReceiveBufferSizeRangeOption{
			Min: MinBufferSize, Default: DefaultReceiveBufferSize, Max: MaxBufferSize,
		},
		congestion:    congestion,
		linger:        DefaultTCPLingerTimeout,
		timeWait:      DefaultTCPTimeWaitTimeout,
		timeWaitReuse: tcpip.TCPTimeWaitReuseLoopbackOnly,
		minRTO:        MinRTO,
		maxRTO:        MaxRTO,
		retries:       MaxRetries,
		synRetries:    DefaultSynRetries,
	})
}

// snapshot returns the present values, which do not change.
func (o *options) snapshot() *optionValues { return o.now.Load() }

// update changes a copy of the values and publishes it, unless change objects.
func (o *options) update(change func(*optionValues) tcpip.Error) tcpip.Error {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := *o.now.Load()
	if err := change(&next); err != nil {
		return err
	}
	o.now.Store(&next)
	return nil
}

// SetOption implements stack.TransportProtocol.
func (p *protocol) SetOption(option tcpip.SettableTransportProtocolOption) tcpip.Error {
	return p.options.update(func(o *optionValues) tcpip.Error {
		switch v := option.(type) {
		case *tcpip.TCPSACKEnabled:
			o.sack = bool(*v)
		case *tcpip.TCPRecovery:
			o.recovery = *v
		case *tcpip.TCPDelayEnabled:
			o.delay = bool(*v)
		case *tcpip.TCPModerateReceiveBufferOption:
			o.moderate = bool(*v)
		case *tcpip.TCPAlwaysUseSynCookies:
			o.alwaysCookies = bool(*v)
		case *tcpip.TCPSendBufferSizeRangeOption:
			return setBufferRange(&o.sndBuf, *v, v.Min, v.Default, v.Max)
		case *tcpip.TCPReceiveBufferSizeRangeOption:
			return setBufferRange(&o.rcvBuf, *v, v.Min, v.Default, v.Max)
		case *tcpip.CongestionControlOption:
			if _, err := cc.New(string(*v), 1); err != nil || *v == "" {
				return &tcpip.ErrNoSuchFile{} // ENOENT, as Linux's sysctl says
			}
			o.congestion = string(*v)
		case *tcpip.TCPLingerTimeoutOption:
			o.linger = max(time.Duration(*v), 0)
		case *tcpip.TCPTimeWaitTimeoutOption:
			o.timeWait = max(time.Duration(*v), 0)
		case *tcpip.TCPTimeWaitReuseOption:
			if *v < tcpip.TCPTimeWaitReuseDisabled || *v > tcpip.TCPTimeWaitReuseLoopbackOnly {
				return &tcpip.ErrInvalidOptionValue{}
			}
			o.timeWaitReuse = *v
		case *tcpip.TCPMinRTOOption:
			return o.setRTO(durationOr(time.Duration(*v), MinRTO), o.maxRTO)
		case *tcpip.TCPMaxRTOOption:
			return o.setRTO(o.minRTO, durationOr(time.Duration(*v), MaxRTO))
		case *tcpip.TCPMaxRetriesOption:
			o.retries = int(min(uint64(*v), maxRetriesOption))
		case *tcpip.TCPSynRetriesOption:
			if *v < 1 {
				return &tcpip.ErrInvalidOptionValue{}
			}
			o.synRetries = int(*v)
		default:
			return &tcpip.ErrUnknownProtocolOption{}
		}
		return nil
	})
}

// maxRetriesOption bounds TCPMaxRetriesOption, a uint64; with the RTO at its
// least this many retransmissions still take years.
const maxRetriesOption = 1 << 30

// setBufferRange stores a range of buffer sizes if it is one.
func setBufferRange[T any](to *T, v T, least, def, most int) tcpip.Error {
	if least <= 0 || def < least || def > most {
		return &tcpip.ErrInvalidOptionValue{}
	}
	*to = v
	return nil
}

// setRTO stores the bounds of the retransmission timeout if they are bounds.
func (o *optionValues) setRTO(least, most time.Duration) tcpip.Error {
	if least > most {
		return &tcpip.ErrInvalidOptionValue{}
	}
	o.minRTO, o.maxRTO = least, most
	return nil
}

// durationOr returns d, or def where d is negative.
func durationOr(d, def time.Duration) time.Duration {
	if d < 0 {
		return def
	}
	return d
}

// Option implements stack.TransportProtocol.
func (p *protocol) Option(option tcpip.GettableTransportProtocolOption) tcpip.Error {
	o := p.options.snapshot()
	switch v := option.(type) {
	case *tcpip.TCPSACKEnabled:
		*v = tcpip.TCPSACKEnabled(o.sack)
	case *tcpip.TCPRecovery:
		*v = o.recovery
	case *tcpip.TCPDelayEnabled:
		*v = tcpip.TCPDelayEnabled(o.delay)
	case *tcpip.TCPModerateReceiveBufferOption:
		*v = tcpip.TCPModerateReceiveBufferOption(o.moderate)
	case *tcpip.TCPAlwaysUseSynCookies:
		*v = tcpip.TCPAlwaysUseSynCookies(o.alwaysCookies)
	case *tcpip.TCPSendBufferSizeRangeOption:
		*v = o.sndBuf
	case *tcpip.TCPReceiveBufferSizeRangeOption:
		*v = o.rcvBuf
	case *tcpip.CongestionControlOption:
		*v = tcpip.CongestionControlOption(o.congestion)
	case *tcpip.TCPAvailableCongestionControlOption:
		*v = tcpip.TCPAvailableCongestionControlOption(strings.Join(cc.Names(), " "))
	case *tcpip.TCPLingerTimeoutOption:
		*v = tcpip.TCPLingerTimeoutOption(o.linger)
	case *tcpip.TCPTimeWaitTimeoutOption:
		*v = tcpip.TCPTimeWaitTimeoutOption(o.timeWait)
	case *tcpip.TCPTimeWaitReuseOption:
		*v = o.timeWaitReuse
	case *tcpip.TCPMinRTOOption:
		*v = tcpip.TCPMinRTOOption(o.minRTO)
	case *tcpip.TCPMaxRTOOption:
		*v = tcpip.TCPMaxRTOOption(o.maxRTO)
	case *tcpip.TCPMaxRetriesOption:
		*v = tcpip.TCPMaxRetriesOption(o.retries)
	case *tcpip.TCPSynRetriesOption:
		*v = tcpip.TCPSynRetriesOption(o.synRetries)
	default:
		return &tcpip.ErrUnknownProtocolOption{}
	}
	return nil
}

// GetTCPSendBufferLimits returns the bounds of a send buffer on a stack, for
// tcpip.SocketOptions.
func GetTCPSendBufferLimits(sh tcpip.StackHandler) tcpip.SendBufferSizeOption {
	var r tcpip.TCPSendBufferSizeRangeOption
	if err := sh.TransportProtocolOption(ProtocolNumber, &r); err != nil {
		r = tcpip.TCPSendBufferSizeRangeOption{Min: MinBufferSize, Default: DefaultSendBufferSize, Max: MaxBufferSize}
	}
	return tcpip.SendBufferSizeOption(r)
}

// GetTCPReceiveBufferLimits is GetTCPSendBufferLimits for receive buffers.
func GetTCPReceiveBufferLimits(sh tcpip.StackHandler) tcpip.ReceiveBufferSizeOption {
	var r tcpip.TCPReceiveBufferSizeRangeOption
	if err := sh.TransportProtocolOption(ProtocolNumber, &r); err != nil {
		r = tcpip.TCPReceiveBufferSizeRangeOption{Min: MinBufferSize, Default: DefaultReceiveBufferSize, Max: MaxBufferSize}
	}
	return tcpip.ReceiveBufferSizeOption(r)
}
