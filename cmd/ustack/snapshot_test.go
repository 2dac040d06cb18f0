package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tcprepair/ustack/stack/repair"
)

// aConnection is a snapshot with something of everything.
func aConnection() *repair.Snapshot {
	return &repair.Snapshot{
		Core: repair.Core{
			Local: netip.MustParseAddrPort("10.0.0.2:80"), Remote: netip.MustParseAddrPort("10.0.0.1:40000"), State: repair.StateLastAck,
			SendSeq: 1000, SendQueue: repair.Bytes{[]byte("sent"), []byte("unsent")}, Unsent: 6, FINQueued: true,
			RecvSeq: 2000, RecvQueue: repair.Bytes{[]byte("unread")}, FINReceived: true,
			Options:   repair.Options{MSS: 1460, Scaling: true, SendScale: 7, RecvScale: 9, SACK: true, Timestamps: true},
			Window:    repair.Window{SndWl1: 1999, SndWnd: 30000, MaxWindow: 60000, RcvWnd: 65536, RcvWup: 1990},
			Timestamp: 5000, NoDelay: true,
		},
		Extra: &repair.Extra{
			Advertised: 1990 + 65536,
			Congestion: repair.Congestion{Name: "cubic", Window: 14600},
			RTT:        repair.RTT{Smoothed: 1500 * time.Microsecond},
			Sent:       []repair.SentSegment{{Seq: 1000, Len: 4, Flags: repair.SegmentSACKed}},
			Timers:     []repair.Timer{{Kind: repair.TimerRetransmit, Left: 201 * time.Millisecond}},
			IP:         repair.IPSettings{TTL: 17, TOS: 0x48, MTUDiscovery: repair.MTUDiscoveryDont, Device: "eth7"},
		},
	}
}

// snapshotFile writes snapshots into a file.
func snapshotFile(t *testing.T, list ...*repair.Snapshot) string {
	t.Helper()
	var b bytes.Buffer
	for _, s := range list {
		if _, err := s.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
	}
	return writeFile(t, b.Bytes())
}

func writeFile(t *testing.T, b []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "conn.snap")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// must runs a command that has to work, and returns what it printed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if status := run(args, &stdout, &stderr); status != exitOK || stderr.Len() != 0 {
		t.Fatalf("%q: status %d, %q", args, status, stderr.String())
	}
	return stdout.String()
}

