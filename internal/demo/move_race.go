package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack/repair/linux"
)

const (
	// lateBytes is what the peer sends to a frozen connection.
	lateBytes = 1000
	// lateFor is how long it is waited for: many retransmissions.
	lateFor = time.Second
)

// race shows why a kernel socket is frozen with a filter. Without it, the kernel
// acknowledges what comes after the snapshot, and nobody has it.
func (c *country) race(ctx context.Context, w io.Writer, r *MoveResult) (err error) {
	c.cluster.Switch.Move(0)
	origin := newKernelInn(c.cluster.Hosts[0].Kernel)
	origin.factory = &linux.Factory{Do: origin.ns.Do, NoFilter: true}
	var peer *net.TCPConn
	from, err := origin.accept(func(to netip.AddrPort) (err error) {
		peer, err = c.cluster.Peer.DialTCP(ctx, to)
		return err
	}, netlab.PeerAddresses[0].Addr())
	if err != nil {
		return err
	}
	defer func() { _ = peer.Close() }() // of a connection that may be dead
	snap, err := from.checkpoint()
	if err != nil {
		return err
	}
	acked, err := lateData(ctx, peer)
	if err != nil {
		return err
	}
	to, err := c.inns[1].restore(snap)
	if err != nil {
		return err
	}
	c.cluster.Switch.Move(1)
	if err := errors.Join(from.leave(), to.resume()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.leave()) }()
	if err := to.conn().SetReadDeadline(time.Now().Add(lateFor)); err != nil {
		return err
	}
	n, _ := io.ReadFull(to.conn(), make([]byte, lateBytes))
	r.LostWithoutFilter = acked == lateBytes && n == 0
	if !r.LostWithoutFilter {
		fmt.Fprintf(w, "Without the socket filter nothing was lost: this kernel protects sockets in repair mode itself.\n")
		return nil
	}
	fmt.Fprintf(w, "Without the socket filter: after the snapshot the frozen kernel acknowledged %d bytes; where the connection went, %d of them came.\n", acked, n)
	return nil
}

// lateData has the peer send, and returns how much of it is acknowledged.
func lateData(ctx context.Context, peer *net.TCPConn) (acked uint64, err error) {
	before, err := netlab.TCPInfo(peer)
	if err != nil {
		return 0, err
	}
	if _, err := peer.Write(make([]byte, lateBytes)); err != nil {
		return 0, err
	}
	for end := time.Now().Add(lateFor); acked < lateBytes && time.Now().Before(end); {
		if err := pause(ctx, time.Millisecond); err != nil {
			return 0, err
		}
		now, err := netlab.TCPInfo(peer)
		if err != nil {
			return 0, err
		}
		acked = now.Bytes_acked - before.Bytes_acked
	}
	return acked, nil
}
