package packetdrill

import (
	"strconv"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// kernelSysctls are what a stack starts with: Linux's settings as the kernel
// has them.
var kernelSysctls = [][2]string{
	{"net.ipv4.tcp_rmem", "4096 131072 6291456"},
	{"net.ipv4.tcp_wmem", "4096 16384 4194304"},
	{"net.ipv4.tcp_sack", "1"},
	{"net.ipv4.tcp_recovery", "1"},
	{"net.ipv4.tcp_syn_retries", "6"},
	{"net.ipv4.tcp_retries2", "15"},
	{"net.ipv4.tcp_fin_timeout", "60"},
	{"net.ipv4.tcp_congestion_control", "cubic"},
	{"net.ipv4.tcp_moderate_rcvbuf", "1"},
}

// defaultSysctls are what the script defaults.sh of the public scripts sets.
var defaultSysctls = [][2]string{
	{"net.ipv4.tcp_rmem", "4096 540000 15728640"},
	{"net.ipv4.tcp_wmem", "4096 262144 4194304"},
	{"net.ipv4.tcp_timestamps", "1"},
	{"net.ipv4.tcp_syn_retries", "5"},
	{"net.ipv4.tcp_synack_retries", "5"},
	{"net.ipv4.tcp_sack", "1"},
	{"net.ipv4.tcp_congestion_control", "cubic"},
	{"net.ipv4.tcp_slow_start_after_idle", "0"},
	{"net.ipv4.tcp_recovery", "1"},
	{"net.ipv4.tcp_ecn", "0"},
	{"net.ipv4.tcp_syncookies", "1"},
	{"net.ipv4.tcp_fastopen", "0x70403"},
	{"net.ipv4.tcp_fastopen_key", "a1a1a1a1-b2b2b2b2-c3c3c3c3-d4d4d4d4"},
}

// fixedSysctls are settings that mean nothing to a stack of this kind, whatever
// they are set to.
var fixedSysctls = []string{
	"net.ipv4.tcp_synack_retries", // a SYN-ACK is retried as a SYN is
	"net.ipv4.tcp_tso_win_divisor", "net.ipv4.tcp_min_rtt_wlen",
	"net.ipv4.tcp_pacing_ss_ratio", "net.ipv4.tcp_pacing_ca_ratio",
	"net.ipv4.tcp_fack", "net.ipv4.tcp_dsack", "net.ipv4.tcp_frto", "net.ipv4.tcp_ecn_option",
	"net.ipv4.tcp_fastopen_blackhole_timeout_sec",
	"net.ipv4.tcp_no_metrics_save", "net.ipv4.tcp_metrics_save", "net.ipv4.tcp_rto_min_us",
}

// sysctls are the settings that have an equivalent.
var sysctls = map[string]func(r *runner, v string) error{
	"net.ipv4.tcp_sack": func(r *runner, v string) error {
		o := tcpip.TCPSACKEnabled(v != "0")
		return r.setProtocol(&o)
	},
	"net.ipv4.tcp_moderate_rcvbuf": func(r *runner, v string) error {
		o := tcpip.TCPModerateReceiveBufferOption(v != "0")
		return r.setProtocol(&o)
	},
	"net.ipv4.tcp_recovery": func(r *runner, v string) error {
		n, err := strconv.ParseInt(v, 0, 32)
		o := tcpip.TCPRecovery(n)
		return firstError(err, r.setProtocol(&o))
	},
	"net.ipv4.tcp_congestion_control": func(r *runner, v string) error {
		o := tcpip.CongestionControlOption(v)
		return r.setProtocol(&o)
	},
	"net.ipv4.tcp_rmem": func(r *runner, v string) error {
		a, err := triple(v)
		return firstError(err, r.setProtocol(&tcpip.TCPReceiveBufferSizeRangeOption{Min: a[0], Default: a[1], Max: a[2]}))
	},
	"net.ipv4.tcp_wmem": func(r *runner, v string) error {
		a, err := triple(v)
		return firstError(err, r.setProtocol(&tcpip.TCPSendBufferSizeRangeOption{Min: a[0], Default: a[1], Max: a[2]}))
	},
	"net.ipv4.tcp_syn_retries": func(r *runner, v string) error {
		n, err := strconv.ParseUint(v, 10, 8)
		o := tcpip.TCPSynRetriesOption(n)
		return firstError(err, r.setProtocol(&o))
	},
	"net.ipv4.tcp_retries2": func(r *runner, v string) error {
		n, err := strconv.ParseUint(v, 10, 32)
		o := tcpip.TCPMaxRetriesOption(n)
		return firstError(err, r.setProtocol(&o))
	},
	"net.ipv4.tcp_fin_timeout": func(r *runner, v string) error {
		d, err := secondsOf(v)
		o := tcpip.TCPLingerTimeoutOption(d)
		return firstError(err, r.setProtocol(&o))
	},
	"net.ipv4.tcp_tw_reuse": func(r *runner, v string) error {
		n, err := strconv.ParseUint(v, 10, 8)
		o := tcpip.TCPTimeWaitReuseOption(n)
		return firstError(err, r.setProtocol(&o))
	},
	"net.ipv4.tcp_syncookies": func(r *runner, v string) error {
		o := tcpip.TCPAlwaysUseSynCookies(v == "2")
		return r.setProtocol(&o)
	},
	"net.ipv4.tcp_keepalive_time": func(r *runner, v string) (err error) {
		r.keepIdle, err = secondsOf(v)
		return err
	},
	"net.ipv4.tcp_keepalive_intvl": func(r *runner, v string) (err error) {
		r.keepInterval, err = secondsOf(v)
		return err
	},
	"net.ipv4.tcp_keepalive_probes": func(r *runner, v string) (err error) {
		r.keepCount, err = strconv.Atoi(v)
		return err
	},
}

func secondsOf(v string) (time.Duration, error) {
	n, err := strconv.ParseUint(v, 10, 31)
	return time.Duration(n) * time.Second, err
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
