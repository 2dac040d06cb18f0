package packetdrill

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// connInfo is what our TCP tells of a connection; false with another TCP.
func connInfo(s *sock) (conn.Info, bool) {
	e, ok := s.ep.(interface{ ConnInfo() conn.Info })
	if !ok {
		return conn.Info{}, false
	}
	return e.ConnInfo(), true
}

// snippet evaluates a code snippet.
func (r *runner) snippet(s *Snippet) {
	if err := r.scope.run(s.Text); err != nil {
		r.fail("%s", strings.ReplaceAll(err.Error(), "\n", " "))
	}
}

// look finds what snippets refer to: a field of tcp_info, or a constant.
func (r *runner) look(name string) (value, bool, error) {
	if field, ok := strings.CutPrefix(name, "tcpi_"); ok {
		s := r.under.sock
		if s == nil {
			return nil, false, errors.New("there is no socket whose tcp_info could be read")
		}
		v, err := r.tcpInfo(s, field)
		return v, err == nil, err
	}
	v, ok := constants[name]
	return v, ok, nil
}

// infinite is what Linux reports for a slow start threshold not yet set.
const infinite = math.MaxInt32

// tcpInfo is a field of tcp_info, with Linux's units: microseconds for round
// trips and busy times, milliseconds for ages, segments for windows.
func (r *runner) tcpInfo(s *sock, field string) (value, error) {
	if field == "state" {
		return int64(linuxState(s.ep.State())), nil
	}
	i, ok := connInfo(s)
	if !ok {
		return generalInfo(s, field)
	}
	if f, ok := infoFields[field]; ok {
		return f(&i), nil
	}
	return nil, fmt.Errorf("tcpi_%s is not known", field)
}

// linuxState is a state as tcp_info has it: what is no state of TCP's is CLOSE.
func linuxState(state uint32) uint32 {
	const last, closed = 11, 7
	if state > last {
		return closed
	}
	return state
}

func micros(d time.Duration) value { return d.Microseconds() }

func segmentsOf(bytes int64, mss int) int64 {
	return min(bytes/int64(max(mss, 1)), infinite)
}

func bit(on bool, b int64) int64 {
	if on {
		return b
	}
	return 0
}

// infoFields are the fields of tcp_info by name.
var infoFields = map[string]func(*conn.Info) value{
	"ca_state":    func(i *conn.Info) value { return int64(i.CongestionState) },
	"retransmits": func(i *conn.Info) value { return int64(i.Retransmits) },
	"options": func(i *conn.Info) value {
		return bit(i.Timestamps, tcpiTimestamps) | bit(i.SACK, tcpiSACK) | bit(i.WindowScaling, tcpiWScale) | bit(i.ECN, tcpiECN) |
			bit(i.SYNData, tcpiSYNData)
	},
	"snd_wscale": func(i *conn.Info) value { return int64(i.SndWScale) },
	"rcv_wscale": func(i *conn.Info) value { return int64(i.RcvWScale) },
	"rto":        func(i *conn.Info) value { return micros(i.RTO) },
	"snd_mss":    func(i *conn.Info) value { return int64(i.SndMSS) },
	"rcv_mss":    func(i *conn.Info) value { return int64(i.RcvMSS) },
	"advmss":     func(i *conn.Info) value { return int64(i.AdvMSS) },
	"unacked":    func(i *conn.Info) value { return int64(i.Unacked) },
	"sacked":     func(i *conn.Info) value { return int64(i.Sacked) },
	"lost":       func(i *conn.Info) value { return int64(i.Lost) },
	"retrans":    func(i *conn.Info) value { return int64(i.Retrans) },
	"rtt":        func(i *conn.Info) value { return micros(i.RTT) },
	"rttvar":     func(i *conn.Info) value { return micros(i.RTTVar) },
	"min_rtt":    func(i *conn.Info) value { return micros(i.MinRTT) },
	"snd_cwnd":   func(i *conn.Info) value { return segmentsOf(i.Cwnd, i.SndMSS) },
	"snd_ssthresh": func(i *conn.Info) value {
		return segmentsOf(i.Ssthresh, i.SndMSS)
	},
	"snd_wnd":        func(i *conn.Info) value { return i.SndWnd },
	"rcv_wnd":        func(i *conn.Info) value { return i.RcvWnd },
	"notsent_bytes":  func(i *conn.Info) value { return int64(i.Unsent) },
	"reord_seen":     func(i *conn.Info) value { return int64(i.Counters.Reordered) },
	"reordering":     func(i *conn.Info) value { return int64(i.ReorderingDegree) },
	"total_retrans":  func(i *conn.Info) value { return int64(i.Counters.Retransmits) },
	"delivered":      func(i *conn.Info) value { return int64(i.Counters.Delivered) },
	"bytes_acked":    func(i *conn.Info) value { return int64(i.Counters.BytesAcked) },
	"bytes_received": func(i *conn.Info) value { return int64(i.Counters.BytesReceived) },
	"segs_in":        func(i *conn.Info) value { return int64(i.Counters.SegsIn) },
	"segs_out":       func(i *conn.Info) value { return int64(i.Counters.SegsOut) },
	"bytes_sent":     func(i *conn.Info) value { return int64(i.Counters.BytesSent) },
	"bytes_retrans":  func(i *conn.Info) value { return int64(i.Counters.BytesRetransmitted) },
	"rcv_ooopack":    func(i *conn.Info) value { return int64(i.Counters.OutOfOrder) },
	"probes":         func(i *conn.Info) value { return int64(i.Probes) },
	"backoff":        func(i *conn.Info) value { return int64(i.Backoff) },
	"last_data_sent": func(i *conn.Info) value { return i.LastDataSent.Milliseconds() },
	"last_data_recv": func(i *conn.Info) value { return i.LastDataReceived.Milliseconds() },
	"last_ack_recv":  func(i *conn.Info) value { return i.LastReceived.Milliseconds() },
	"busy_time":      func(i *conn.Info) value { return micros(i.Busy) },
	"rwnd_limited":   func(i *conn.Info) value { return micros(i.WindowLimited) },
	"sndbuf_limited": func(i *conn.Info) value { return micros(i.BufferLimited) },
	"dsack_dups":     func(i *conn.Info) value { return int64(i.Counters.DSACKs) },
}

// generalInfo is what any TCP of gVisor's kind tells.
func generalInfo(s *sock, field string) (value, error) {
	var i tcpip.TCPInfoOption
	if err := s.ep.GetSockOpt(&i); err != nil {
		return nil, fmt.Errorf("tcp_info: %v", err)
	}
	switch field {
	case "rtt":
		return micros(i.RTT), nil
	case "rttvar":
		return micros(i.RTTVar), nil
	case "rto":
		return micros(i.RTO), nil
	case "snd_cwnd":
		return int64(i.SndCwnd), nil
	case "snd_ssthresh":
		return int64(min(i.SndSsthresh, infinite)), nil
	case "reord_seen":
		return bit(i.ReorderSeen, 1), nil
	case "ca_state":
		return map[tcpip.CongestionControlState]int64{
			tcpip.Disorder: 1, tcpip.FastRecovery: 3, tcpip.SACKRecovery: 3, tcpip.RTORecovery: 4,
		}[i.CcState], nil
	}
	return nil, fmt.Errorf("tcpi_%s is not known of this TCP", field)
}
