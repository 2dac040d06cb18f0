package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack/repair"
)

const (
	// Between two moves the connection lives for so long at least, and until so
	// many bytes have come through both ways.
	liveFor   = 5 * time.Millisecond
	liveBytes = 128 << 10
	// stuckAfter is far more than the peer's retransmission timeout.
	stuckAfter = 20 * time.Second
)

// country is where connections travel: a peer, and inns that share their
// addresses behind a switch.
type country struct {
	lab     *netlab.Lab
	cluster *netlab.Cluster
	capture *netlab.Capture // of FINs and RSTs, at the peer
	inns    []inn           // in the order of the switch: kernels first
}

func newCountry(kernels, stacks int) (_ *country, err error) {
	lab, err := netlab.Open()
	if err != nil {
		return nil, err
	}
	c := &country{lab: lab}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.cluster, err = lab.Cluster(netlab.Link{}, kernels, stacks); err != nil {
		return nil, err
	}
	c.capture, err = c.cluster.Peer.Capture(c.cluster.PeerDevice.Name, netlab.CaptureConfig{EndsOnly: true})
	if err != nil {
		return nil, err
	}
	if err := tuneKernel(c.cluster.Peer); err != nil {
		return nil, err
	}
	for _, h := range c.cluster.Hosts {
		if h.TAP == nil {
			if err := tuneKernel(h.Kernel); err != nil {
				return nil, err
			}
			c.inns = append(c.inns, newKernelInn(h.Kernel))
			continue
		}
		u, err := newUstackInn(h.TAP)
		if err != nil {
			return nil, err
		}
		c.inns = append(c.inns, u)
	}
	return c, nil
}

// tuneKernel bounds the buffers, which on some machines grow to tens of
// megabytes: the demo is about moves and not about copying, and without root a
// kernel takes no more at once than a few hundred kilobytes.
func tuneKernel(ns *netlab.Namespace) error {
	return errors.Join(
		ns.SetSysctl("net.ipv4.tcp_rmem", "4096 131072 1048576"),
		ns.SetSysctl("net.ipv4.tcp_wmem", fmt.Sprint("4096 16384 ", sendBuffer)))
}

// sendBuffer is the largest send buffer, of kernels and ustacks.
const sendBuffer = 256 << 10

func (c *country) close() {
	for _, i := range c.inns {
		_ = i.close() // the demo has its result
	}
	c.lab.Close()
}

// trip is a connection that travels, and its two parties.
type trip struct {
	*country
	at      int // the inn where it is
	guest   guest
	peer    *net.TCPConn
	atPeer  *party
	here    *party
	talking chan error // the peer's end, done
	took    []time.Duration
	before  int // resets on the wire before it departed
	rst     int // resets while it was under way, up to the end of both streams
}

// depart opens a connection from the peer to an inn, by the family that the
// index means in netlab's addresses.
func (c *country) depart(ctx context.Context, family, from int) (*trip, error) {
	t := &trip{country: c, at: from, atPeer: newParty("peer"), here: newParty("host"), talking: make(chan error, 1), before: c.resets()}
	c.cluster.Switch.Move(from)
	dial := func(to netip.AddrPort) (err error) {
		t.peer, err = c.cluster.Peer.DialTCP(ctx, to)
		return err
	}
	var err error
	t.guest, err = c.inns[from].accept(dial, netlab.PeerAddresses[family].Addr())
	if err != nil {
		return nil, err
	}
	go func() { t.talking <- t.atPeer.talk(t.peer) }()
	return t, nil
}

// live lets the two talk for a while.
func (t *trip) live() error {
	sent, received := t.here.out.sent.Load(), t.here.in.received.Load()
	if err := t.here.talkFor(t.guest.conn(), liveBytes, liveFor, stuckAfter); err != nil {
		return err
	}
	if out, in := t.here.out.sent.Load()-sent, t.here.in.received.Load()-received; min(out, in) < liveBytes {
		return fmt.Errorf("stuck: after %v the connection has sent %d bytes and received %d", stuckAfter, out, in)
	}
	return nil
}

// move takes the connection to another inn. What the peer sends goes there
// first, and is held; then the connection follows.
func (t *trip) move(to int) error {
	local := t.guest.conn().LocalAddr().(*net.TCPAddr).AddrPort()
	remote := t.guest.conn().RemoteAddr().(*net.TCPAddr).AddrPort()
	place, err := t.inns[to].reserve(repair.Flow{Local: local, Remote: remote})
	if err != nil {
		return err
	}
	defer place.Cancel()
	t.cluster.Switch.Move(to)
	start := time.Now()
	snap, err := t.guest.checkpoint()
	if err != nil {
		return err
	}
	next, err := t.inns[to].restore(snap)
	if err != nil {
		return err
	}
	if err := errors.Join(t.guest.leave(), next.resume()); err != nil {
		return err
	}
	t.took = append(t.took, time.Since(start))
	t.guest, t.at = next, to
	snap.Release()
	return nil
}

// arrive ends both streams and verifies them.
func (t *trip) arrive() error {
	t.here.out.enough.Store(true)
	t.atPeer.out.enough.Store(true)
	end := time.Now().Add(stuckAfter)
	if err := errors.Join(t.guest.conn().SetDeadline(end), t.peer.SetDeadline(end)); err != nil {
		return err
	}
	if err := errors.Join(t.here.talk(t.guest.conn()), <-t.talking); err != nil {
		return err
	}
	t.rst = t.resets() - t.before
	switch {
	case !t.here.in.ended || !t.atPeer.in.ended:
		return errors.New("a stream did not come to its end")
	case !same(t.here.out, t.atPeer.in):
		return errors.New("what the peer has received is not what was sent")
	case !same(t.atPeer.out, t.here.in):
		return errors.New("what has been received is not what the peer sent")
	}
	return nil
}

// close gives the connection up, if there is still one.
func (t *trip) close() {
	past := time.Unix(1, 0)
	_, _ = t.peer.SetDeadline(past), t.peer.Close()
	_ = t.guest.leave()
}

// travel moves a connection along a ring of inns, as often as told, under load
// both ways. It reports each move.
func (c *country) travel(ctx context.Context, family int, ring []int, moves int, moved func(int, *trip)) (*trip, error) {
	t, err := c.depart(ctx, family, ring[0])
	if err != nil {
		return nil, err
	}
	defer t.close()
	for i := range moves {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		to := ring[(i+1)%len(ring)]
		err := t.live()
		if err == nil {
			err = t.move(to)
		}
		if err != nil {
			return nil, fmt.Errorf("move %d, %v to %v: %w", i+1, c.inns[t.at], c.inns[to], err)
		}
		moved(i+1, t)
	}
	return t, t.arrive()
}
