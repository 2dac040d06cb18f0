package tcp

import (
	"encoding/binary"
	"errors"
	"io"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// The socket options of Linux's TCP_REPAIR, by number, for embedders that offer
// their users Linux's own interface (include/uapi/linux/tcp.h).
const (
	OptionRepair        = 19 // int: a repair.Mode
	OptionRepairQueue   = 20 // int: a repair.Queue
	OptionQueueSeq      = 21 // u32
	OptionRepairOptions = 22 // records of {u32 code, u32 value}; set only
	OptionTimestamp     = 24 // u32; the lowest bit: microseconds
	OptionRepairWindow  = 29 // {u32 snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup}
)

// The codes of OptionRepairOptions: those of the TCP options.
const (
	repairMSS       = 2
	repairWindow    = 3 // the value: the peer's scale, and ours << 16
	repairSACK      = 4
	repairTimestamp = 8
)

// SetRepairOption is setsockopt(2) of an option of TCP_REPAIR, with its value
// in the machine's byte order. The errors are Linux's: EPERM, EINVAL, EFBIG, and
// ENOPROTOOPT for another number.
//
// While a queue is selected and the connection is frozen, Write appends to that
// queue and Read with Peek reads from it.
func (e *Endpoint) SetRepairOption(number int, value []byte) error {
	switch number {
	case OptionRepairOptions:
		return e.setRepairOptions(value)
	case OptionRepairWindow:
		if on, _ := e.Repair().Repair(); on && len(value) != 20 {
			return syscall.EINVAL
		}
		var w repair.Window
		for i, f := range windowFields(&w) {
			if len(value) >= 4*i+4 {
				*f = binary.NativeEndian.Uint32(value[4*i:])
			}
		}
		return errno(e.Repair().SetWindow(w))
	case OptionRepair, OptionRepairQueue, OptionQueueSeq, OptionTimestamp:
	default:
		return syscall.ENOPROTOOPT
	}
	if len(value) < 4 {
		return syscall.EINVAL
	}
	return e.setRepairInt(number, binary.NativeEndian.Uint32(value))
}

// setRepairInt sets an option whose value is one number.
func (e *Endpoint) setRepairInt(number int, v uint32) error {
	r := e.Repair()
	switch number {
	case OptionRepair:
		err := r.SetRepair(repair.Mode(int32(v)))
		if err == nil && repair.Mode(int32(v)) == repair.On {
			e.selectQueue(repair.NoQueue)
		}
		return errno(err)
	case OptionRepairQueue:
		if on, _ := r.Repair(); !on {
			return syscall.EPERM
		}
		if v > uint32(repair.SendQueue) {
			return syscall.EINVAL
		}
		e.selectQueue(repair.Queue(v))
		return nil
	case OptionQueueSeq:
		if st, _ := r.State(); st != repair.StateClosed {
			return syscall.EPERM
		}
		q := e.selectedQueue()
		if q == repair.NoQueue {
			return syscall.EINVAL
		}
		return errno(r.SetQueueSeq(q, v))
	}
	return errno(r.SetTimestamp(v, v&1 != 0))
}

// RepairOption is getsockopt(2) of an option of TCP_REPAIR.
func (e *Endpoint) RepairOption(number int) (value []byte, err error) {
	r := e.Repair()
	var v uint32
	switch number {
	case OptionRepair:
		if on, _ := r.Repair(); on {
			v = uint32(repair.On)
		}
	case OptionRepairQueue:
		if on, _ := r.Repair(); !on {
			return nil, syscall.EINVAL
		}
		v = uint32(e.selectedQueue())
	case OptionQueueSeq:
		if v, err = r.QueueSeq(e.selectedQueue()); err != nil {
			return nil, errno(err)
		}
	case OptionTimestamp:
		var micros bool
		v, micros, _ = r.Timestamp()
		if v &^= 1; micros {
			v |= 1
		}
	case OptionRepairWindow:
		w, err := r.Window()
		if err != nil {
			return nil, errno(err)
		}
		for _, f := range windowFields(&w) {
			value = binary.NativeEndian.AppendUint32(value, *f)
		}
		return value, nil
	default:
		return nil, syscall.ENOPROTOOPT
	}
	return binary.NativeEndian.AppendUint32(nil, v), nil
}

func windowFields(w *repair.Window) [5]*uint32 {
	return [5]*uint32{&w.SndWl1, &w.SndWnd, &w.MaxWindow, &w.RcvWnd, &w.RcvWup}
}

// setRepairOptions sets the options one by one: those before a wrong one stick.
func (e *Endpoint) setRepairOptions(records []byte) error {
	return errno(e.Repair().frozen(repair.ErrInvalid, func(now conn.Time, c *conn.Conn) error {
		if len(records) < 8 {
			return c.SetRepairOptions(now, c.RepairOptions())
		}
		for ; len(records) >= 8; records = records[8:] {
			o := c.RepairOptions()
			v := binary.NativeEndian.Uint32(records[4:])
			switch code := binary.NativeEndian.Uint32(records); {
			case code == repairMSS:
				o.MSS = uint16(v)
			case code == repairWindow:
				if v&0xffff > repair.MaxScale || v>>16 > repair.MaxScale {
					return repair.ErrTooBig
				}
				o.Scaling, o.SendScale, o.RecvScale = true, uint8(v), uint8(v>>16)
			case (code == repairSACK || code == repairTimestamp) && v != 0:
				return repair.ErrInvalid
			case code == repairSACK:
				o.SACK = true
			case code == repairTimestamp:
				o.Timestamps = true
			}
			if err := c.SetRepairOptions(now, o); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (e *Endpoint) selectQueue(q repair.Queue) {
	e.mu.Lock()
	defer e.letGo()
	e.queue = q
}

func (e *Endpoint) selectedQueue() repair.Queue {
	e.mu.Lock()
	defer e.letGo()
	return e.queue
}

// writeSelected is Write on a frozen connection with a queue selected. e.mu is
// held.
func (e *Endpoint) writeSelected(now conn.Time, p tcpip.Payloader) (int, tcpip.Error) {
	b := make([]byte, p.Len())
	n, err := p.Read(b)
	if err != nil && n == 0 {
		return 0, &tcpip.ErrBadBuffer{}
	}
	n, err = e.conn.WriteQueue(now, e.queue, b[:n])
	if err != nil {
		return 0, &tcpip.ErrClosedForSend{}
	}
	return n, nil
}

// readSelected is Read on a frozen connection with a queue selected: it takes
// nothing away, and has to say so. e.mu is held.
func (e *Endpoint) readSelected(dst io.Writer, peek bool) (int, tcpip.Error) {
	if !peek {
		return 0, &tcpip.ErrNotPermitted{}
	}
	n := e.conn.Unread()
	if e.queue == repair.SendQueue {
		n = e.conn.Unacked()
	}
	switch {
	case n == 0 && e.queue == repair.SendQueue:
		return 0, nil // what is not there will not come
	case n == 0:
		return 0, &tcpip.ErrWouldBlock{}
	}
	b := make([]byte, n)
	n, _ = e.conn.PeekQueue(e.queue, b) // it is frozen, and there is such a queue
	if n, _ = dst.Write(b[:n]); n == 0 {
		return 0, &tcpip.ErrBadBuffer{}
	}
	return n, nil
}

// errno is what Linux calls an error of package repair.
func errno(err error) error {
	for _, k := range []struct {
		is  error
		num syscall.Errno
	}{
		{repair.ErrPermission, syscall.EPERM},
		{repair.ErrInvalid, syscall.EINVAL},
		{repair.ErrTooBig, syscall.EFBIG},
		{repair.ErrClosed, syscall.EPIPE},
	} {
		if errors.Is(err, k.is) {
			return k.num
		}
	}
	return err
}
