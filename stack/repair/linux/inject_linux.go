package linux

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// mark tells the segments that this process gives to its own connections from
// all others. It is drawn for each process, since nobody else is to know it.
var mark = rand.Uint32() | 1

const (
	tcpHeaderLen = 20
	maxPacket    = 0xffff
)

// injector gives TCP segments to this host in a peer's name.
type injector struct {
	fd       int
	from, to netip.Addr
	sockaddr unix.Sockaddr
}

func newInjector(flow repair.Flow) (*injector, error) {
	i := &injector{from: flow.Remote.Addr().Unmap(), to: flow.Local.Addr().Unmap()}
	sa, err := sockaddr(netip.AddrPortFrom(i.to, 0))
	if err != nil {
		return nil, err
	}
	i.sockaddr = sa
	i.fd, err = unix.Socket(domain(i.to), unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err == unix.EPERM {
		return nil, fmt.Errorf("linux: segments in a peer's name take CAP_NET_RAW: %w", repair.ErrPermission)
	}
	if err != nil {
		return nil, failed("raw socket", err)
	}
	if err := unix.SetsockoptInt(i.fd, unix.SOL_SOCKET, unix.SO_MARK, int(int32(mark))); err != nil {
		_ = i.close()
		return nil, failed("SO_MARK", err)
	}
	return i, nil
}

func (i *injector) close() error { return unix.Close(i.fd) }

// send gives a segment to this host, with the traffic class of its packet. The
// checksum is filled in.
func (i *injector) send(class byte, segment []byte) error {
	binary.BigEndian.PutUint16(segment[16:], 0)
	binary.BigEndian.PutUint16(segment[16:], ^i.sum(segment))
	packet := append(i.header(class, len(segment)), segment...)
	return failed("sending a segment to this host", unix.Sendto(i.fd, packet, 0, i.sockaddr))
}

// header is what goes before a TCP segment; IPPROTO_RAW means that it is given.
// Of IPv4 the kernel fills the checksum in.
func (i *injector) header(class byte, payload int) []byte {
	const hops = 64
	var b []byte
	if i.to.Is4() {
		b = append(b, 0x45, class)
		b = binary.BigEndian.AppendUint16(b, uint16(20+payload))
		b = append(b, 0, 0, 0, 0, hops, unix.IPPROTO_TCP, 0, 0)
	} else {
		b = append(b, 0x60|class>>4, class<<4, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(payload))
		b = append(b, unix.IPPROTO_TCP, hops)
	}
	b = append(b, i.from.AsSlice()...)
	return append(b, i.to.AsSlice()...)
}

// sum is the one's complement sum of a segment and its pseudo-header, 0xffff if
// the segment's checksum is right (RFC 9293 section 3.1).
func (i *injector) sum(segment []byte) uint16 {
	return fold(i.pseudo(len(segment)) + add(segment))
}

// pseudo is the pseudo-header's part of it.
func (i *injector) pseudo(length int) uint32 {
	return uint32(length) + unix.IPPROTO_TCP + add(i.from.AsSlice()) + add(i.to.AsSlice())
}

// add sums at most 64 KiB, so it does not overflow.
func add(b []byte) (sum uint32) {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	return uint32(fold(sum))
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
