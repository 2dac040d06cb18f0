package daemon

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tcprepair/ustack/stack/repair"
)

// A connection to a service is written down, buried, restored, and served on
// from where it stood.
func TestMoveThroughControlSocket(t *testing.T) {
	d, peer := inMemory(t, Service{Name: "echo", Port: 7}, Service{Name: "http", Port: 80, Dir: t.TempDir()})
	for port, talk := range map[string][2]string{
		"7":  {"hello", "hello"},
		"80": {"GET /none HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 Not Found\r\n"},
	} {
		c := dial(t, peer, "10.0.0.2:"+port)
		client := NewClient(d.cfg.Control)
		ctx := timeout(t, 20*time.Second)
		list, err := client.Conns(ctx)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		snap := checkpoint(t, client, list[0].ID, true)
		checkpoint(t, client, list[0].ID, false)
		var no *Refusal
		if _, err := client.Restore(ctx, snap); !errors.As(err, &no) {
			t.Errorf("restored beside itself: %v", err)
		}
		if err := client.Bury(ctx, list[0].ID); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, talk[0]); err != nil {
			t.Fatal(err)
		}
		got, err := client.Restore(ctx, snap)
		if err != nil || got.Frozen || got.Remote != list[0].Remote {
			t.Fatalf("restored: %+v, %v", got, err)
		}
		answer := make([]byte, len(talk[1]))
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != talk[1] {
			t.Errorf("port %s: %q, %v", port, answer, err)
		}
		c.Close()
		waitFor(t, "the connection to end", func() bool {
			list, err := client.Conns(ctx)
			return err == nil && len(list) == 0
		})
	}
}

// checkpoint reads a connection out; froze says whether it was this that froze
// it.
func checkpoint(t *testing.T, client *Client, id uint64, froze bool) *repair.Snapshot {
	t.Helper()
	body, changed, err := client.Checkpoint(timeout(t, 20*time.Second), id)
	if err != nil || changed != froze {
		t.Fatalf("it changed the connection: %v, %v", changed, err)
	}
	defer body.Close()
	snap, err := repair.Read(body, repair.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

// A snapshot that its asker does not take leaves the connection as it was:
// thawed, or frozen.
func TestCheckpointNotTaken(t *testing.T) {
	d, peer := inMemory(t, Service{Name: "chargen", Port: 19})
	c := dial(t, peer, "10.0.0.2:19")
	client := NewClient(d.cfg.Control)
	ctx := timeout(t, 20*time.Second)
	one := func() Conn {
		list, err := client.Conns(ctx)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return list[0]
	}
	waitFor(t, "more than a socket takes to be written", func() bool { return one().Unacked > 700<<10 })
	for _, frozen := range []bool{false, true} {
		if frozen {
			if _, err := client.Repair(ctx, one().ID, repair.On); err != nil {
				t.Fatal(err)
			}
		}
		segments := d.Stack().Stats().TCP.SegmentsSent
		raw, err := net.Dial("unix", d.cfg.Control)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(raw, "POST /v1/conns/%d/checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", one().ID)
		if _, err := io.ReadFull(raw, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if !one().Frozen {
			t.Fatal("not frozen while its snapshot is read")
		}
		raw.Close()
		if !frozen {
			waitFor(t, "the connection to go on", func() bool { return !one().Frozen })
			continue
		}
		d.control.SetKeepAlivesEnabled(false)
		waitFor(t, "the call to end", func() bool { return d.control.Shutdown(ctx) == nil })
		if list := d.Stack().Conns(); len(list) != 1 || !list[0].Frozen || d.Stack().Stats().TCP.SegmentsSent != segments {
			t.Errorf("it had been frozen: %+v", list)
		}
	}
	c.Close()
}

func TestMoveRefusals(t *testing.T) {
	d, peer := inMemory(t, Service{Name: "echo", Port: 7})
	c := dial(t, peer, "10.0.0.2:7")
	client := NewClient(d.cfg.Control)
	ctx := timeout(t, 20*time.Second)
	list, err := client.Conns(ctx)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	id := list[0].ID
	snap, err := d.Stack().Checkpoint(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Stack().SetRepair(id, repair.Off); err != nil {
		t.Fatal(err)
	}
	elsewhere := *snap
	elsewhere.Local = netip.AddrPortFrom(snap.Local.Addr(), 9)
	_, noService := client.Restore(ctx, &elsewhere)
	_, _, noConn := client.Checkpoint(ctx, 999999)
	for _, tt := range []struct {
		what string
		err  error
		want string
	}{
		{"no such service", noService, "no service on port 9"},
		{"no such connection", noConn, "no such connection: 999999"},
		{"not frozen", client.Bury(ctx, id), "connection is not frozen"},
		{"not a snapshot", client.call(ctx, "POST", "/v1/restore", "text", &struct{}{}), "snapshot"},
	} {
		var no *Refusal
		if !errors.As(tt.err, &no) || !strings.Contains(no.Why, tt.want) || strings.Contains(no.Why, "\n") {
			t.Errorf("%s: %v, want %q", tt.what, tt.err, tt.want)
		}
	}
	if _, err := c.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	got := make([]byte, 10)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "still here" {
		t.Errorf("after the refusals: %q, %v", got, err)
	}
}

// A service that is full is known to be before a connection is restored: the
// peer does not notice, and it may be tried again.
func TestRestoreIntoFullService(t *testing.T) {
	d, peer := inMemory(t, Service{Name: "echo", Port: 7})
	c := dial(t, peer, "10.0.0.2:7")
	client := NewClient(d.cfg.Control)
	ctx := timeout(t, 20*time.Second)
	list, err := client.Conns(ctx)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	snap, err := d.Stack().Checkpoint(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Bury(ctx, list[0].ID); err != nil {
		t.Fatal(err)
	}
	l := d.services[0].listener
	waitFor(t, "the service to be empty", func() bool { return l.active.Load() == 0 })
	taken := 0
	for full := false; !full; {
		select {
		case l.places <- struct{}{}:
			taken++
		default:
			full = true
		}
	}
	var no *Refusal
	if _, err := client.Restore(ctx, snap); !errors.As(err, &no) || !strings.Contains(no.Why, "no place") {
		t.Fatalf("restored into a full service: %v", err)
	}
	if list, err := client.Conns(ctx); err != nil || len(list) != 0 {
		t.Errorf("after a refusal: %v, %v", list, err)
	}
	for range taken {
		<-l.places
	}
	if _, err := client.Restore(ctx, snap); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}
