package netsim

import (
	"fmt"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/internal/netlab/impair"
)

// DefaultMTU is a link's where its Config does not say.
const DefaultMTU = 1500

// Bounds of an MTU: what any IPv4 host must take, and the longest packet.
const minMTU, maxMTU = 68, 65535

// Config is what a link is like.
type Config struct {
	// AB is what happens to packets from the first host to the second, BA to
	// those the other way.
	AB, BA impair.Config
	// MTU is the largest IP packet in bytes; 0 means DefaultMTU.
	MTU int
}

// Both returns the Config of a link that is the same both ways.
func Both(c impair.Config) Config { return Config{AB: c, BA: c} }

// Link joins two hosts.
type Link struct {
	// Tap, if set, sees each packet as it is put on the link and what becomes
	// of it.
	Tap func(Packet)

	net    *Net
	number int
	ab, ba pipe
}

// Packet is a packet as a Tap sees it.
type Packet struct {
	Sent  time.Duration // since the simulation began
	AB    bool          // from the first host to the second
	Cause impair.Cause
	// Arrives lists its copies. It and Bytes, the packet from the IP header
	// on, are valid during the call only.
	Arrives []impair.Delivery
	Bytes   []byte
}

// Connect joins two hosts by a link.
func (n *Net) Connect(a, b *Host, cfg Config) (*Link, error) {
	if cfg.MTU == 0 {
		cfg.MTU = DefaultMTU
	}
	const maxLinks = 1 << 14 // in the network that addresses are taken from
	if len(n.links) == maxLinks {
		return nil, fmt.Errorf("netsim: more than %d links", maxLinks)
	}
	l := &Link{net: n, number: len(n.links)}
	endA := &linkEnd{out: &l.ab, mtu: cfg.MTU}
	endB := &linkEnd{out: &l.ba, mtu: cfg.MTU}
	if err := l.ab.init(l, endB, true, cfg.AB); err != nil {
		return nil, err
	}
	if err := l.ba.init(l, endA, false, cfg.BA); err != nil {
		return nil, err
	}
	if err := l.SetMTU(cfg.MTU); err != nil {
		return nil, err
	}
	if err := a.attach(endA, l.A()); err != nil {
		return nil, err
	}
	if err := b.attach(endB, l.B()); err != nil {
		return nil, err
	}
	n.links = append(n.links, l)
	return l, nil
}

// A is the first host's address on the link.
func (l *Link) A() tcpip.Address { return l.addr(1) }

// B is the second host's address on the link.
func (l *Link) B() tcpip.Address { return l.addr(2) }

// addr counts off networks of four addresses.
func (l *Link) addr(host int) tcpip.Address {
	i := l.number*4 + host
	return tcpip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
}

// Set changes what happens to packets from now on.
func (l *Link) Set(ab, ba impair.Config) error {
	if err := l.ab.set(ab); err != nil {
		return err
	}
	return l.ba.set(ba)
}

// SetMTU changes the largest packet that passes. The hosts are not told: what
// is larger disappears.
func (l *Link) SetMTU(mtu int) error {
	if mtu < minMTU || mtu > maxMTU {
		return fmt.Errorf("netsim: MTU is %d, want %d to %d", mtu, minMTU, maxMTU)
	}
	l.ab.setMTU(mtu)
	l.ba.setMTU(mtu)
	return nil
}

// Blackout loses whatever is put on the link within d from now.
func (l *Link) Blackout(d time.Duration) {
	end := l.net.Now() + d
	l.ab.blackout(end)
	l.ba.blackout(end)
}

// cut empties the link and loses everything for good.
func (l *Link) cut() {
	l.ab.cut()
	l.ba.cut()
}
