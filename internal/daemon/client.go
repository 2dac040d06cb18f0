package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/repair"
)

// answerTime is how long a daemon may take to begin its answer.
const answerTime = 10 * time.Second

// Client talks to a daemon through its control socket.
type Client struct {
	path string
	http http.Client
}

// NewClient makes a client of the socket at path. It connects with each call.
func NewClient(path string) *Client {
	return &Client{path: path, http: http.Client{Transport: &http.Transport{
		DisableKeepAlives:     true,
		ResponseHeaderTimeout: answerTime,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

// Status describes the daemon.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Conns lists the connections, by ID.
func (c *Client) Conns(ctx context.Context) (list []Conn, err error) {
	return list, c.call(ctx, http.MethodGet, "/v1/conns", nil, &list)
}

// Drops counts what the stack refused, by reason.
func (c *Client) Drops(ctx context.Context) (d stack.Drops, err error) {
	return d, c.call(ctx, http.MethodGet, "/v1/drops", nil, &d)
}

// Repair freezes or thaws a connection and returns how it then is.
func (c *Client) Repair(ctx context.Context, id uint64, m repair.Mode) (conn Conn, err error) {
	path := fmt.Sprintf("/v1/conns/%d/repair", id)
	return conn, c.call(ctx, http.MethodPost, path, RepairRequest{Mode: m.String()}, &conn)
}

// Checkpoint freezes a connection and returns its snapshot, to be read to its
// end and closed. Froze says that the connection was not frozen before: who
// cannot make use of the snapshot should then thaw it. After an error, or where
// the snapshot could not be read whole, the daemon has thawed it, unless the
// daemon itself is in trouble.
func (c *Client) Checkpoint(ctx context.Context, id uint64) (snapshot io.ReadCloser, froze bool, err error) {
	resp, err := c.send(ctx, http.MethodPost, fmt.Sprintf("/v1/conns/%d/checkpoint", id), nil)
	if err != nil {
		return nil, false, err
	}
	return resp.Body, resp.Header.Get(frozenHeader) == "false", nil
}

// Bury ends a frozen connection that lives elsewhere now; its peer is told
// nothing, and what it still sends here is swallowed for a while.
func (c *Client) Bury(ctx context.Context, id uint64) error {
	var nothing struct{}
	return c.call(ctx, http.MethodPost, fmt.Sprintf("/v1/conns/%d/bury", id), nil, &nothing)
}

// Restore sets a connection down and returns how it then is. The snapshot is
// written as it is sent, not held a second time.
func (c *Client) Restore(ctx context.Context, snap *repair.Snapshot) (conn Conn, err error) {
	r, w := io.Pipe()
	go func() {
		_, err := snap.WriteTo(w)
		w.CloseWithError(err)
	}()
	defer r.Close()
	body, err := c.do(ctx, http.MethodPost, "/v1/restore", r)
	if err != nil {
		return Conn{}, err
	}
	defer body.Close()
	return conn, c.decode(body, &conn)
}

// Refusal is a daemon's answer that it will not do what it was asked; nothing
// has changed.
type Refusal struct{ Why string }

// Error implements error.
func (r *Refusal) Error() string { return r.Why }

// call does one request with JSON both ways. The error is one line.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var request io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		request = bytes.NewReader(b)
	}
	body, err := c.do(ctx, method, path, request)
	if err != nil {
		return err
	}
	defer body.Close()
	return c.decode(body, out)
}

// do does one request and returns the body of the answer, which is the
// caller's to close.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// send does one request and returns the answer, the body of which is the
// caller's to close.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://ustack"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var e apiError
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Error == "" {
		return nil, fmt.Errorf("control socket %s: unexpected answer: %s", c.path, resp.Status)
	}
	return nil, &Refusal{e.Error}
}

func (c *Client) decode(body io.Reader, out any) error {
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("control socket %s: unreadable answer: %w", c.path, err)
	}
	return nil
}

// explain says what a failed connection attempt means.
func (c *Client) explain(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var ne net.Error
	switch {
	case errors.As(err, &ne) && ne.Timeout():
		return fmt.Errorf("control socket %s: the daemon does not answer", c.path)
	case errors.Is(err, syscall.ECONNREFUSED) && !isSocket(c.path):
		return fmt.Errorf("control socket %s: this is not a socket", c.path)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("control socket %s: no such file (is the daemon running? --control names another)", c.path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("control socket %s: nobody answers (the daemon has died)", c.path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("control socket %s: permission denied (it is its owner's)", c.path)
	}
	return fmt.Errorf("control socket %s: %w", c.path, err)
}

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Type() == os.ModeSocket
}
