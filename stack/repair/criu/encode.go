package criu

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fown"
	sk_inet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	sk_opts "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-opts"
	tcp_stream "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"
	"google.golang.org/protobuf/proto"

	"github.com/tcprepair/ustack/stack/repair"
)

// streamEntry describes the stream. In SYN-SENT the sequence number of the send
// queue is the one after our SYN, as Linux has it.
func streamEntry(s *repair.Snapshot) *tcp_stream.TcpStreamEntry {
	w := s.EdgeWindow()
	e := &tcp_stream.TcpStreamEntry{
		InqLen:    proto.Uint32(uint32(s.RecvQueue.Len())),
		InqSeq:    proto.Uint32(s.RcvNxt()),
		OutqLen:   proto.Uint32(uint32(s.SendQueue.Len())),
		OutqSeq:   proto.Uint32(s.WriteSeq()),
		UnsqLen:   proto.Uint32(uint32(s.Unsent)),
		SndWscale: proto.Uint32(uint32(s.Options.SendScale)),
		MssClamp:  proto.Uint32(uint32(s.Options.MSS)),
		SndWl1:    proto.Uint32(w.SndWl1),
		SndWnd:    proto.Uint32(w.SndWnd),
		MaxWindow: proto.Uint32(w.MaxWindow),
		RcvWnd:    proto.Uint32(w.RcvWnd),
		RcvWup:    proto.Uint32(w.RcvWup),
	}
	var mask uint32
	if s.Options.SACK {
		mask |= optSACK
	}
	if s.Options.Scaling {
		mask |= optScaling
		e.RcvWscale = proto.Uint32(uint32(s.Options.RecvScale))
	}
	if s.Options.Timestamps {
		mask |= optTimestamps
		if s.TimestampMicros {
			mask |= optMicros
		}
		e.Timestamp = proto.Uint32(tick(s.Timestamp, s.TimestampMicros))
	}
	e.OptMask = proto.Uint32(mask)
	if s.NoDelay {
		e.Nodelay = proto.Bool(true)
	}
	if s.Cork {
		e.Cork = proto.Bool(true)
	}
	return e
}

// tick sets the last bit, by which Linux tells the size of the tick. It never
// goes back: the peer would take what follows for old (PAWS).
func tick(v uint32, micros bool) uint32 {
	if micros {
		return v | 1
	}
	return v + v&1
}

// socketEntry describes the socket.
func socketEntry(s *repair.Snapshot, inode uint32) *sk_inet.InetSkEntry {
	e := &sk_inet.InetSkEntry{
		Id:      proto.Uint32(inode),
		Ino:     proto.Uint32(inode),
		Family:  proto.Uint32(afInet),
		Type:    proto.Uint32(sockStream),
		Proto:   proto.Uint32(ipprotoTCP),
		State:   proto.Uint32(uint32(s.State)),
		SrcPort: proto.Uint32(uint32(s.Local.Port())),
		DstPort: proto.Uint32(uint32(s.Remote.Port())),
		Flags:   proto.Uint32(oRdwr),
		Backlog: proto.Uint32(0),
		Fown: &fown.FownEntry{
			Uid: proto.Uint32(0), Euid: proto.Uint32(0), Signum: proto.Uint32(0), PidType: proto.Uint32(0), Pid: proto.Uint32(0),
		},
		Opts:    socketOptions(s.Extra),
		TcpOpts: tcpOptions(s),
	}
	local, remote := s.Local.Addr(), s.Remote.Addr()
	if !local.Is4() || remote.IsValid() && !remote.Is4() {
		e.Family = proto.Uint32(afInet6)
		if zone := cmp.Or(local.Zone(), remote.Zone()); zone != "" {
			e.Ifname = proto.String(zone)
		}
	}
	v6 := e.GetFamily() == afInet6
	e.SrcAddr, e.DstAddr = words(local, v6), words(remote, v6)
	if s.Extra != nil && s.State == repair.StateListen {
		e.Backlog = proto.Uint32(s.Extra.Backlog)
	}
	if shut := shutdown(&s.Core); shut != sk_opts.SkShutdown_NONE {
		e.Shutdown = shut.Enum()
	}
	return e
}

