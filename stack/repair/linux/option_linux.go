package linux

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// Codes of TCP_REPAIR_OPTIONS records: those of the options on the wire.
const (
	codeMSS        = 2
	codeScaling    = 3
	codeSACK       = 4
	codeTimestamps = 8
)

// Options implements repair.Socket. Outside repair the kernel tells the size
// of the segments in use instead of the peer's MSS.
func (s *Socket) Options() (repair.Options, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.info()
	if err != nil {
		return repair.Options{}, err
	}
	return s.options(i)
}

func (s *Socket) options(i *info) (o repair.Options, err error) {
	mss, err := s.tcpOption("TCP_MAXSEG", unix.TCP_MAXSEG)
	o = repair.Options{
		MSS:        uint16(mss),
		Scaling:    i.Options&infoScaling != 0,
		SACK:       i.Options&infoSACK != 0,
		Timestamps: i.Options&infoTimestamps != 0,
	}
	if o.Scaling {
		o.SendScale, o.RecvScale = i.scales()
	}
	return o, err
}

// SetOptions implements repair.Socket.
func (s *Socket) SetOptions(o repair.Options) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setOptions(o)
}

func (s *Socket) setOptions(o repair.Options) error {
	records := []unix.TCPRepairOpt{{Code: codeMSS, Val: uint32(o.MSS)}}
	if o.Scaling {
		records = append(records, unix.TCPRepairOpt{Code: codeScaling, Val: uint32(o.SendScale) | uint32(o.RecvScale)<<16})
	}
	if o.SACK {
		records = append(records, unix.TCPRepairOpt{Code: codeSACK})
	}
	if o.Timestamps {
		records = append(records, unix.TCPRepairOpt{Code: codeTimestamps})
	}
	return failed("TCP_REPAIR_OPTIONS", unix.SetsockoptTCPRepairOpt(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS, records))
}

// Window implements repair.Socket. Outside repair the kernel does not tell, and
// the error wraps repair.ErrPermission.
func (s *Socket) Window() (repair.Window, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window()
}

func (s *Socket) window() (repair.Window, error) {
	var w [tcpRepairWindowLen / 4]uint32
	n, err := words(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, w[:])
	if err == nil && n != len(w) {
		err = fmt.Errorf("%d words of %d", n, len(w))
	}
	return repair.Window{SndWl1: w[0], SndWnd: w[1], MaxWindow: w[2], RcvWnd: w[3], RcvWup: w[4]}, failed("TCP_REPAIR_WINDOW", err)
}

// SetWindow implements repair.Socket.
func (s *Socket) SetWindow(w repair.Window) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setWindow(w)
}

func (s *Socket) setWindow(w repair.Window) error {
	return failed("TCP_REPAIR_WINDOW", setWords(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW,
		[]uint32{w.SndWl1, w.SndWnd, w.MaxWindow, w.RcvWnd, w.RcvWup}))
}

// Timestamp implements repair.Socket. The kernel tells it only to within two
// ticks: the lowest bit says what a tick is.
func (s *Socket) Timestamp() (value uint32, micros bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.info()
	if err != nil {
		return 0, false, err
	}
	return s.timestamp(i)
}

func (s *Socket) timestamp(i *info) (value uint32, micros bool, err error) {
	v, err := s.tcpOption("TCP_TIMESTAMP", unix.TCP_TIMESTAMP)
	return uint32(v), i.Options&infoMicros != 0, err
}

// SetTimestamp implements repair.Socket. The value is rounded up to one whose
// lowest bit fits the tick, lest the clock be seen to go backwards.
func (s *Socket) SetTimestamp(value uint32, micros bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setTimestamp(value, micros)
}

func (s *Socket) setTimestamp(value uint32, micros bool) error {
	if micros {
		value |= 1
	} else {
		value = (value + 1) &^ 1
	}
	return s.setTCPOption("TCP_TIMESTAMP", unix.TCP_TIMESTAMP, int(int32(value)))
}
