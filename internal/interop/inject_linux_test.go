package interop

import (
	"errors"
	"net"
	"net/netip"
	"os"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack"
)

// deafen makes a kernel socket drop everything it is sent, before TCP sees it.
func deafen(k *net.TCPConn) error {
	raw, err := k.SyscallConn()
	if err != nil {
		return err
	}
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	prog := unix.SockFprog{Len: uint16(len(drop)), Filter: &drop[0]}
	err2 := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
	})
	return errors.Join(err, err2)
}

// tooBig sends the ustack an ICMP error as a router would: a packet of its
// connection did not fit mtu.
func (s *site) tooBig(family int, k *net.TCPConn, u *stack.Conn, mtu uint16) {
	s.t.Helper()
	var (
		from = netlab.KernelAddresses[family].Addr()
		to   = netlab.PeerAddresses[family].Addr()
		ours = u.LocalAddr().(*net.TCPAddr).AddrPort()
		far  = k.LocalAddr().(*net.TCPAddr).AddrPort()
		seq  = uint32(u.Info().SndUna)
		buf  = gopacket.NewSerializeBuffer()
		opts = gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	)
	offending := s.offending(ours, far, seq)
	var err error
	if family == 0 {
		err = gopacket.SerializeLayers(buf, opts,
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: mtu},
			gopacket.Payload(offending))
	} else {
		ip := &layers.IPv6{SrcIP: from.AsSlice(), DstIP: to.AsSlice(), NextHeader: layers.IPProtocolICMPv6}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(2, 0)}
		icmp.SetNetworkLayerForChecksum(ip)
		err = gopacket.SerializeLayers(buf, opts, icmp, gopacket.Payload(append([]byte{0, 0, byte(mtu >> 8), byte(mtu)}, offending...)))
	}
	must(s.t, err)
	must(s.t, s.kernel.Do(func() error { return sendRaw(to, buf.Bytes()) }))
}

// offending is the packet of ours that an ICMP error quotes.
func (s *site) offending(ours, far netip.AddrPort, seq uint32) []byte {
	s.t.Helper()
	tcp := &layers.TCP{SrcPort: layers.TCPPort(ours.Port()), DstPort: layers.TCPPort(far.Port()), Seq: seq, ACK: true}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	var ip gopacket.SerializableLayer
	if ours.Addr().Is4() {
		l := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: ours.Addr().AsSlice(), DstIP: far.Addr().AsSlice()}
		must(s.t, tcp.SetNetworkLayerForChecksum(l))
		ip = l
	} else {
		l := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: ours.Addr().AsSlice(), DstIP: far.Addr().AsSlice()}
		must(s.t, tcp.SetNetworkLayerForChecksum(l))
		ip = l
	}
	must(s.t, gopacket.SerializeLayers(buf, opts, ip, tcp))
	return buf.Bytes()
}

// sendRaw sends an ICMP message by a raw socket of the calling thread's
// namespace.
func sendRaw(to netip.Addr, msg []byte) error {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if to.Is6() {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW, proto)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if to.Is4() {
		return unix.Sendto(fd, msg, 0, &unix.SockaddrInet4{Addr: to.As4()})
	}
	return unix.Sendto(fd, msg, 0, &unix.SockaddrInet6{Addr: to.As16()})
}

// forger sends TCP segments of anybody's, by a raw socket.
type forger struct {
	fd  int
	buf gopacket.SerializeBuffer
}

// newForger makes a forger in the calling thread's namespace. The index of an IP
// version picks the one it speaks.
func newForger(family int) (*forger, error) {
	domain := []int{unix.AF_INET, unix.AF_INET6}[family]
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return &forger{fd, gopacket.NewSerializeBuffer()}, nil
}

func (f *forger) close() { unix.Close(f.fd) }

// send sends tcp, whose ports it fills in.
func (f *forger) send(from, to netip.AddrPort, tcp *layers.TCP) error {
	tcp.SrcPort, tcp.DstPort = layers.TCPPort(from.Port()), layers.TCPPort(to.Port())
	var (
		ip interface {
			gopacket.NetworkLayer
			gopacket.SerializableLayer
		}
		dst unix.Sockaddr
	)
	if to.Addr().Is4() {
		ip = &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: from.Addr().AsSlice(), DstIP: to.Addr().AsSlice()}
		dst = &unix.SockaddrInet4{Addr: to.Addr().As4()}
	} else {
		ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: from.Addr().AsSlice(), DstIP: to.Addr().AsSlice()}
		dst = &unix.SockaddrInet6{Addr: to.Addr().As16()}
	}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		return err
	}
	if err := gopacket.SerializeLayers(f.buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp); err != nil {
		return err
	}
	return os.NewSyscallError("sendto", unix.Sendto(f.fd, f.buf.Bytes(), 0, dst))
}
