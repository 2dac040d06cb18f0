package netsim_test

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	gvisor "gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/tcprepair/ustack/internal/netlab/impair"
	"github.com/tcprepair/ustack/internal/netsim"
	"github.com/tcprepair/ustack/stack/tcp"
)

// A kind is one of the two TCPs that are compared.
type kind struct {
	name    string
	factory stack.TransportProtocolFactory
	threads bool // it runs on goroutines of its own
	setup   func(*netsim.Host) error
}

var (
	ours   = kind{name: "ours", factory: tcp.NewProtocol}
	theirs = kind{name: "gvisor", factory: gvisor.NewProtocol, threads: true}
)

// path is the bottleneck between two hosts.
type path struct {
	mbps   float64
	rtt    time.Duration
	buffer float64 // of the bottleneck's queue, in bandwidth-delay products
	loss   float64 // share of packets, each way
}

func (p path) config() netsim.Config {
	rate := int64(p.mbps * 1e6)
	c := impair.Config{Rate: rate, Delay: p.rtt / 2, Loss: p.loss}
	c.Queue = int(p.buffer * float64(rate) / 8 * p.rtt.Seconds())
	back := c
	back.Queue = 0 // acknowledgements never fill the default
	return netsim.Config{AB: c, BA: back}
}

// arena is two hosts of a kind on a path.
type arena struct {
	*netsim.Net
	a, b    *netsim.Host
	link    *netsim.Link
	restore func()
}

// newArena makes an arena whose hosts use the named congestion control. Close it.
func newArena(k kind, cc string, p path, seed uint64) (*arena, error) {
	n := netsim.New(seed)
	w := &arena{Net: n, restore: func() {}}
	if k.threads {
		w.restore = oneProcessor()
		n.Rest = rest
	}
	w.a, w.b = n.NewHost(k.factory), n.NewHost(k.factory)
	for _, h := range []*netsim.Host{w.a, w.b} {
		if k.setup != nil {
			if err := k.setup(h); err != nil {
				w.Close()
				return nil, err
			}
		}
		o := tcpip.CongestionControlOption(cc)
		if err := h.Stack().SetTransportProtocolOption(tcp.ProtocolNumber, &o); err != nil {
			w.Close()
			return nil, fmt.Errorf("%s: congestion control %q: %s", k.name, cc, err)
		}
	}
	var err error
	if w.link, err = n.Connect(w.a, w.b, p.config()); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// Close ends the hosts.
func (w *arena) Close() {
	w.Net.Close()
	w.restore()
}

// oneProcessor has all goroutines share one processor, so that rest works and
// as little as possible is left to chance. It returns how to undo it.
func oneProcessor() (undo func()) {
	was := runtime.GOMAXPROCS(1)
	return func() { runtime.GOMAXPROCS(was) }
}

// rest lets the goroutines that can run do so until they wait. With a single
// processor one that yields comes after all that were ready, and after those
// that these made ready; the repetitions are for goroutines that were
// interrupted in the middle.
func rest() {
	for range 3 {
		runtime.Gosched()
	}
}

// bulk starts a flow that sends without end.
func (w *arena) bulk(port uint16) (*netsim.Bulk, error) {
	return w.StartBulk(w.link, w.a, w.b, port, netsim.Endless)
}

// deliver runs the network until f has delivered n bytes more, and returns how
// long that took. It gives up after limit.
func (w *arena) deliver(f *netsim.Bulk, n int64, limit time.Duration) (time.Duration, int64, error) {
	from, begin := f.Received(), w.Now()
	w.RunUntil(limit, func() bool { return f.Received()-from >= n || f.Err() != nil })
	return w.Now() - begin, f.Received() - from, f.Err()
}

// cell is one row of goodput.csv.
type cell struct {
	path
	cc       string
	segments int64 // to be delivered while it is measured
}

// Losses of the goodput table in percent, with how many segments are delivered
// to measure a cell: at higher losses fewer tell as much.
var losses = []struct {
	percent  float64
	segments int64
}{{0, 60_000}, {0.1, 80_000}, {1, 50_000}, {3, 25_000}, {10, 10_000}}

// Round trips of the goodput table in milliseconds, with the rate of the link
// in Mbit/s: 10, but for the shortest, where a bandwidth-delay product of that
// would not be a single packet.
var trips = []struct{ rtt, mbps float64 }{{1, 100}, {20, 10}, {100, 10}, {300, 10}}

// cells lists the rows of goodput.csv.
func cells() (list []cell) {
	for _, l := range losses {
		for _, t := range trips {
			for _, buffer := range []float64{0.25, 1, 4} {
				for _, cc := range []string{"reno", "cubic"} {
					rtt := time.Duration(t.rtt * float64(time.Millisecond))
					list = append(list, cell{path{t.mbps, rtt, buffer, l.percent / 100}, cc, l.segments})
				}
			}
		}
	}
	return list
}

// segment is the payload of a full segment.
const segment = 1448

// cellSeed is the seed of every cell.
const cellSeed = 1

// goodput measures a cell in Mbit/s: bytes that the receiver read, of a long
// flow after its start.
func (c cell) goodput(k kind) (float64, error) {
	w, err := newArena(k, c.cc, c.path, cellSeed)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	f, err := w.bulk(5001)
	if err != nil {
		return 0, err
	}
	n := c.segments * segment
	const limit = 12 * time.Hour
	if _, _, err := w.deliver(f, n/10, limit); err != nil {
		return 0, err
	}
	took, got, err := w.deliver(f, n, limit)
	return float64(got) * 8 / took.Seconds() / 1e6, err
}

// key is the row's first four columns.
func (c cell) key() []string {
	return []string{number(c.loss * 100), number(float64(c.rtt) / float64(time.Millisecond)), number(c.buffer), c.cc}
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// median returns the middle, measure by measure, of what the runs of f give.
func median(runs int, f func() ([]float64, error)) ([]float64, error) {
	var all [][]float64
	for range runs {
		v, err := f()
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	middle := make([]float64, len(all[0]))
	for i := range middle {
		var v []float64
		for _, run := range all {
			v = append(v, run[i])
		}
		slices.Sort(v)
		middle[i] = v[runs/2]
	}
	return middle, nil
}
