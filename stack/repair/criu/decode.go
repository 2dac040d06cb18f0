package criu

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	sk_inet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	tcp_stream "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"

	"github.com/tcprepair/ustack/stack/repair"
)

// stream is what a tcp-stream image holds.
type stream struct {
	entry     *tcp_stream.TcpStreamEntry
	recv, out repair.Bytes
}

// invalid is an error that wraps repair.ErrInvalid.
func invalid(format string, args ...any) error {
	return fmt.Errorf("criu: %s: %w", fmt.Sprintf(format, args...), repair.ErrInvalid)
}

// snapshot puts a socket and its stream together. st is nil for a listener.
func snapshot(sk *sk_inet.InetSkEntry, st *stream) (*repair.Snapshot, error) {
	s := new(repair.Snapshot)
	if err := readSocket(s, sk); err != nil {
		return nil, err
	}
	switch {
	case s.State == repair.StateListen:
		s.Extra = &repair.Extra{Backlog: sk.GetBacklog()}
	case st == nil:
		return nil, invalid("there is no stream for the socket with inode %d", sk.GetIno())
	default:
		if err := readStream(s, st); err != nil {
			return nil, err
		}
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("criu: the image of the socket with inode %d is of no possible connection: %w", sk.GetIno(), err)
	}
	return s, nil
}

// readSocket reads the addresses, the state and, from that, the FINs.
func readSocket(s *repair.Snapshot, sk *sk_inet.InetSkEntry) error {
	if sk.GetType() != sockStream || sk.GetProto() != ipprotoTCP {
		return invalid("the socket with inode %d is not one of TCP", sk.GetIno())
	}
	if sk.GetState() > uint32(repair.StateClosing) || sk.GetSrcPort() > 0xffff || sk.GetDstPort() > 0xffff {
		return invalid("the socket with inode %d has a state or a port that there is not", sk.GetIno())
	}
	s.State = repair.State(sk.GetState())
	local, err := address(sk.GetSrcAddr(), sk.GetFamily())
	if err != nil {
		return err
	}
	remote, err := address(sk.GetDstAddr(), sk.GetFamily())
	if err != nil {
		return err
	}
	if zone := sk.GetIfname(); zone != "" {
		local = zoned(local, zone)
		remote = zoned(remote, zone)
	}
	s.Local = netip.AddrPortFrom(local, uint16(sk.GetSrcPort()))
	if s.State != repair.StateListen {
		s.Remote = netip.AddrPortFrom(remote, uint16(sk.GetDstPort()))
	}
	switch s.State {
	case repair.StateFinWait1, repair.StateClosing, repair.StateLastAck:
		s.FINQueued = true
	case repair.StateFinWait2:
		s.FINQueued, s.FINSent, s.FINAcked = true, true, true
	}
	switch s.State {
	case repair.StateCloseWait, repair.StateClosing, repair.StateLastAck:
		s.FINReceived = true
	}
	o := sk.GetTcpOpts()
	s.NoDelay, s.Cork = o.GetNodelay(), o.GetCork()
	return nil
}

// zoned gives a link-local address its zone.
func zoned(a netip.Addr, zone string) netip.Addr {
	if a.IsLinkLocalUnicast() {
		return a.WithZone(zone)
	}
	return a
}

// address undoes words.
func address(w []uint32, family uint32) (netip.Addr, error) {
	var raw [16]byte
	for i, v := range w[:min(len(w), 4)] {
		binary.LittleEndian.PutUint32(raw[4*i:], v)
	}
	switch {
	case family == afInet && len(w) == 1:
		return netip.AddrFrom4([4]byte(raw[:4])), nil
	case family == afInet6 && len(w) == 4:
		return netip.AddrFrom16(raw), nil
	}
	return netip.Addr{}, invalid("a socket of family %d has an address of %d words", family, len(w))
}

// readStream reads the rest of the core. Sequence numbers are those of the
// queues' ends, with FINs; lengths are without.
func readStream(s *repair.Snapshot, st *stream) error {
	e := st.entry
	if e.SndWnd == nil || e.RcvWnd == nil || e.SndWl1 == nil || e.RcvWup == nil || e.MaxWindow == nil {
		return invalid("the stream has no window: it is of a kernel before 4.8, or damaged")
	}
	if e.GetMssClamp() > 0xffff || e.GetSndWscale() > 0xff || e.GetRcvWscale() > 0xff || e.GetUnsqLen() > e.GetOutqLen() {
		return invalid("the stream has a segment size, a scale or a length that there is not")
	}
	s.RecvQueue, s.SendQueue, s.Unsent = st.recv, st.out, int(e.GetUnsqLen())
	s.FINSent = s.FINQueued && s.Unsent == 0
	s.SendSeq += e.GetOutqSeq() - s.WriteSeq()
	s.RecvSeq += e.GetInqSeq() - s.RcvNxt()
	mask := e.GetOptMask()
	s.Options = repair.Options{
		MSS:        uint16(e.GetMssClamp()),
		Scaling:    mask&optScaling != 0,
		SACK:       mask&optSACK != 0,
		Timestamps: mask&optTimestamps != 0,
	}
	if s.Options.Scaling {
		s.Options.SendScale, s.Options.RecvScale = uint8(e.GetSndWscale()), uint8(e.GetRcvWscale())
	}
	if s.Options.Timestamps {
		s.Timestamp, s.TimestampMicros = e.GetTimestamp(), mask&optMicros != 0
	}
	s.Window = repair.Window{
		SndWl1: e.GetSndWl1(), SndWnd: e.GetSndWnd(), MaxWindow: e.GetMaxWindow(), RcvWnd: e.GetRcvWnd(), RcvWup: e.GetRcvWup(),
	}
	// Older images have these two here and not with the socket.
	s.NoDelay, s.Cork = s.NoDelay || e.GetNodelay(), s.Cork || e.GetCork()
	return nil
}
