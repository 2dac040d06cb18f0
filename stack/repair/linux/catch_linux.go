package linux

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// catch keeps copies of the segments that arrive for a connection, in a raw
// socket's buffer, and gives them to the connection later.
type catch struct {
	fd       int
	flow     repair.Flow
	injector *injector
	replayed atomic.Uint64 // segments given to the connection
}

// newCatch begins to keep up to size bytes, the kernel's overhead included.
func newCatch(flow repair.Flow, size int) (*catch, error) {
	i, err := newInjector(flow)
	if err != nil {
		return nil, err
	}
	fd, err := rawSocket(flow, size)
	if err != nil {
		return nil, errors.Join(err, i.close())
	}
	return &catch{fd: fd, flow: flow, injector: i}, nil
}

// rawSocket makes a socket that receives what a connection's peer sends.
func rawSocket(flow repair.Flow, size int) (fd int, err error) {
	local, remote := flow.Local.Addr().Unmap(), flow.Remote.Addr().Unmap()
	fd, err = unix.Socket(domain(local), unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, failed("raw socket", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if err := setFilter(fd, onlyFlow(flow)); err != nil {
		return -1, err
	}
	// Setting the size doubles it.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size/2) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size/2)
	}
	for _, end := range []struct {
		name string
		addr netip.Addr
		call func(int, unix.Sockaddr) error
	}{{"bind", local, unix.Bind}, {"connect", remote, unix.Connect}} {
		sa, err := sockaddr(netip.AddrPortFrom(end.addr, 0))
		if err != nil {
			return -1, err
		}
		if err := end.call(fd, sa); err != nil {
			return -1, failed(end.name+" of a raw socket", err)
		}
	}
	return fd, nil
}

// onlyFlow passes the segments of one connection, but for those that an
// injector sends. Packets of IPv4 begin with their header there, those of IPv6
// with the segment.
func onlyFlow(flow repair.Flow) []unix.SockFilter {
	load := unix.SockFilter{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: markOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: mark, Jt: 5},
	}
	if flow.Local.Addr().Unmap().Is4() {
		load.Code = unix.BPF_LD | unix.BPF_H | unix.BPF_IND
		program[1].Jt++
		program = append(program, unix.SockFilter{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH})
	}
	source, destination := load, load
	destination.K = 2
	return append(program,
		source,
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(flow.Remote.Port()), Jf: 3},
		destination,
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(flow.Local.Port()), Jf: 1},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K},
	)
}

// replay gives what was kept to the connection, in order. What is damaged is
// left out, and so is what does not fit a packet; the peer sends it again.
func (c *catch) replay() error {
	for buf := make([]byte, maxPacket+1); ; {
		n, _, err := unix.Recvfrom(c.fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return nil
		}
		if err != nil {
			return failed("reading segments kept", err)
		}
		class, segment := c.parse(buf[:n])
		if segment == nil || n > maxPacket || !c.intact(segment) {
			continue
		}
		if err := c.injector.send(class, segment); err != nil {
			return err
		}
		c.replayed.Add(1)
	}
}

// parse finds the segment in what a raw socket received, nil if it is none of
// the connection's.
func (c *catch) parse(b []byte) (class byte, segment []byte) {
	if c.injector.to.Is4() {
		if len(b) < 20 || len(b) < int(b[0]&15)*4 {
			return 0, nil
		}
		class, b = b[1], b[int(b[0]&15)*4:]
	}
	if len(b) < tcpHeaderLen ||
		binary.BigEndian.Uint16(b) != c.flow.Remote.Port() || binary.BigEndian.Uint16(b[2:]) != c.flow.Local.Port() {
		return 0, nil
	}
	return class, b
}

// intact verifies a segment's checksum. Where the sender's device was to
// complete it and there was none, it holds the pseudo-header's sum.
func (c *catch) intact(segment []byte) bool {
	return c.injector.sum(segment) == 0xffff ||
		binary.BigEndian.Uint16(segment[16:]) == fold(c.injector.pseudo(len(segment)))
}

func (c *catch) close() error {
	return errors.Join(failed("close", unix.Close(c.fd)), c.injector.close())
}
