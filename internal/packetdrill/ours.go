package packetdrill

import (
	"fmt"
	"strconv"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp"
)

// Ours is the configuration for this project's TCP.
func Ours() Config {
	return Config{Protocol: tcp.NewProtocolCUBIC, Sysctl: tune}
}

// tune sets what tcp.Tuning has a field for.
func tune(s *stack.Stack, name, value string) (bool, error) {
	t := tcp.TuningOf(s)
	n, err := strconv.ParseUint(value, 0, 8)
	switch name {
	case "net.ipv4.tcp_timestamps":
		t.NoTimestamps = n == 0
	case "net.ipv4.tcp_window_scaling":
		t.NoWindowScaling = n == 0
	case "net.ipv4.tcp_slow_start_after_idle":
		t.NoIdleRestart = n == 0
	case "net.ipv4.tcp_ecn":
		t.ECN = tcp.ECNMode(n)
	default:
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("%q is no number", value)
	}
	return true, tcp.SetTuning(s, t)
}
