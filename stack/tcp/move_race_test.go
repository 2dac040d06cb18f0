package tcp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// A nomad is a connection that is moved while it is read from and written to:
// a Read or Write that fails because its connection has left is tried again on
// the one that came after it. It implements net.Conn as far as the tests here
// need it.
type nomad struct {
	ctx context.Context
	net.Conn

	mu    sync.Mutex
	ep    *tcp.Endpoint
	conn  net.Conn
	moved chan struct{} // closed when conn is another

	// Each is sent to when something was read or written, so that who waits for
	// it is no faster than the streams are. Capacity 1.
	progress [2]chan struct{}
}

func newNomad(ctx context.Context, c net.Conn, ep *tcp.Endpoint) *nomad {
	return &nomad{
		ctx: ctx, ep: ep, conn: c, moved: make(chan struct{}),
		progress: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)},
	}
}

func (n *nomad) progressed() {
	for _, p := range n.progress {
		select {
		case p <- struct{}{}:
		default:
		}
	}
}

func (n *nomad) now() (*tcp.Endpoint, net.Conn, chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ep, n.conn, n.moved
}

func (n *nomad) SetReadDeadline(time.Time) error { return nil }

func (n *nomad) Read(b []byte) (int, error) {
	for {
		_, c, moved := n.now()
		k, err := c.Read(b)
		if k > 0 {
			n.progressed()
			return k, nil
		}
		if err := n.await(moved, err); err != nil {
			return 0, err
		}
	}
}

func (n *nomad) Write(b []byte) (done int, err error) {
	for done < len(b) {
		_, c, moved := n.now()
		k, err := c.Write(b[done:])
		done += k
		n.progressed()
		if err != nil {
			if err := n.await(moved, err); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

func (n *nomad) await(moved chan struct{}, err error) error {
	select {
	case <-moved:
		return nil
	case <-n.ctx.Done():
		return fmt.Errorf("not moved on after %w", err)
	}
}

// move carries the connection to its own stack once.
func (n *nomad) move(to *tcp.RepairFactory, r *rand.Rand) error {
	ep, _, moved := n.now()
	snap, err := repair.Checkpoint(ep.Repair())
	if err != nil {
		return err
	}
	defer snap.Release()
	if _, err := to.Restore(snap); !errors.Is(err, repair.ErrAddrInUse) {
		return fmt.Errorf("restored beside itself: %w", err)
	}
	if r.IntN(4) == 0 {
		return repair.Resume(ep.Repair(), repair.Off) // it stays
	}
	ep.Close()
	if r.IntN(2) == 0 {
		if held, err := to.Reserve(snap.Flow(), r.IntN(100_000), time.Minute); err == nil && r.IntN(2) == 0 {
			held.Cancel()
		}
	}
	s, err := repair.Restore(to, snap)
	if err != nil {
		return err
	}
	if r.IntN(2) == 0 {
		s.SetRepair(repair.On) // as it is
	}
	next := s.(*tcp.RepairSocket)
	n.mu.Lock()
	n.ep, n.conn, n.moved = next.Endpoint(), gonet.NewTCPConn(next.WaiterQueue(), next.Endpoint()), make(chan struct{})
	n.mu.Unlock()
	close(moved)
	return repair.Resume(s, []repair.Mode{repair.Off, repair.OffNoProbe}[r.IntN(2)])
}

// Connections are moved at once, each while it is read from, written to and
// looked at, segments keep coming, and others meddle with their places. Both
// streams are whole, and nothing is reset.
func TestMovesAtOnce(t *testing.T) {
	const size = 3 << 20
	s := pair(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	factory := &tcp.RepairFactory{Stack: s[0]}
	stop := make(chan struct{})
	var streams, others sync.WaitGroup
	var moves atomic.Int64
	for i := range 4 {
		f := families[i%2]
		client, server := connect(t, s, f, uint16(80+i))
		n := newNomad(ctx, client, endpointOf(t, s[0], client))
		t.Cleanup(func() {
			_, c, _ := n.now()
			c.Close()
		})
		for _, way := range [][2]net.Conn{{n, server}, {server, n}} {
			streams.Go(func() {
				if _, err := io.CopyN(way[0], &pattern{}, size); err != nil {
					t.Errorf("connection %d: writing: %v", i, err)
				}
			})
			streams.Go(func() {
				if err := check(way[1], size); err != nil {
					t.Errorf("connection %d: reading: %v", i, err)
				}
			})
		}
		others.Go(func() {
			for r := rand.New(rand.NewPCG(uint64(i), 1)); ; {
				select {
				case <-stop:
					return
				case <-n.progress[0]:
				}
				if err := n.move(factory, r); err != nil {
					t.Errorf("connection %d: moving: %v", i, err)
					return
				}
				moves.Add(1)
			}
		})
		others.Go(func() {
			for r := rand.New(rand.NewPCG(uint64(i), 2)); ; {
				select {
				case <-stop:
					return
				case <-n.progress[1]:
				}
				n.meddle(factory, r)
			}
		})
	}
	streams.Wait()
	close(stop)
	others.Wait()
	if n := moves.Load(); n < 10 {
		t.Errorf("only %d moves", n)
	}
	for i := range s {
		if n := s[i].Stats().TCP.ResetsSent.Value(); n != 0 {
			t.Errorf("host %d sent %d resets", i, n)
		}
	}
}

// meddle does what others may do to a connection that is being moved.
func (n *nomad) meddle(to *tcp.RepairFactory, r *rand.Rand) {
	ep, _, _ := n.now()
	switch r.IntN(5) {
	case 0:
		local, remote, err := ep.Repair().Addrs()
		if err != nil || !remote.IsValid() {
			return
		}
		held, err := to.Reserve(repair.Flow{Local: local, Remote: remote}, r.IntN(10_000), time.Duration(1+r.IntN(1000))*time.Microsecond)
		if err == nil && r.IntN(2) == 0 {
			held.Segments()
			held.Cancel()
		}
	case 1:
		ep.ConnInfo()
		ep.Drops()
		ep.Frozen()
	case 2:
		ep.Repair().Window()
		ep.Repair().QueueSeq(repair.RecvQueue)
		ep.Repair().Peek(repair.SendQueue, make([]byte, 100))
	case 3:
		ep.SetRepair(repair.On + 77) // which is no mode
		ep.Repair().Queued()
	case 4:
		tcp.Endpoints(to.Stack)
	}
}
