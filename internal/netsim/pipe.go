package netsim

import (
	"math"
	"slices"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/internal/netlab/impair"
)

// pipe is one direction of a link. One timer of the clock, set to the next
// arrival, drives it.
type pipe struct {
	link *Link
	to   *linkEnd
	ab   bool

	mu      sync.Mutex // stacks with goroutines send from these
	im      *impair.Impairer
	mtu     int
	dark    time.Duration // a blackout lasts until then
	timer   tcpip.Timer
	transit []arrival // in order of arrival
}

// arrival is a packet on its way.
type arrival struct {
	at  time.Duration
	pkt buffer.Buffer
}

// seedStep keeps the seeds of a network's pipes apart from one another and
// from those of its neighbours.
const seedStep = 0x9e3779b97f4a7c15

func (p *pipe) init(l *Link, to *linkEnd, ab bool, cfg impair.Config) (err error) {
	stream := uint64(l.number)*2 + 1
	if ab {
		stream++
	}
	p.link, p.to, p.ab = l, to, ab
	p.im, err = impair.New(cfg, l.net.seed^stream*seedStep)
	return err
}

func (p *pipe) set(cfg impair.Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.im.SetConfig(cfg)
}

func (p *pipe) setMTU(mtu int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mtu = mtu
}

func (p *pipe) blackout(end time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dark = max(p.dark, end)
}

func (p *pipe) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dark = math.MaxInt64
	for i := range p.transit {
		p.transit[i].pkt.Release()
	}
	p.transit = nil
	if p.timer != nil {
		p.timer.Stop()
	}
}

// send puts a packet on the link. The caller keeps it.
func (p *pipe) send(pkt *stack.PacketBuffer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, size := p.link.net.Now(), pkt.Size()
	v := p.decide(now, size)
	if p.link.Tap != nil {
		b := pkt.ToView()
		p.link.Tap(Packet{Sent: now, AB: p.ab, Cause: v.Cause, Arrives: v.Deliveries(), Bytes: b.AsSlice()})
		b.Release()
	}
	for _, d := range v.Deliveries() {
		a := arrival{at: d.At, pkt: pkt.ToBuffer()}
		if d.Flip != impair.NoFlip {
			b := a.pkt.Flatten()
			a.pkt.Release()
			d.Damage(b)
			a.pkt = buffer.MakeWithData(b)
		}
		p.enqueue(now, a)
	}
}

func (p *pipe) decide(now time.Duration, size int) impair.Verdict {
	if now < p.dark || size > p.mtu {
		return impair.Verdict{Cause: impair.Lost}
	}
	return p.im.Decide(now, size)
}

// enqueue keeps the packets in transit in order. It is the last to arrive but
// for those that were held back.
func (p *pipe) enqueue(now time.Duration, a arrival) {
	i := len(p.transit)
	for i > 0 && p.transit[i-1].at > a.at {
		i--
	}
	p.transit = slices.Insert(p.transit, i, a)
	if i == 0 {
		p.arm(now)
	}
}

func (p *pipe) arm(now time.Duration) {
	wait := p.transit[0].at - now
	if p.timer == nil {
		p.timer = p.link.net.clock.AfterFunc(wait, p.deliver)
		return
	}
	p.timer.Reset(wait)
}

// deliver hands what has arrived to the host.
func (p *pipe) deliver() {
	for {
		p.mu.Lock()
		if len(p.transit) == 0 {
			p.mu.Unlock()
			return
		}
		if now := p.link.net.Now(); p.transit[0].at > now {
			p.arm(now)
			p.mu.Unlock()
			return
		}
		a := p.transit[0]
		p.transit[0] = arrival{}
		p.transit = p.transit[1:]
		p.mu.Unlock()
		p.to.receive(a.pkt)
	}
}
