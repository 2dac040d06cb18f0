package linux

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What golang.org/x/sys/unix does not name.
const (
	tcpRepairWindowLen = 20 // struct tcp_repair_window

	// Bits of tcp_info's tcpi_options (include/uapi/linux/tcp.h).
	infoTimestamps = 1
	infoSACK       = 2
	infoScaling    = 4
	infoECN        = 8
	infoMicros     = 64 // since Linux 6.7

	bufLockSend = 1 // SOCK_SNDBUF_LOCK
	bufLockRecv = 2 // SOCK_RCVBUF_LOCK

	memInfoWords = 9
	memInfoDrops = 8 // SK_MEMINFO_DROPS
)

// getsockopt fills b with a socket option and returns how long it is. For
// SO_GET_FILTER lengths are in instructions, so size is told apart from b.
func getsockopt(fd, level, option int, b unsafe.Pointer, size int) (int, error) {
	n := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(b), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// words reads an option that is an array of 32-bit numbers.
func words(fd, level, option int, to []uint32) (int, error) {
	n, err := getsockopt(fd, level, option, unsafe.Pointer(&to[0]), 4*len(to))
	return n / 4, err
}

func setWords(fd, level, option int, from []uint32) error {
	b := make([]byte, 0, 4*len(from))
	for _, w := range from {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return unix.SetsockoptString(fd, level, option, string(b))
}

// tcpOption reads an option of IPPROTO_TCP, or one of the errors of failed.
func (s *Socket) tcpOption(name string, option int) (int, error) {
	v, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_TCP, option)
	return v, failed(name, err)
}

func (s *Socket) setTCPOption(name string, option, value int) error {
	return failed(name, unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, option, value))
}

// info is what tcp_info tells.
type info struct {
	unix.TCPInfo
}

// scales are the two shifts, which lie in a byte of the struct that
// unix.TCPInfo leaves unnamed, in the order of the machine's bit fields.
func (i *info) scales() (send, recv uint8) {
	b := *(*byte)(unsafe.Add(unsafe.Pointer(&i.TCPInfo), unsafe.Offsetof(i.Options)+1))
	low, high := b&15, b>>4
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return low, high
	}
	return high, low
}

func (s *Socket) info() (*info, error) {
	i := new(info)
	_, err := getsockopt(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO, unsafe.Pointer(&i.TCPInfo), unix.SizeofTCPInfo)
	return i, failed("TCP_INFO", err)
}
