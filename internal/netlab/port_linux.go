package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// maxFrame is the longest frame that a device hands over: a 64 KiB IP packet
// with Ethernet and VLAN headers.
const maxFrame = 64<<10 + 64

// packetBuffer is the receive buffer of packet sockets, in bytes: room for the
// burst that comes while a reader is not scheduled.
const packetBuffer = 8 << 20

// Port is one end of a wire: something that gives and takes Ethernet frames.
type Port struct {
	// Name says where it is plugged in, for messages.
	Name string

	file *os.File
	vnet bool // frames carry a virtio_net_hdr
	out  []byte
}

// Port takes the TAP's descriptor over as the end of a wire: the wire sees what
// the kernel sends on the device. The kernel completes frames itself, since no
// offload is switched on.
func (t *TAP) Port() (*Port, error) {
	fd, err := t.TakeFD()
	if err != nil {
		return nil, err
	}
	return newPort(fd, t.Namespace.Name+"/"+t.Name, !t.Plain), nil
}

// PacketPort plugs a wire in at the kernel's side of a device by a packet
// socket: the wire sees what the device receives and sends through it. That is
// the other side of a TAP whose descriptor a stack holds, or one end of a veth
// pair. Super-frames and half-done checksums are completed on the way.
func (ns *Namespace) PacketPort(device string) (*Port, error) {
	fd, err := ns.packetSocket(device, true)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("netlab: PACKET_VNET_HDR: %w", err)
	}
	if err := bindPacket(fd, device, ns); err != nil {
		return nil, err
	}
	return newPort(fd, ns.Name+"/"+device, true), nil
}

// packetSocket makes an unbound, silent packet socket of the namespace. With
// incoming it does not show what goes out of the device.
func (ns *Namespace) packetSocket(device string, incoming bool) (fd int, err error) {
	err = ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return -1, fmt.Errorf("netlab: packet socket on %s: %w", device, err)
	}
	if incoming {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("netlab: PACKET_IGNORE_OUTGOING: %w", err)
		}
	}
	// Past the system's limit where that is allowed, up to it elsewhere.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, packetBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, packetBuffer)
	}
	return fd, nil
}

// bindPacket starts delivery from the device. It closes fd when it fails.
func bindPacket(fd int, device string, ns *Namespace) error {
	link, err := ns.nl.LinkByName(device)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: hostToNet16(unix.ETH_P_ALL), Ifindex: link.Attrs().Index})
	}
	if err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("netlab: packet socket on %s: %w", device, err)
	}
	return nil
}

func hostToNet16(v uint16) uint16 {
	b := [2]byte{byte(v >> 8), byte(v)}
	return binary.NativeEndian.Uint16(b[:])
}

func newPort(fd int, name string, vnet bool) *Port {
	return &Port{Name: name, file: os.NewFile(uintptr(fd), name), vnet: vnet, out: make([]byte, vnetHeaderLen+maxFrame)}
}

// read waits for one frame, or what the kernel batched as one, and hands out
// the complete frames. The buffer is scratch space.
func (p *Port) read(buf []byte, emit func([]byte)) error {
	n, err := p.file.Read(buf)
	if err != nil {
		return err
	}
	if !p.vnet {
		emit(buf[:n])
		return nil
	}
	if n < vnetHeaderLen {
		return errBadOffload
	}
	return completeFrames(parseVnetHeader(buf), buf[vnetHeaderLen:n], emit)
}

// write sends one complete frame. Only one goroutine at a time may write.
func (p *Port) write(frame []byte) error {
	if !p.vnet {
		_, err := p.file.Write(frame)
		return err
	}
	if len(frame) > maxFrame {
		return errBadOffload
	}
	n := copy(p.out[vnetHeaderLen:], frame) // the header before it stays zero
	_, err := p.file.Write(p.out[:vnetHeaderLen+n])
	return err
}

// Close unplugs the port. A wire closes its own ports.
func (p *Port) Close() error {
	if err := p.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
