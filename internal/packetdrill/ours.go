package packetdrill

import (
	"fmt"
	"math"
	"strconv"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp"
)

// Ours is the configuration for this project's TCP. Scripts are written for
// Linux, so it follows Linux where gVisor would have it otherwise; a script
// takes that back with sysctl net.ustack.like_linux=0.
func Ours() Config {
	return Config{
		Protocol: tcp.NewProtocolCUBIC,
		Setup: func(s *stack.Stack) error {
			t := tcp.TuningOf(s)
			t.LikeLinux, t.FastOpen = true, tcp.FastOpenClient
			return tcp.SetTuning(s, t)
		},
		Sysctl: tune,
		Flush:  tcp.ForgetFastOpen,
	}
}

// tune sets what tcp.Tuning has a field for.
func tune(s *stack.Stack, name, value string) (bool, error) {
	t := tcp.TuningOf(s)
	n, err := strconv.ParseUint(value, 0, 32)
	switch name {
	case "net.ipv4.tcp_timestamps":
		t.NoTimestamps = n == 0
	case "net.ipv4.tcp_window_scaling":
		t.NoWindowScaling = n == 0
	case "net.ipv4.tcp_slow_start_after_idle":
		t.NoIdleRestart = n == 0
	case "net.ipv4.tcp_min_tso_segs":
		t.LeastBurst = int(n)
	case "net.ipv4.tcp_ecn":
		t.ECN = tcp.ECNMode(min(n, math.MaxUint8))
	case "net.ipv4.tcp_notsent_lowat":
		if t.NotSentLowat = int64(n); n == math.MaxUint32 {
			t.NotSentLowat = 0
		}
	case "net.ustack.pacing":
		t.Pacing = n != 0
	case "net.ipv4.tcp_fastopen":
		t.FastOpen = tcp.FastOpenMode(n)
	case "net.ipv4.tcp_fastopen_key":
		keys, err := parseFastOpenKeys(value)
		if err == nil {
			err = tcp.SetFastOpenKeys(s, keys...)
		}
		return true, err
	case "net.ustack.like_linux":
		t.LikeLinux = n != 0
	default:
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("%q is no number", value)
	}
	return true, tcp.SetTuning(s, t)
}
