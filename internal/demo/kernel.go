package demo

import (
	"context"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/internal/daemon"
	"github.com/tcprepair/ustack/internal/netlab"
)

// kernelPeer is the kernel's TCP in a namespace with the TAP device.
type kernelPeer struct {
	lab *netlab.Lab
	ns  *netlab.Namespace
	tap int // the daemon works on a duplicate
}

// newKernelPeer makes the namespace and hands the device to cfg.
func newKernelPeer(cfg *daemon.Config) (peer, netlab.Device, error) {
	lab, err := netlab.Open()
	if err != nil {
		return nil, netlab.Device{}, err
	}
	n, err := lab.Direct(netlab.Link{})
	if err == nil {
		cfg.TAPFD, err = n.TAP.TakeFD()
	}
	if err != nil {
		lab.Close()
		return nil, netlab.Device{}, err
	}
	return &kernelPeer{lab: lab, ns: n.Kernel, tap: cfg.TAPFD}, n.Device, nil
}

func (p *kernelPeer) dial(ctx context.Context, to netip.AddrPort) (stream, error) {
	c, err := p.ns.DialTCP(ctx, to)
	if err != nil {
		return nil, err // a nil *net.TCPConn would not be a nil stream
	}
	return c, nil
}

func (p *kernelPeer) bytesAcked(c stream) (uint32, error) {
	info, err := netlab.TCPInfo(c.(*net.TCPConn))
	if err != nil {
		return 0, err
	}
	return uint32(info.Bytes_acked), nil
}

func (p *kernelPeer) close() {
	_ = unix.Close(p.tap)
	p.lab.Close()
}
