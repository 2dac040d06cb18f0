package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

const (
	defaultSnap       = 256
	defaultMaxPackets = 100_000
)

// CaptureConfig describes a capture. Its zero value keeps the headers of the
// first 100,000 frames.
type CaptureConfig struct {
	// Snap is how many bytes of each frame are kept; 0 means 256.
	Snap int
	// MaxPackets is how many frames are kept in memory; later ones are only
	// counted (Missed). 0 means 100,000.
	MaxPackets int
	// EndsOnly records only TCP segments with FIN or RST. The kernel sorts them
	// out, so that none is missed however much else passes.
	EndsOnly bool
	// PCAP receives each frame in pcap format, if not nil. It is written to
	// from the capture's goroutine, up to Close.
	PCAP io.Writer
}

// onlyEnds passes Ethernet frames of TCP with FIN or RST, without IPv6 extension
// headers.
var onlyEnds = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IP, Jf: 5},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 14 + 9},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_TCP, Jf: 9},
	{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 14},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: 14 + 13},
	{Code: unix.BPF_JMP | unix.BPF_JA, K: 4},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IPV6, Jf: 5},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 14 + 6},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_TCP, Jf: 3},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 14 + 40 + 13},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 1 | 4, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// Captured is one frame seen at a device.
type Captured struct {
	// Time is when it was read from the kernel.
	Time time.Time
	// Out says that the kernel sent it through the device; else it came in.
	Out bool
	// Length is the frame's own length in bytes; super-frames count as one.
	Length int
	// Data is the beginning of the frame, up to CaptureConfig.Snap bytes.
	Data []byte
}

// TCP decodes the frame's TCP header, nil if it has none. The payload may be
// cut short; see PayloadLen.
func (c Captured) TCP() *layers.TCP {
	tcp, _ := c.decode().Layer(layers.LayerTypeTCP).(*layers.TCP)
	return tcp
}

// PayloadLen is how many bytes of TCP payload the frame carries by its
// headers, 0 where it is not TCP.
func (c Captured) PayloadLen() int {
	p := c.decode()
	tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ok {
		return 0
	}
	header := int(tcp.DataOffset) * 4
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		return max(0, int(ip.Length)-int(ip.IHL)*4-header)
	case *layers.IPv6:
		return max(0, int(ip.Length)-header)
	}
	return 0
}

// Packet decodes the whole frame.
func (c Captured) Packet() gopacket.Packet { return c.decode() }

func (c Captured) decode() gopacket.Packet {
	return gopacket.NewPacket(c.Data, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
}

// Capture records what passes a device, both ways. Its methods are safe for
// concurrent use.
type Capture struct {
	name string
	file *os.File
	// As in CaptureConfig.
	snap, limit int
	endsOnly    bool

	close func() error

	mu      sync.Mutex
	buf     []byte
	packets []Captured
	missed  int
	changed chan struct{} // closed and replaced when packets grows
	pcap    *pcapgo.Writer
	err     error
}

// Capture starts to record at a device of the namespace. The lab ends it if the
// caller does not.
func (ns *Namespace) Capture(device string, cfg CaptureConfig) (*Capture, error) {
	fd, err := ns.packetSocket(device, false)
	if err != nil {
		return nil, err
	}
	if cfg.EndsOnly {
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(onlyEnds)), Filter: &onlyEnds[0]}); err != nil {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("netlab: capture at %s: SO_ATTACH_FILTER: %w", device, err)
		}
	}
	if err := bindPacket(fd, device, ns); err != nil {
		return nil, err
	}
	name := ns.Name + "/" + device
	c := &Capture{name: name, file: os.NewFile(uintptr(fd), name), snap: cfg.Snap, limit: cfg.MaxPackets, endsOnly: cfg.EndsOnly,
		changed: make(chan struct{})}
	if c.snap == 0 {
		c.snap = defaultSnap
	}
	if c.limit == 0 {
		c.limit = defaultMaxPackets
	}
	c.buf = make([]byte, c.snap)
	if cfg.PCAP != nil {
		c.pcap = pcapgo.NewWriter(cfg.PCAP)
		if err := c.pcap.WriteFileHeader(uint32(c.snap), layers.LinkTypeEthernet); err != nil {
			_ = c.file.Close()
			return nil, fmt.Errorf("netlab: capture at %s: %w", name, err)
		}
	}
	var wg sync.WaitGroup
	c.close = sync.OnceValue(func() error {
		c.drain() // what is in the socket still counts
		err := c.file.Close()
		wg.Wait()
		return errors.Join(err, c.err)
	})
	wg.Go(c.run)
	return c, ns.lab.own(c)
}

// Close ends the capture; what it has recorded stays. It reports a failure of
// the pcap writer.
func (c *Capture) Close() error { return c.close() }

// Packets returns the frames recorded so far, everything included that passed
// the device before the call. The frames must not be changed.
func (c *Capture) Packets() []Captured {
	c.drain()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.packets[:len(c.packets):len(c.packets)]
}

// Missed is how many frames were not kept: past MaxPackets, or dropped by the
// kernel since they came too fast.
func (c *Capture) Missed() int {
	c.drain()
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = withFD(c.file, func(fd int) error {
		// Reading the kernel's count resets it.
		stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err == nil {
			c.missed += int(stats.Drops)
		}
		return err
	})
	return c.missed
}

// Count tells how many recorded frames fulfil the condition.
func (c *Capture) Count(condition func(Captured) bool) int {
	n := 0
	for _, p := range c.Packets() {
		if condition(p) {
			n++
		}
	}
	return n
}

// WaitFor waits until a frame fulfils the condition and returns the first one
// that does. Every frame is asked about once, in order.
func (c *Capture) WaitFor(ctx context.Context, condition func(Captured) bool) (Captured, error) {
	for next := 0; ; {
		c.mu.Lock()
		packets, changed := c.packets, c.changed
		c.mu.Unlock()
		for ; next < len(packets); next++ {
			if condition(packets[next]) {
				return packets[next], nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Captured{}, fmt.Errorf("netlab: capture at %s: none of %d frames matched: %w", c.name, next, ctx.Err())
		}
	}
}

// run records until the capture is closed.
func (c *Capture) run() {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return
	}
	// Read parks the goroutine whenever the function says it is not done.
	_ = raw.Read(func(fd uintptr) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.receive(int(fd))
		return false
	})
}

// drain records what lies in the socket. Several may do so in turn, each under
// the lock, so order is kept.
func (c *Capture) drain() {
	// Fails when the capture is closed: then nothing is left.
	_ = withFD(c.file, func(fd int) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.receive(fd)
		return nil
	})
}

// receive reads until the socket is empty. The caller holds the lock.
func (c *Capture) receive(fd int) {
	before := len(c.packets)
	for {
		n, from, err := unix.Recvfrom(fd, c.buf, unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		if err == unix.EINTR || err == unix.ENETDOWN {
			continue
		}
		if err != nil {
			break
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		c.record(Captured{
			Time:   time.Now(),
			Out:    ok && ll.Pkttype == unix.PACKET_OUTGOING,
			Length: n,
			Data:   c.buf[:min(n, len(c.buf))],
		})
	}
	if len(c.packets) > before {
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

func (c *Capture) record(p Captured) {
	if c.pcap != nil && c.err == nil {
		info := gopacket.CaptureInfo{Timestamp: p.Time, CaptureLength: len(p.Data), Length: p.Length}
		c.err = c.pcap.WritePacket(info, p.Data)
	}
	if len(c.packets) >= c.limit {
		c.missed++
		return
	}
	p.Data = append([]byte(nil), p.Data...)
	c.packets = append(c.packets, p)
}
