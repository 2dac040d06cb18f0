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

	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/repair"
)

// Client talks to a daemon through its control socket.
type Client struct {
	path string
	http http.Client
}

// NewClient makes a client of the socket at path. It connects with each call.
func NewClient(path string) *Client {
	return &Client{path: path, http: http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
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

// call does one request. The error is one line.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://ustack"+path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var e apiError
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Error == "" {
			return fmt.Errorf("control socket %s: unexpected answer: %s", c.path, resp.Status)
		}
		return errors.New(e.Error)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
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
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("control socket %s: no such file (is the daemon running? --control names another)", c.path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("control socket %s: nobody answers (the daemon has died)", c.path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("control socket %s: permission denied (it is its owner's)", c.path)
	}
	return fmt.Errorf("control socket %s: %w", c.path, err)
}
