package demo

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/tcprepair/ustack/internal/daemon"
	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack"
)

// Ports of the daemon's services.
const (
	portEcho = 7
	portSink = 9000
	portHTTP = 80
)

// peer is the TCP at the other end of the link.
type peer interface {
	// dial connects to an address of the stack.
	dial(ctx context.Context, to netip.AddrPort) (stream, error)
	// bytesAcked is how much of what the connection sent its peer has
	// acknowledged, modulo 2^32 and give or take a constant.
	bytesAcked(c stream) (uint32, error)
	close()
}

// stream is a connection whose sending side can end first.
type stream interface {
	net.Conn
	CloseWrite() error
}

// bench is the daemon with its services, the link, and the peer.
type bench struct {
	description string
	addresses   []netip.Addr // the stack's, IPv4 first
	daemon      *daemon.Daemon
	peer        peer
}

// newBench sets up a link of the given kind, with dir served over HTTP.
func newBench(link, dir string) (*bench, error) {
	b := &bench{}
	cfg := daemon.Config{
		Addresses: netlab.PeerAddresses,
		Services: []daemon.Service{
			{Name: "echo", Port: portEcho}, {Name: "sink", Port: portSink}, {Name: "http", Port: portHTTP, Dir: dir},
		},
	}
	for _, p := range cfg.Addresses {
		b.addresses = append(b.addresses, p.Addr())
	}
	var err error
	if link == LinkMemory {
		b.peer, err = newMemoryPeer(&cfg)
		b.description = "Two stacks in this process, joined by a pipe; the peer is gVisor's TCP."
	} else {
		var device netlab.Device
		b.peer, device, err = newKernelPeer(&cfg)
		b.description = fmt.Sprintf("A TAP device (%s, MTU %d) in a network namespace of its own; the peer is the kernel's TCP, %s.",
			device.Name, device.MTU, kernelRelease())
	}
	if err != nil {
		return nil, err
	}
	if b.daemon, err = daemon.New(cfg); err != nil {
		b.peer.close()
		return nil, err
	}
	b.description += fmt.Sprintf("\nustack serves on %v: echo, sink, http.", b.addresses)
	return b, nil
}

func (b *bench) close() {
	ctx, cancel := context.WithTimeout(context.Background(), daemon.DefaultGrace)
	defer cancel()
	b.daemon.Close(ctx)
	b.peer.close()
}

// conn finds the stack's end of a connection.
func (b *bench) conn(c net.Conn) (stack.ConnInfo, error) {
	remote, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return stack.ConnInfo{}, err
	}
	for _, info := range b.daemon.Stack().Conns() {
		if info.Remote == remote {
			return info, nil
		}
	}
	return stack.ConnInfo{}, fmt.Errorf("the stack has no connection from %v", remote)
}

// dial connects the peer to a service; what is done with the connection must
// end when ctx does.
func (b *bench) dial(ctx context.Context, to netip.Addr, port uint16) (stream, error) {
	c, err := b.peer.dial(ctx, netip.AddrPortFrom(to, port))
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	return c, nil
}

func kernelRelease() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "of unknown release"
	}
	return "Linux " + string(b[:max(0, len(b)-1)])
}
