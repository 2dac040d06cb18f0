package packetdrill

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Config says how scripts are run. Protocol is required.
type Config struct {
	// Protocol makes the TCP under test.
	Protocol stack.TransportProtocolFactory
	// Setup prepares a stack that was just made. May be nil.
	Setup func(s *stack.Stack) error
	// Sysctl sets what tcpip's protocol options have no name for:
	// "net.ipv4.tcp_timestamps" and the like. It reports whether it knows the
	// setting. May be nil.
	Sysctl func(s *stack.Stack, name, value string) (bool, error)
	// Flush makes a stack forget what it remembers of its peers ("ip tcp_metrics
	// flush"). May be nil.
	Flush func(s *stack.Stack)
	// Settle is called whenever the stack has been given something to do. It
	// is for protocols that work in goroutines of their own and returns when
	// they are done. May be nil.
	Settle func()
	// Relax leaves out some of the comparison.
	Relax Relax
	// Strict fails a script if the stack had sent more, by the time of its
	// last event, than the script expects.
	Strict bool
	// GSO lets the stack send segments that are larger than the MSS. They are
	// cut up before they are compared.
	GSO bool
	// Options stand before the script's own, which override them.
	Options []Option
	// Defines are words and what to put in their places; see Parse.
	Defines map[string]string
	// Seed decides the stack's random choices: sequence numbers, ports.
	Seed uint64
	// MaxSteps bounds how many timers a script may run. 0: DefaultMaxSteps.
	MaxSteps int
}

// DefaultMaxSteps is more than any conversation that makes sense.
const DefaultMaxSteps = 1_000_000

// Relax leaves out some of the comparison of packets.
type Relax struct {
	Push        bool // the PSH flag
	Window      bool // the window field
	OptionOrder bool // the order of TCP options, and padding
}

// ParseRelax reads a list like "psh,win,optorder".
func ParseRelax(list string) (r Relax, err error) {
	for name := range strings.SplitSeq(list, ",") {
		switch name {
		case "":
		case "psh":
			r.Push = true
		case "win":
			r.Window = true
		case "optorder":
			r.OptionOrder = true
		default:
			return r, fmt.Errorf("--relax: %q is none of psh, win, optorder", name)
		}
	}
	return r, nil
}

// ipVersion is a value of --ip_version.
type ipVersion int

const (
	ipv4       ipVersion = iota
	ipv6                 // IPv6 socket, IPv6 packets
	ipv4Mapped           // IPv6 socket, IPv4 packets
)

// settings are the options of a script, with defaults filled in.
type settings struct {
	ip               ipVersion
	local, remote    netip.Addr
	bind, connect    uint16
	mtu              int
	mss              int // of what a packet to the stack was merged from; 0: it was not
	tolerance        time.Duration
	tolerancePercent float64
	tsTick           time.Duration // 0: timestamp values are not checked
	strictSegments   bool
}

// Defaults of the original.
const (
	defaultPort             = 8080
	defaultTolerance        = 4 * time.Millisecond
	defaultTolerancePercent = 12.5
)

// ignoredOptions are options that have no meaning here.
var ignoredOptions = []string{
	"gateway_ip", "netmask_ip", "speed", "init_scripts", "code_command", "code_format", "code_sockopt",
	"verbose", "debug", "dry_run", "non_fatal", "send_omit_free", "is_anyip", "tcp_ts_ecr_scaled",
}

// newSettings takes the options in order, the later overriding the earlier.
func newSettings(path string, options []Option) (s settings, err error) {
	s = settings{
		bind: defaultPort, connect: defaultPort,
		tolerance: defaultTolerance, tolerancePercent: defaultTolerancePercent,
	}
	for _, o := range options {
		if err := s.set(o); err != nil {
			if _, ok := err.(*NotSupportedError); ok {
				return s, &NotSupportedError{path, o.Line, "--" + o.Name}
			}
			return s, &SyntaxError{path, o.Line, err.Error()}
		}
	}
	s.addresses()
	if s.local.Is4() != s.remote.Is4() || s.local.Is4() != (s.ip != ipv6) {
		return s, &SyntaxError{path, 1, fmt.Sprintf("the addresses %v and %v do not go with --ip_version", s.local, s.remote)}
	}
	return s, nil
}

