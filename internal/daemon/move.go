package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/tcprepair/ustack/stack/repair"
)

// maxSnapshot bounds a snapshot that is brought to the daemon, in bytes.
const maxSnapshot = 256 << 20

// postCheckpoint freezes a connection and answers with its snapshot. The
// connection stays frozen, so that nothing is lost whatever becomes of the
// answer: the caller then thaws or buries it.
func (c *controller) postCheckpoint(w http.ResponseWriter, r *http.Request) {
	id, err := connID(r)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	snap, err := c.stack.Checkpoint(id)
	if err != nil {
		fail(w, repairStatus(err), err)
		return
	}
	defer snap.Release()
	c.log.Info("checkpoint", "conn", id, "remote", snap.Remote)
	w.Header().Set("Content-Type", snapshotType)
	if _, err := snap.WriteTo(w); err != nil {
		// The status has gone out; a cut body is how HTTP tells of failure.
		c.log.Warn("checkpoint", "conn", id, "error", err)
		panic(http.ErrAbortHandler)
	}
}

const snapshotType = "application/octet-stream"

// postBury ends a frozen connection that has been carried away: nothing is
// said to the peer, and what it still sends is swallowed for a while.
func (c *controller) postBury(w http.ResponseWriter, r *http.Request) {
	id, err := connID(r)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	if err := c.stack.Bury(id); err != nil {
		fail(w, repairStatus(err), err)
		return
	}
	c.log.Info("buried", "conn", id)
	reply(w, struct{}{})
}

// postRestore sets a connection down, thaws it, and gives it to the service on
// its local port.
func (c *controller) postRestore(w http.ResponseWriter, r *http.Request) {
	snap, err := repair.Read(http.MaxBytesReader(w, r.Body, maxSnapshot), repair.Limits{})
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	serve, err := c.adopter(snap.Local.Port())
	if err != nil {
		fail(w, http.StatusConflict, err)
		return
	}
	conn, err := c.stack.Restore(snap)
	if err != nil {
		fail(w, http.StatusConflict, err)
		return
	}
	if err := conn.SetRepair(repair.Off); err != nil {
		conn.Close()
		fail(w, http.StatusConflict, err)
		return
	}
	info := newConn(conn.Info())
	if err := serve(conn); err != nil {
		conn.Close()
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	c.log.Info("restored", "conn", info.ID, "remote", info.Remote)
	reply(w, info)
}

// adopter finds the service that serves a local port, and returns what gives
// it a connection.
func (d *Daemon) adopter(port uint16) (func(duplex) error, error) {
	for _, s := range d.services {
		if s.Port == port {
			return func(c duplex) error {
				held, err := s.listener.admit(c)
				if err != nil {
					return err
				}
				s.server.adopt(held)
				return nil
			}, nil
		}
	}
	return nil, fmt.Errorf("no service on port %d, which the connection's local end has", port)
}

// admit gives a connection that was not accepted a place, if there is one.
func (l *limiter) admit(c duplex) (duplex, error) {
	select {
	case l.places <- struct{}{}:
	default:
		return nil, errors.New("the service has no place for another connection")
	}
	l.active.Add(1)
	return &limited{duplex: c, leave: sync.OnceFunc(l.leave)}, nil
}

func (s *streamServer) adopt(c duplex) { s.conns.Go(func() { s.run(c) }) }

func (s *fileServer) adopt(c duplex) { go s.http.Serve(&single{conn: c, addr: c.LocalAddr()}) }

// single is a listener that one connection comes from.
type single struct {
	conn net.Conn
	addr net.Addr
}

// Accept implements net.Listener.
func (l *single) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (l *single) Close() error { return nil }

// Addr implements net.Listener.
func (l *single) Addr() net.Addr { return l.addr }