func TestSnapshotShow(t *testing.T) {
	listener := &repair.Snapshot{
		Core: repair.Core{Local: netip.MustParseAddrPort("0.0.0.0:80"), State: repair.StateListen}, Extra: &repair.Extra{Backlog: 5},
	}
	child := aConnection()
	child.State, child.FINQueued = repair.StateCloseWait, false
	listener.Children = []*repair.Snapshot{child}
	out := must(t, "snapshot", "show", snapshotFile(t, aConnection(), listener))
	for _, want := range []string{
		"10.0.0.2:80 -> 10.0.0.1:40000", "LAST-ACK, our FIN waits, the peer's FIN is received", "up to 2000, of which 6 bytes are not read",
		"from 1000, 10 bytes not acknowledged, 6 of them never sent", "ours 65536 from 1990, the peer's 30000, at most 60000",
		"MSS 1460, window scale 7 and 9, SACK, timestamps at 5000 ms, no delay", "cubic, window 14600 bytes, no threshold",
		"1.5ms, varies by", "segments: 1, received out of order: 1, lost: 0", "retransmit in 201ms",
		"TTL 17, TOS 0x48, no path MTU discovery, bound to eth7",
		"0.0.0.0:80", "5, waiting: 1", "CLOSE-WAIT, the peer's FIN is received",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	var v map[string]any
	out = must(t, "snapshot", "show", "--json", snapshotFile(t, aConnection()))
	if err := json.Unmarshal([]byte(out), &v); err != nil || v["state"] != "LAST-ACK" {
		t.Errorf("%v: %s", err, out)
	}
	if queue, _ := v["recv_queue"].(map[string]any); queue["bytes"] != 6.0 {
		t.Errorf("recv_queue is %v", v["recv_queue"])
	}
}

// What is converted forth and back is what it was.
func TestSnapshotConversions(t *testing.T) {
	second := aConnection()
	second.Remote = netip.MustParseAddrPort("10.0.0.1:40001")
	file := snapshotFile(t, aConnection(), second)
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := must(t, "snapshot", "json", file)
	if got := must(t, "snapshot", "from-json", writeFile(t, []byte(text))); got != string(want) {
		t.Error("not the same after JSON")
	}
	out := filepath.Join(t.TempDir(), "out")
	must(t, "snapshot", "from-json", writeFile(t, []byte(text)), "--output", out)
	if got, err := os.ReadFile(out); string(got) != string(want) || err != nil {
		t.Errorf("not the same in a file: %v", err)
	}

	// Images have the core only.
	dir := t.TempDir()
	names := must(t, "snapshot", "to-criu", file, dir, "--inode", "10")
	stream := filepath.Join(dir, "tcp-stream-b.img")
	if want := strings.Join([]string{filepath.Join(dir, "inetsk.img"), filepath.Join(dir, "tcp-stream-a.img"), stream, ""}, "\n"); names != want {
		t.Errorf("got %s, want %s", names, want)
	}
	core := *second
	core.Extra = nil
	one := snapshotFile(t, &core)
	if want, err := os.ReadFile(one); err != nil || must(t, "snapshot", "from-criu", stream) != string(want) {
		t.Errorf("not the same after images: %v", err)
	}
	list, err := repair.ReadAll(strings.NewReader(must(t, "snapshot", "from-criu", dir)), repair.Limits{})
	if err != nil || len(list) != 2 || list[1].Remote != second.Remote {
		t.Errorf("%d, %v", len(list), err)
	}
}

// What cannot be done is one line on stderr, nothing on stdout, and nothing is
// left behind.
func TestSnapshotRefuses(t *testing.T) {
	good := snapshotFile(t, aConnection())
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	timeWait := aConnection()
	timeWait.State, timeWait.SendQueue, timeWait.Unsent, timeWait.FINSent, timeWait.FINAcked = repair.StateTimeWait, nil, 0, true, true
	timeWait.Extra.Sent = nil
	future := bytes.Clone(whole)
	future[7] = 9
	dir := t.TempDir()
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{}, 2, "expected one of"},
		{[]string{"show"}, 2, "<file>"},
		{[]string{"show", filepath.Join(dir, "missing")}, 1, "missing"},
		{[]string{"show", writeFile(t, nil)}, 1, "the file is empty"},
		{[]string{"show", writeFile(t, []byte("text\n"))}, 1, "this is not a snapshot"},
		{[]string{"show", writeFile(t, whole[:len(whole)-1])}, 1, "cut short"},
		{[]string{"show", writeFile(t, future)}, 1, "snapshot version 9, this program knows up to 1"},
		{[]string{"json", dir}, 1, dir},
		{[]string{"from-json", good}, 1, "invalid character"},
		{[]string{"from-json", writeFile(t, nil)}, 1, "the file is empty"},
		{[]string{"from-json", writeFile(t, []byte(`{"state":"ESTABLISHED"}`))}, 1, "there is no local address"},
		{[]string{"from-json", writeFile(t, []byte(`{"stat":1}`))}, 1, ".stat: there is no such field"},
		{[]string{"to-criu", good}, 2, "<dir>"},
		{[]string{"to-criu", good, ""}, 2, "<dir>"},
		{[]string{"to-criu", good, filepath.Join(dir, "missing", "below")}, 1, "missing"},
		{[]string{"to-criu", snapshotFile(t, timeWait), dir}, 1, "TIME-WAIT"},
		{[]string{"to-criu", snapshotFile(t, timeWait), filepath.Join(dir, "new")}, 1, "TIME-WAIT"},
		{[]string{"from-criu", good}, 1, "tcp-stream-<inode>.img"},
		{[]string{"from-criu", dir}, 1, "inetsk.img"},
		{[]string{"from-criu", filepath.Join(dir, "tcp-stream-1.img")}, 1, "tcp-stream-1.img"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(append([]string{"snapshot"}, tt.args...), &stdout, &stderr)
		line := stderr.String()
		if status != tt.status || !strings.Contains(line, tt.want) {
			t.Errorf("%q: status %d, %q; want %d and %q", tt.args, status, line, tt.status, tt.want)
		}
		if strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, "ustack: ") || stdout.Len() != 0 {
			t.Errorf("%q: not one line on stderr: %q; stdout %q", tt.args, line, stdout.String())
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	// Nor is anything overwritten.
	var stdout, stderr bytes.Buffer
	text := writeFile(t, []byte(must(t, "snapshot", "json", good)))
	if status := run([]string{"snapshot", "from-json", text, "-o", good}, &stdout, &stderr); status != exitFail {
		t.Errorf("status %d, %s", status, stderr.String())
	}
	if b, err := os.ReadFile(good); !bytes.Equal(b, whole) {
		t.Errorf("overwritten: %v", err)
	}
}

// An impossible snapshot is shown, and said to be one.
func TestSnapshotShowImpossible(t *testing.T) {
	bad := aConnection()
	bad.Options.MSS = 0
	var stdout, stderr bytes.Buffer
	status := run([]string{"snapshot", "show", snapshotFile(t, bad)}, &stdout, &stderr)
	if status != exitFail || !strings.Contains(stderr.String(), "segment size is 0") || !strings.Contains(stdout.String(), "LAST-ACK") {
		t.Errorf("status %d, %s%s", status, stdout.String(), stderr.String())
	}
}