// addresses fills in what depends on the version of IP.
func (s *settings) addresses() {
	local, remote, mtu := netip.AddrFrom4([4]byte{192, 168, 0, 1}), netip.AddrFrom4([4]byte{192, 0, 2, 1}), 1500
	if s.ip == ipv6 {
		local, remote = netip.MustParseAddr("fd3d:a0b:17d6::1"), netip.MustParseAddr("2001:db8::1")
		mtu = 1520 // so that the MSS is that of IPv4, and scripts fit both
	}
	if !s.local.IsValid() {
		s.local = local
	}
	if !s.remote.IsValid() {
		s.remote = remote
	}
	if s.mtu == 0 {
		s.mtu = mtu
	}
}

// set takes one option.
func (s *settings) set(o Option) (err error) {
	switch o.Name {
	case "ip_version":
		return s.setVersion(o.Value)
	case "local_ip":
		s.local, err = parseAddr(o.Value)
	case "remote_ip":
		s.remote, err = parseAddr(o.Value)
	case "bind_port":
		s.bind, err = parsePort(o.Value)
	case "connect_port":
		s.connect, err = parsePort(o.Value)
	case "mtu":
		s.mtu, err = parseBounded(o.Value, 68, 65535)
	case "mss":
		s.mss, err = parseBounded(o.Value, 1, 65535)
	case "tolerance_usecs":
		s.tolerance, err = parseMicros(o.Value)
	case "tolerance_percent":
		s.tolerancePercent, err = strconv.ParseFloat(o.Value, 64)
		if err != nil || !(s.tolerancePercent >= 0 && s.tolerancePercent <= 100) {
			err = fmt.Errorf("--tolerance_percent: %q is no percentage", o.Value)
		}
	case "tcp_ts_tick_usecs":
		s.tsTick, err = parseMicros(o.Value)
	case "strict_segments":
		s.strictSegments = true
	default:
		if strings.HasPrefix(o.Name, "wire_") || strings.HasPrefix(o.Name, "so_") || o.Name == "psp_udp_port" || o.Name == "udp_encapsulation" {
			return &NotSupportedError{}
		}
		if !slices.Contains(ignoredOptions, o.Name) {
			return fmt.Errorf("there is no option --%s", o.Name)
		}
	}
	return err
}

func (s *settings) setVersion(v string) error {
	switch v {
	case "ipv4":
		s.ip = ipv4
	case "ipv6":
		s.ip = ipv6
	case "ipv4-mapped", "ipv4-mapped-ipv6":
		s.ip = ipv4Mapped
	default:
		return fmt.Errorf("--ip_version: %q is none of ipv4, ipv6, ipv4-mapped-ipv6", v)
	}
	return nil
}

// parseAddr reads an address, with a prefix length or not.
func parseAddr(v string) (netip.Addr, error) {
	v, _, _ = strings.Cut(v, "/")
	a, err := netip.ParseAddr(v)
	if err != nil {
		return a, fmt.Errorf("%q is no IP address", v)
	}
	return a.Unmap(), nil
}

func parsePort(v string) (uint16, error) {
	n, err := parseBounded(v, 1, 65535)
	return uint16(n), err
}

func parseBounded(v string, low, high int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is not within %d and %d", v, low, high)
	}
	return n, nil
}

func parseMicros(v string) (time.Duration, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no number of microseconds", v)
	}
	return time.Duration(n) * time.Microsecond, nil
}

// toleranceFor is how far from the expected time something may happen that is
// expected so long after the event before it.
func (s *settings) toleranceFor(since time.Duration) time.Duration {
	return max(s.tolerance, time.Duration(float64(since)*s.tolerancePercent/100))
}
