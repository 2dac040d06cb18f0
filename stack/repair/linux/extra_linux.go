package linux

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// infiniteThreshold is TCP_INFINITE_SSTHRESH: no threshold yet.
const infiniteThreshold = math.MaxInt32

// outdated is the age of a timestamp that PAWS does not compare with.
const outdated = 25 * 24 * time.Hour

// extra is what the kernel tells of a connection, though it cannot restore it.
func (s *Socket) extra(i *info, c *repair.Core) (*repair.Extra, error) {
	name, err := unix.GetsockoptString(s.fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	if err != nil {
		return nil, failed("TCP_CONGESTION", err)
	}
	e := &repair.Extra{
		Congestion: repair.Congestion{
			Name:    name,
			Window:  int64(i.Snd_cwnd) * int64(i.Snd_mss),
			Retries: int(i.Retransmits),
		},
		RTT: repair.RTT{
			Smoothed: time.Duration(i.Rtt) * time.Microsecond,
			Variance: time.Duration(i.Rttvar) * time.Microsecond,
		},
		// TS.Recent is not told: the first timestamp that comes is as good as
		// any (RFC 7323 section 5.5 has 24 days).
		TSRecentAge: outdated,
		Advertised:  c.Window.RcvWup + c.Window.RcvWnd,
		ECN:         repair.ECN{Agreed: i.Options&infoECN != 0},
	}
	if i.Snd_ssthresh < infiniteThreshold {
		e.Congestion.Threshold = int64(i.Snd_ssthresh) * int64(i.Snd_mss)
	}
	if i.Min_rtt != math.MaxUint32 { // no sample
		e.RTT.Min = time.Duration(i.Min_rtt) * time.Microsecond
	}
	if e.Socket, err = s.settings(); err != nil {
		return nil, err
	}
	e.IP, err = s.ipSettings(c.Local.Addr())
	return e, err
}

// settings are the user's.
func (s *Socket) settings() (o repair.SocketOptions, err error) {
	get := func(name string, level, option int) (v int) {
		if err == nil {
			v, err = unix.GetsockoptInt(s.fd, level, option)
			err = failed(name, err)
		}
		return v
	}
	o.Keepalive = get("SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0
	o.KeepaliveIdle = time.Duration(get("TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)) * time.Second
	o.KeepaliveInterval = time.Duration(get("TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)) * time.Second
	o.KeepaliveCount = get("TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
	o.UserTimeout = time.Duration(get("TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)) * time.Millisecond
	// Sizes are carried where the user has chosen them; else each end tunes
	// its own.
	lock := s.bufferLock()
	if lock&bufLockSend != 0 {
		o.SendBuffer = get("SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF)
	}
	if lock&bufLockRecv != 0 {
		o.RecvBuffer = get("SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF)
	}
	if err != nil {
		return o, err
	}
	var linger [2]uint32 // struct linger
	if _, err := words(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, linger[:]); err != nil {
		return o, failed("SO_LINGER", err)
	}
	o.Linger, o.LingerTimeout = linger[0] != 0, time.Duration(linger[1])*time.Second
	return o, nil
}

// apply gives a fresh socket the settings of another, as far as the kernel has
// their like; what it refuses keeps its default.
func (s *Socket) apply(o *repair.SocketOptions) {
	set := func(level, option, value int) { _ = unix.SetsockoptInt(s.fd, level, option, value) }
	if o.Keepalive {
		set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
	if n := seconds(o.KeepaliveIdle); n > 0 {
		set(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, n)
	}
	if n := seconds(o.KeepaliveInterval); n > 0 {
		set(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, n)
	}
	if o.KeepaliveCount > 0 {
		set(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, o.KeepaliveCount)
	}
	if o.UserTimeout > 0 {
		set(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(min(o.UserTimeout.Milliseconds(), math.MaxInt32)))
	}
	if o.Linger {
		_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(seconds(o.LingerTimeout))})
	}
}

// seconds rounds up, so that a short time does not become none.
func seconds(d time.Duration) int {
	return int(min((d+time.Second-1)/time.Second, math.MaxInt32))
}
