package packetdrill

import (
	"reflect"
	"testing"
)

func TestSimpleCommands(t *testing.T) {
	for text, want := range map[string][][]string{
		"":                              nil,
		"  # nothing":                   nil,
		"a b\tc":                        {{"a", "b", "c"}},
		"a; b && c || d | e & f\ng":     {{"a"}, {"b"}, {"c"}, {"d"}, {"e"}, {"f"}, {"g"}},
		"a \\\n b":                      {{"a", "b"}},
		"a=\"1 2\" '3 4'":               {{"a=1 2", "3 4"}},
		"a > /dev/null 2>&1":            {{"a"}},
		"a >/dev/null &> x":             {{"a"}},
		"a &>/dev/null || b":            {{"a"}, {"b"}},
		"a 2>/dev/null ; b":             {{"a"}, {"b"}},
		"a b#c # d\ne":                  {{"a", "b#c"}, {"e"}},
		"sysctl -q x=\"4096 50000 1\"":  {{"sysctl", "-q", "x=4096 50000 1"}},
		"../common/defaults.sh\n x y\n": {{"../common/defaults.sh"}, {"x", "y"}},
		"> x":                           nil,
	} {
		if got := simpleCommands(text); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestSettingsTakeEffect sets what has an equivalent and looks at the SYN, or
// at what comes of it.
func TestSettingsTakeEffect(t *testing.T) {
	const connect = "\n0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 fcntl(3, F_SETFL, O_NONBLOCK) = 0\n+0 connect(3, ..., ...) = -1 EINPROGRESS\n"
	for command, rest := range map[string]string{
		"sysctl -q net.ipv4.tcp_timestamps=0":                      "+0 > S 0:0(0) <mss 1460,nop,nop,sackOK,nop,wscale 7>",
		"sysctl -q net/ipv4/tcp_sack=0":                            "+0 > S 0:0(0) <mss 1460,nop,nop,TS val 1 ecr 0,nop,wscale 7>",
		"./set_sysctls.py /proc/sys/net/ipv4/tcp_window_scaling=0": "+0 > S 0:0(0) <mss 1460,sackOK,TS val 1 ecr 0>",
		"sysctl net.ipv4.tcp_ecn=1":                                "+0 > SEW 0:0(0) <...>",
		"sysctl net.ipv4.tcp_ecn=2":                                "+0 > S 0:0(0) <...>",
		"sysctl net.ipv4.tcp_rmem='4096 87380 60000000'":           "+0 > S 0:0(0) <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 10>",
		"sysctl net.ipv4.tcp_wmem='4096 33333 100000'":             "+0 getsockopt(3, SOL_SOCKET, SO_SNDBUF, [33333], [4]) = 0\n+0 > S 0:0(0) <...>",
		"sysctl net.ipv4.tcp_congestion_control=reno":              "+0 getsockopt(3, SOL_TCP, TCP_CONGESTION, \"reno\", [4]) = 0\n+0 > S 0:0(0) <...>",
		"sysctl net.ipv4.tcp_keepalive_time=5 net.ipv4.tcp_keepalive_intvl=6 net.ipv4.tcp_keepalive_probes=7": "+0 getsockopt(3, SOL_TCP, TCP_KEEPIDLE, [5], [4]) = 0\n" +
			"+0 getsockopt(3, SOL_TCP, TCP_KEEPINTVL, [6], [4]) = 0\n+0 getsockopt(3, SOL_TCP, TCP_KEEPCNT, [7], [4]) = 0\n+0 > S 0:0(0) <...>",
		"sysctl net.ipv4.tcp_syn_retries=1": "+0 > S 0:0(0) <...>\n+1 > S 0:0(0) <...>\n+2 getsockopt(3, SOL_SOCKET, SO_ERROR, [ETIMEDOUT], [4]) = 0",
		"sysctl net.ipv4.tcp_fin_timeout=7": "+0 getsockopt(3, SOL_TCP, TCP_LINGER2, [7], [4]) = 0\n+0 > S 0:0(0) <...>",
		"defaults.sh":                       "+0 > S 0:0(0) <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 8>",
		"sleep 2":                           "+0 > S 0:0(0) <...>",
		"sysctl -q net.ipv4.tcp_recovery=0 net.ipv4.tcp_moderate_rcvbuf=0 net.ipv4.tcp_retries2=3 net.ipv4.tcp_tw_reuse=1 net.ipv4.tcp_syncookies=2": "+0 > S 0:0(0) <...>",
	} {
		if got := play(t, Ours(), "`"+command+"`"+connect+rest); got.Status != Passed || len(got.Notes) != 0 {
			t.Errorf("%s: %s %q", command, got, got.Notes)
		}
	}
}
