package conn

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// Info is a picture of a connection, after Linux's tcp_info. Sizes are in
// bytes unless they say otherwise.
type Info struct {
	State                State
	Frozen               bool // in repair mode
	RTT, RTTVar, RTO     time.Duration
	MinRTT               time.Duration
	CongestionControl    string
	CongestionState      uint8 // Linux's tcp_ca_state: 0 open, 1 disorder, 2 CWR, 3 recovery, 4 loss
	Cwnd, Ssthresh       int64
	SndMSS, RcvMSS       int // payload of a full segment: ours, and the peer's as seen
	AdvMSS               int // what we told the peer
	SndUna, SndNxt       seqnum.Value
	RcvNxt               seqnum.Value
	SndWnd, RcvWnd       int64
	SndWScale, RcvWScale uint8
	Unsent, Unread       int
	OutOfOrder           int64 // received and not yet in order
	InFlight             int64
	Unacked, Sacked      int // segments
	Lost, Retrans        int // segments
	Retransmits          int // timeouts in a row
	Reordering           bool
	ReorderingDegree     int // how many segments one was late by at most, 3 to 300
	RACK                 RACKInfo
	// ResentTS is our timestamp on the first retransmission since the window
	// was last reduced; Spurious, that the reduction was taken back.
	ResentTS uint32
	Spurious bool
	Backoff  int // doublings of the timeout in force
	Probes   int // window or keepalive probes unanswered

	// How long ago data was last sent (0 if never) and received (counted from
	// the handshake if never), and a segment received.
	LastDataSent, LastDataReceived, LastReceived time.Duration
	// How long the sender was busy, and of that how long the peer's window or
	// the send buffer held it back.
	Busy, WindowLimited, BufferLimited time.Duration
	Counters                           Counters

	Timestamps, SACK, WindowScaling, ECN bool
	SYNData                              bool // all data on the SYN was taken (RFC 7413)
}

// RACKInfo is RFC 8985's state.
type RACKInfo struct {
	Sent    Time          // of the most recently sent segment that was delivered,
	End     seqnum.Value  // its end,
	RTT     time.Duration // and its round trip
	FACK    seqnum.Value  // the highest sequence number delivered
	Window  time.Duration // for reordering
	Steps   uint8         // its multiplier,
	Persist uint8         // and for how many recoveries that stands
	DSACK   bool          // a duplicate was reported in this round trip
}

func (c *Conn) rackInfo() RACKInfo {
	k := &c.loss.rack
	i := RACKInfo{
		Sent: k.last.at, End: k.last.end, RTT: k.rtt, FACK: c.snd.una,
		Window: c.reorderWindow(), Steps: k.steps, Persist: k.persist, DSACK: k.dsackSeen,
	}
	if c.board.sacked.segs > 0 {
		i.FACK = c.board.high
	}
	return i
}

// Info describes the connection as it is; a frozen one as it was when it froze.
func (c *Conn) Info(now Time) Info {
	if c.frozen {
		now = c.frozenAt
	}
	c.begun()
	i := Info{
		RTO:              c.rtt.timeout(&c.cfg),
		State:            c.State(),
		Frozen:           c.frozen,
		RTT:              c.rtt.smoothed,
		RTTVar:           c.rtt.variance,
		MinRTT:           c.rtt.min,
		CongestionState:  uint8(c.loss.phase),
		SndMSS:           c.segmentSize(),
		RcvMSS:           int(c.rcv.mss),
		AdvMSS:           int(c.advertisedMSS()),
		SndUna:           c.snd.una,
		SndNxt:           c.snd.nxt,
		RcvNxt:           c.rcv.nxt,
		SndWnd:           int64(c.snd.wnd),
		RcvWnd:           int64(c.window()),
		SndWScale:        c.snd.wscale,
		RcvWScale:        c.rcv.wscale,
		Unsent:           int(c.unsent()),
		Unread:           int(c.recvq.size()),
		OutOfOrder:       c.reasm.bytes(),
		Unacked:          len(c.board.recs),
		Sacked:           int(c.board.sacked.segs),
		Lost:             int(c.board.lostOut.segs),
		Retrans:          int(c.board.rtxOut.segs),
		Retransmits:      int(c.loss.retries),
		Reordering:       c.loss.rack.reordered,
		ReorderingDegree: int(c.loss.rack.degree),
		Backoff:          int(c.rtt.backoff),
		Probes:           c.probesOut(),
		LastReceived:     now.Sub(c.rcv.last),
		WindowLimited:    c.spent(now, windowLimited),
		BufferLimited:    c.spent(now, bufferLimited),
		RACK:             c.rackInfo(),
		ResentTS:         c.loss.resentTS,
		Spurious:         c.loss.undone,
		Counters:         c.Counters(),
		Timestamps:       c.tstamp.on,
		SACK:             c.cfg.sack,
		WindowScaling:    c.cfg.scaling,
		ECN:              c.cfg.ecn,
		SYNData:          c.early.taken,
	}
	i.Busy = c.spent(now, busy) + i.WindowLimited + i.BufferLimited
	if c.snd.last != 0 {
		i.LastDataSent = now.Sub(c.snd.last)
	}
	if last := max(c.delack.arrived, c.chrono.opened); last != 0 {
		i.LastDataReceived = now.Sub(last)
	}
	if c.cc != nil {
		i.InFlight = c.flight()
		i.CongestionControl = c.cc.Name()
		i.Cwnd, i.Ssthresh = c.cwnd(), c.cc.Threshold()
	}
	return i
}
