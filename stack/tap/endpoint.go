//go:build linux

package tap

import (
	"cmp"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// gsoMaxSize is the largest TCP packet, network header included, that is sent
// through the device in one piece: an IP packet's length has 16 bits.
const gsoMaxSize = 65535

var (
	_ stack.LinkEndpoint = (*Endpoint)(nil)
	_ stack.GSOEndpoint  = (*Endpoint)(nil)
)

// Endpoint is a TAP device as a stack.LinkEndpoint. Its methods may be called
// from any goroutine.
//
// It reads from the device while it is attached to a stack. Removing its NIC
// from the stack stops that and closes the endpoint; an endpoint that was never
// attached must be closed by whoever opened it.
type Endpoint struct {
	name     string
	offload  Offload
	log      *slog.Logger
	queues   []*queue // one or more; fixed
	counters counters
	mtu      atomic.Uint32
	address  atomic.Pointer[tcpip.LinkAddress]
	batcher  atomic.Pointer[batcher]
	spin     time.Duration

	trust trust
	// down is whether the last frame was refused because the device is down.
	down atomic.Bool

	mu       sync.Mutex // guards what follows
	attached *delivery  // the last one; nil: none yet
	closed   bool
	err      error
	onClose  func()
	done     chan struct{} // closed when the endpoint can carry no more frames
}

// Open creates the TAP device cfg.Name, or attaches to the existing one, which
// must be up. A device that it creates is brought up, and vanishes when the
// endpoint is closed. The error says in one line what is wrong: see ErrNoTUN
// and its siblings.
func Open(cfg Config) (*Endpoint, error) { return open(clonePath, cfg) }

// open is Open with the path of the clone device.
func open(path string, cfg Config) (*Endpoint, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	d, err := openDevice(path, &cfg)
	if err != nil {
		return nil, err
	}
	return newEndpoint(d, &cfg)
}

// Adopt makes an endpoint of a descriptor that is attached to a TAP device
// already, for instance one that was inherited. Like net.FileConn it works on a
// duplicate: fd remains the caller's, to close at any time, though it becomes
// non-blocking. cfg.Name may be left empty; otherwise it must be the device's.
// The device must be up, and may be in another network namespace.
func Adopt(fd int, cfg Config) (*Endpoint, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Queues > 1 {
		return nil, fmt.Errorf("tap %s: %w: descriptor %d is one", cfg.label(), ErrQueues, fd)
	}
	d, err := adoptDevice(fd, &cfg)
	if err != nil {
		return nil, err
	}
	return newEndpoint(d, &cfg)
}

// newEndpoint makes an endpoint of d and owns it.
func newEndpoint(d *device, cfg *Config) (*Endpoint, error) {
	address, err := cfg.address(d.address)
	if err != nil {
		d.close()
		return nil, err
	}
	queues, err := newQueues(d)
	if err != nil {
		return nil, err
	}
	e := &Endpoint{
		name:    d.name,
		offload: d.offload,
		log:     cfg.Logger,
		queues:  queues,
		spin:    cmp.Or(cfg.Spin, DefaultSpin),
		done:    make(chan struct{}),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.mtu.Store(d.mtu)
	e.SetLinkAddress(address)
	return e, nil
}

// Name is the device's name when it was opened.
func (e *Endpoint) Name() string { return e.name }

// Offload is what the kernel granted.
func (e *Endpoint) Offload() Offload { return e.offload }

// Stats reads the endpoint's counters.
func (e *Endpoint) Stats() Stats { return e.counters.snapshot() }

// Done is closed when the endpoint can carry no more frames: it was closed, or
// its device was removed. Err says which.
func (e *Endpoint) Done() <-chan struct{} { return e.done }

// Err is why the endpoint stopped: ErrGone when its device was removed, nil
// when it was closed or has not stopped.
func (e *Endpoint) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// MTU implements stack.LinkEndpoint. It does not count the Ethernet header.
func (e *Endpoint) MTU() uint32 { return e.mtu.Load() }

// SetMTU implements stack.LinkEndpoint. The device keeps its own.
func (e *Endpoint) SetMTU(mtu uint32) { e.mtu.Store(mtu) }

// MaxHeaderLength implements stack.LinkEndpoint. The virtio-net header is
// written from elsewhere and needs no room in the packet.
func (e *Endpoint) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// LinkAddress implements stack.LinkEndpoint.
func (e *Endpoint) LinkAddress() tcpip.LinkAddress { return *e.address.Load() }

// SetLinkAddress implements stack.LinkEndpoint.
func (e *Endpoint) SetLinkAddress(addr tcpip.LinkAddress) { e.address.Store(&addr) }

// Capabilities implements stack.LinkEndpoint.
//
// A stack asks for CapabilityRXChecksumOffload while it accepts a packet, once
// for each, and from the goroutine that delivers it: that is the only way for a
// link to vouch for a packet. So the answer is about the frames in delivery. It
// is yes for those that the kernel vouches for, and no for all others, such as
// fragments and frames that came from elsewhere through a bridge, which the
// stack then verifies itself; see trust.
//
// CapabilityTXChecksumOffload is left out: with it, packets without GSO options
// would come with no checksum at all, IP fragments among them, whose checksum
// nobody could complete. TCP leaves its checksum to the kernel all the same, by
// GSO options with NeedsCsum.
func (e *Endpoint) Capabilities() stack.LinkEndpointCapabilities {
	c := stack.LinkEndpointCapabilities(stack.CapabilityResolutionRequired)
	if e.trust.given() {
		c |= stack.CapabilityRXChecksumOffload
	}
	return c
}

// trust says whether the checksums of the frames that are being delivered need
// no verification. All of them at a time are alike: readers deliver what is
// trusted side by side, and what is not, which is rare, alone.
type trust struct {
	mu      sync.RWMutex
	doubted atomic.Bool
}

// begin is called before a frame is delivered, end after it.
func (t *trust) begin(trusted bool) {
	if trusted {
		t.mu.RLock()
		return
	}
	t.mu.Lock()
	t.doubted.Store(true)
}

func (t *trust) end(trusted bool) {
	if trusted {
		t.mu.RUnlock()
		return
	}
	t.doubted.Store(false)
	t.mu.Unlock()
}

func (t *trust) given() bool { return !t.doubted.Load() }

// queueFor is the queue that a flow's packets are sent by. The kernel sends those
// that come back by the same one.
func (e *Endpoint) queueFor(hash uint32) *queue { return e.queues[hash%uint32(len(e.queues))] }

// GSOMaxSize implements stack.GSOEndpoint.
func (e *Endpoint) GSOMaxSize() uint32 { return gsoMaxSize }

// SupportedGSO implements stack.GSOEndpoint.
func (e *Endpoint) SupportedGSO() stack.SupportedGSO {
	if e.offload.TSO {
		return stack.HostGSOSupported
	}
	return stack.GSONotSupported
}

// ARPHardwareType implements stack.LinkEndpoint.
func (e *Endpoint) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// AddHeader implements stack.LinkEndpoint.
func (e *Endpoint) AddHeader(pkt *stack.PacketBuffer) {
	src := pkt.EgressRoute.LocalLinkAddress
	if src == "" {
		src = e.LinkAddress()
	}
	header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize)).Encode(&header.EthernetFields{
		SrcAddr: src,
		DstAddr: pkt.EgressRoute.RemoteLinkAddress,
		Type:    pkt.NetworkProtocolNumber,
	})
}

// ParseHeader implements stack.LinkEndpoint.
func (e *Endpoint) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}
