package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/repair"
)

// controller answers the control socket.
type controller struct {
	stack  *stack.Stack
	status func() Status
	// adopter finds the service of a port, and a place in it for one of its
	// connections.
	adopter func(port uint16) (*adoption, error)
	log     *slog.Logger
}

// newControlServer makes the HTTP server for the control socket.
func newControlServer(c *controller) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", c.getStatus)
	mux.HandleFunc("GET /v1/conns", c.getConns)
	mux.HandleFunc("POST /v1/conns/{id}/repair", c.postRepair)
	mux.HandleFunc("POST /v1/conns/{id}/checkpoint", c.postCheckpoint)
	mux.HandleFunc("POST /v1/conns/{id}/bury", c.postBury)
	mux.HandleFunc("POST /v1/restore", c.postRestore)
	mux.HandleFunc("GET /v1/drops", c.getDrops)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, fmt.Errorf("no such call: %s %s", r.Method, r.URL.Path))
	})
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second,
		ErrorLog:          slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
}

func (c *controller) getStatus(w http.ResponseWriter, _ *http.Request) { reply(w, c.status()) }

func (c *controller) getDrops(w http.ResponseWriter, _ *http.Request) { reply(w, c.stack.Drops()) }

func (c *controller) getConns(w http.ResponseWriter, _ *http.Request) {
	list := []Conn{}
	for _, i := range c.stack.Conns() {
		list = append(list, newConn(i))
	}
	reply(w, list)
}

// maxRequest is more than any request of ours has, in bytes.
const maxRequest = 4096

func (c *controller) postRepair(w http.ResponseWriter, r *http.Request) {
	id, err := connID(r)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	var req RepairRequest
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	body.DisallowUnknownFields()
	if err := body.Decode(&req); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("request: %w", err))
		return
	}
	mode, err := parseMode(req.Mode)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	if err := c.stack.SetRepair(id, mode); err != nil {
		fail(w, repairStatus(err), err)
		return
	}
	c.log.Info("repair", "conn", id, "mode", mode.String())
	info, err := c.conn(id)
	if err != nil { // it ended in this very moment
		fail(w, http.StatusNotFound, err)
		return
	}
	reply(w, newConn(info))
}

// conn finds a connection. The error wraps stack.ErrNoConn.
func (c *controller) conn(id uint64) (stack.ConnInfo, error) {
	list := c.stack.Conns()
	i := slices.IndexFunc(list, func(i stack.ConnInfo) bool { return i.ID == id })
	if i < 0 {
		return stack.ConnInfo{}, fmt.Errorf("%w: %d", stack.ErrNoConn, id)
	}
	return list[i], nil
}

func connID(r *http.Request) (uint64, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("connection ID %q is not a number", r.PathValue("id"))
	}
	return id, nil
}

func repairStatus(err error) int {
	switch {
	case errors.Is(err, stack.ErrNoConn):
		return http.StatusNotFound
	case errors.Is(err, syscall.EINVAL):
		return http.StatusBadRequest
	}
	return http.StatusConflict
}

// parseMode is the inverse of repair.Mode.String.
func parseMode(name string) (repair.Mode, error) {
	for _, m := range []repair.Mode{repair.On, repair.Off, repair.OffNoProbe} {
		if name == m.String() {
			return m, nil
		}
	}
	return 0, fmt.Errorf("mode %q: want on, off or off-no-probe", name)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // an error is the client's: it has gone
}

func fail(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(apiError{err.Error()})
}