// shutdown is which directions are closed.
func shutdown(c *repair.Core) sk_opts.SkShutdown {
	switch {
	case c.FINQueued && c.FINReceived:
		return sk_opts.SkShutdown_BOTH
	case c.FINQueued:
		return sk_opts.SkShutdown_WRITE
	case c.FINReceived:
		return sk_opts.SkShutdown_READ
	}
	return sk_opts.SkShutdown_NONE
}

// words are an address's bytes, four at a time, as they lie in the memory of a
// little-endian machine. No address is all zeros.
func words(a netip.Addr, v6 bool) (w []uint32) {
	var raw [16]byte
	n := 4
	switch {
	case v6 && a.IsValid():
		raw, n = a.As16(), 16
	case v6:
		n = 16
	case a.IsValid():
		v4 := a.As4()
		copy(raw[:], v4[:])
	}
	for i := 0; i < n; i += 4 {
		w = append(w, binary.LittleEndian.Uint32(raw[i:]))
	}
	return w
}

// socketOptions describes what is set on the socket; e may be nil.
func socketOptions(e *repair.Extra) *sk_opts.SkOptsEntry {
	var o repair.SocketOptions
	if e != nil {
		o = e.Socket
	}
	opts := &sk_opts.SkOptsEntry{
		SoSndTmoSec: proto.Uint64(0), SoSndTmoUsec: proto.Uint64(0), SoRcvTmoSec: proto.Uint64(0), SoRcvTmoUsec: proto.Uint64(0),
	}
	var lock uint32
	opts.SoSndbuf = buffer(o.SendBuffer, o.SendBufferMax, defaultSendBuffer, sndBufLock, &lock)
	opts.SoRcvbuf = buffer(o.RecvBuffer, o.RecvBufferMax, defaultRecvBuffer, rcvBufLock, &lock)
	opts.SoBufLock = proto.Uint32(lock)
	if o.Keepalive {
		opts.SoKeepalive = proto.Bool(true)
	}
	if o.Linger {
		opts.SoLinger = proto.Uint32(seconds(o.LingerTimeout))
	}
	return opts
}

// buffer is a buffer's size. Where the user has chosen it, lock gets its bit:
// without one, the kernel goes on tuning it.
func buffer(size, most, otherwise int, bit uint32, lock *uint32) *uint32 {
	if size <= 0 {
		return proto.Uint32(uint32(otherwise))
	}
	if most == 0 {
		*lock |= bit
	}
	return proto.Uint32(uint32(min(size, 1<<31-1)))
}

func tcpOptions(s *repair.Snapshot) *tcp_stream.TcpOptsEntry {
	o := &tcp_stream.TcpOptsEntry{Nodelay: proto.Bool(s.NoDelay), Cork: proto.Bool(s.Cork)}
	if s.Extra == nil {
		return o
	}
	k := s.Extra.Socket
	for _, f := range []struct {
		field **uint32
		value uint32
	}{
		{&o.Keepcnt, uint32(min(max(k.KeepaliveCount, 0), 127))},
		{&o.Keepidle, seconds(k.KeepaliveIdle)},
		{&o.Keepintvl, seconds(k.KeepaliveInterval)},
	} {
		if f.value != 0 {
			*f.field = proto.Uint32(f.value)
		}
	}
	return o
}

// seconds rounds up, so that what is set does not become what is not.
func seconds(d time.Duration) uint32 {
	return uint32(min(max((d+time.Second-1)/time.Second, 0), 1<<31-1))
}

// convertible refuses what images have no form for.
func convertible(s *repair.Snapshot) error {
	if err := s.Validate(); err != nil {
		return fmt.Errorf("criu: not a possible connection: %w", err)
	}
	switch s.State {
	case repair.StateSynReceived, repair.StateTimeWait:
		return fmt.Errorf("criu: images have no connections in state %v: %w", s.State, repair.ErrState)
	}
	if len(s.Children) > 0 {
		return fmt.Errorf("criu: images have no room for the %d connections that nobody has accepted: %w", len(s.Children), repair.ErrState)
	}
	return nil
}
