package daemon

import (
	"net/netip"
	"time"

	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/tcp/cc"
)

// The control socket speaks HTTP with JSON bodies:
//
//	GET  /v1/status              Status
//	GET  /v1/conns               []Conn
//	POST /v1/conns/{id}/repair   RepairRequest -> Conn
//	POST /v1/conns/{id}/checkpoint  -> the snapshot, in its binary form
//	POST /v1/conns/{id}/bury        -> {}
//	POST /v1/restore             a snapshot -> Conn
//	GET  /v1/drops               {"REASON": count, ...}
//
// An error is {"error": "one line"} with a status of 400 or above.

// Conn is a connection as the control socket shows it. Sizes are bytes.
type Conn struct {
	ID     uint64         `json:"id"`
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	State  string         `json:"state"`
	Frozen bool           `json:"frozen"`

	Unread   int   `json:"recv_queue"` // received, not read by the service
	Unsent   int   `json:"unsent"`     // written by the service, not sent
	InFlight int64 `json:"in_flight"`  // sent, and thought to be on its way
	Unacked  int64 `json:"send_queue"` // written by the service, not acknowledged

	RTTMicros    int64  `json:"rtt_us"`
	RTTVarMicros int64  `json:"rttvar_us"`
	MinRTTMicros int64  `json:"min_rtt_us"`
	RTOMicros    int64  `json:"rto_us"`
	Cwnd         int64  `json:"cwnd"`
	Ssthresh     int64  `json:"ssthresh,omitempty"` // 0: none yet
	Congestion   string `json:"congestion"`
	SndMSS       int    `json:"snd_mss"`
	RcvMSS       int    `json:"rcv_mss"`
	SndWnd       int64  `json:"snd_wnd"`
	RcvWnd       int64  `json:"rcv_wnd"`
	SndUna       uint32 `json:"snd_una"`
	SndNxt       uint32 `json:"snd_nxt"`
	RcvNxt       uint32 `json:"rcv_nxt"`

	BytesAcked    uint64      `json:"bytes_acked"`
	BytesReceived uint64      `json:"bytes_received"`
	SegsIn        uint64      `json:"segs_in"`
	SegsOut       uint64      `json:"segs_out"`
	Retransmits   uint64      `json:"retransmits"`
	Drops         stack.Drops `json:"drops"`
}

// newConn copies what the stack says.
func newConn(i stack.ConnInfo) Conn {
	if i.Ssthresh == cc.Unlimited {
		i.Ssthresh = 0 // more than JSON's numbers are good for
	}
	return Conn{
		ID: i.ID, Local: i.Local, Remote: i.Remote, State: i.State.String(), Frozen: i.Frozen,
		Unread: i.Unread, Unsent: i.Unsent, InFlight: i.InFlight,
		Unacked:   int64(i.Unsent) + int64(i.SndUna.Size(i.SndNxt)),
		RTTMicros: i.RTT.Microseconds(), RTTVarMicros: i.RTTVar.Microseconds(),
		MinRTTMicros: i.MinRTT.Microseconds(), RTOMicros: i.RTO.Microseconds(),
		Cwnd: i.Cwnd, Ssthresh: i.Ssthresh, Congestion: i.CongestionControl,
		SndMSS: i.SndMSS, RcvMSS: i.RcvMSS, SndWnd: i.SndWnd, RcvWnd: i.RcvWnd,
		SndUna: uint32(i.SndUna), SndNxt: uint32(i.SndNxt), RcvNxt: uint32(i.RcvNxt),
		BytesAcked: i.Counters.BytesAcked, BytesReceived: i.Counters.BytesReceived,
		SegsIn: i.Counters.SegsIn, SegsOut: i.Counters.SegsOut, Retransmits: i.Counters.Retransmits,
		Drops: i.Drops,
	}
}

// RepairRequest asks to freeze or thaw a connection. Mode is "on", "off" or
// "off-no-probe".
type RepairRequest struct {
	Mode string `json:"mode"`
}

// Status describes the daemon.
type Status struct {
	PID       int             `json:"pid"`
	Started   time.Time       `json:"started"`
	Link      string          `json:"link"`
	MTU       uint32          `json:"mtu"`
	Addresses []netip.Prefix  `json:"addresses"`
	Services  []ServiceStatus `json:"services"`
	Stats     stack.Stats     `json:"stats"`
}

// ServiceStatus describes a service.
type ServiceStatus struct {
	Service  string `json:"service"` // as ParseService reads it
	Active   int64  `json:"active"`  // connections open now
	Accepted uint64 `json:"accepted"`
}

// apiError is the body of an error.
type apiError struct {
	Error string `json:"error"`
}
