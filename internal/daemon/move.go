package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"

	"github.com/tcprepair/ustack/stack/repair"
)

// maxSnapshot bounds a snapshot that is brought to the daemon, in bytes.
const maxSnapshot = 256 << 20

// frozenHeader says of a snapshot whether its connection was frozen already
// when it was asked for: "true" or "false".
const frozenHeader = "Ustack-Was-Frozen"

// postCheckpoint freezes a connection and answers with its snapshot. The
// connection then stays frozen, and the caller thaws or buries it. Where the
// answer does not get through there is no snapshot, and the connection is as it
// was before.
func (c *controller) postCheckpoint(w http.ResponseWriter, r *http.Request) {
	id, err := connID(r)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	before, err := c.conn(id)
	if err != nil {
		fail(w, repairStatus(err), err)
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
	w.Header().Set(frozenHeader, strconv.FormatBool(before.Frozen))
	_, err = snap.WriteTo(w)
	if err == nil {
		err = http.NewResponseController(w).Flush()
	}
	if err != nil {
		c.log.Warn("checkpoint", "conn", id, "error", err)
		if !before.Frozen {
			c.thaw(id)
		}
		// The status has gone out; a cut body is how HTTP tells of failure.
		panic(http.ErrAbortHandler)
	}
}

// thaw undoes a freeze that nobody knows of.
func (c *controller) thaw(id uint64) {
	if err := c.stack.SetRepair(id, repair.Off); err != nil {
		c.log.Warn("thawing", "conn", id, "error", err)
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
	place, err := c.adopter(snap.Local.Port())
	if err != nil {
		fail(w, http.StatusConflict, err)
		return
	}
	conn, err := c.stack.Restore(snap)
	if err != nil {
		place.giveUp()
		fail(w, http.StatusConflict, err)
		return
	}
	if err := conn.SetRepair(repair.Off); err != nil {
		place.giveUp()
		conn.Close()
		fail(w, http.StatusConflict, err)
		return
	}
	info := newConn(conn.Info())
	place.serve(conn)
	c.log.Info("restored", "conn", info.ID, "remote", info.Remote)
	reply(w, info)
}

// adoption is a place in a service that waits for a connection to be restored:
// one of serve and giveUp has to follow.
type adoption struct {
	listener *limiter
	server   server
}

// adopter finds the service that serves a local port, and a place in it. That
// there is none must be known before a connection is restored.
func (d *Daemon) adopter(port uint16) (*adoption, error) {
	for _, s := range d.services {
		if s.Port != port {
			continue
		}
		select {
		case s.listener.places <- struct{}{}:
			s.listener.active.Add(1)
			return &adoption{s.listener, s.server}, nil
		default:
			return nil, errors.New("the service has no place for another connection")
		}
	}
	return nil, fmt.Errorf("no service on port %d, which the connection's local end has", port)
}

func (a *adoption) serve(c duplex) {
	a.server.adopt(&limited{duplex: c, leave: sync.OnceFunc(a.listener.leave)})
}

func (a *adoption) giveUp() { a.listener.leave() }

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
