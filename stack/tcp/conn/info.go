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
	Counters             Counters

	Timestamps, SACK, WindowScaling, ECN bool
}

// Info describes the connection as it is.
func (c *Conn) Info(now Time) Info {
	i := Info{
		State:           c.State(),
		Frozen:          c.frozen,
		RTT:             c.rtt.smoothed,
		RTTVar:          c.rtt.variance,
		RTO:             c.rtt.timeout(&c.cfg),
		MinRTT:          c.rtt.min,
		CongestionState: uint8(c.loss.phase),
		SndMSS:          c.segmentSize(),
		RcvMSS:          int(c.rcv.mss),
		AdvMSS:          int(c.cfg.advMSS),
		SndUna:          c.snd.una,
		SndNxt:          c.snd.nxt,
		RcvNxt:          c.rcv.nxt,
		SndWnd:          int64(c.snd.wnd),
		RcvWnd:          int64(c.window()),
		SndWScale:       c.snd.wscale,
		RcvWScale:       c.rcv.wscale,
		Unsent:          int(c.unsent()),
		Unread:          int(c.recvq.size()),
		OutOfOrder:      c.reasm.bytes(),
		Unacked:         len(c.board.recs),
		Sacked:          int(c.board.sacked.segs),
		Lost:            int(c.board.lostOut.segs),
		Retrans:         int(c.board.rtxOut.segs),
		Retransmits:     c.loss.retries,
		Reordering:      c.loss.rack.reordered,
		Counters:        c.stats,
		Timestamps:      c.tstamp.on,
		SACK:            c.cfg.sack,
		WindowScaling:   c.cfg.scaling,
		ECN:             c.cfg.ecn,
	}
	if c.cc != nil {
		i.InFlight = c.flight()
		i.CongestionControl = c.cc.Name()
		i.Cwnd, i.Ssthresh = c.cwnd(), c.cc.Threshold()
	}
	return i
}
