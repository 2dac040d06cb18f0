package criu

import (
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/crit"
	sk_inet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	tcp_stream "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"
	"google.golang.org/protobuf/proto"

	"github.com/tcprepair/ustack/stack/repair"
)

// fixed is a connection of which every number is known.
func fixed(local, remote string) *repair.Snapshot {
	return &repair.Snapshot{
		Core: repair.Core{
			Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), State: repair.StateLastAck,
			SendSeq: 1000, SendQueue: repair.Bytes{[]byte("sent"), []byte("unsent")}, Unsent: 6, FINQueued: true,
			RecvSeq: 2000, RecvQueue: repair.Bytes{[]byte("unread")}, FINReceived: true,
			Options:   repair.Options{MSS: 1460, Scaling: true, SendScale: 7, RecvScale: 9, SACK: true, Timestamps: true},
			Window:    repair.Window{SndWl1: 1999, SndWnd: 30000, MaxWindow: 60000, RcvWnd: 65536, RcvWup: 1990},
			Timestamp: 5000, NoDelay: true,
		},
		Extra: &repair.Extra{Advertised: 1990 + 65536, Socket: repair.SocketOptions{
			Keepalive: true, KeepaliveIdle: 1500 * time.Millisecond, KeepaliveInterval: 3 * time.Second, KeepaliveCount: 4,
			SendBuffer: 50000, RecvBuffer: 60000, RecvBufferMax: 600000, Linger: true, LingerTimeout: 5 * time.Second,
		}},
	}
}

// fixedStream is what its stream's entry has to say.
var fixedStream = map[string]uint32{
	"inq_len": 6, "inq_seq": 2001, "outq_len": 10, "outq_seq": 1011, "unsq_len": 6, "snd_wscale": 7, "rcv_wscale": 9,
	"mss_clamp": 1460, "timestamp": 5000, "snd_wl1": 1999, "snd_wnd": 30000, "max_window": 60000, "rcv_wnd": 65536, "rcv_wup": 1990,
}

// imagesOf writes images into a directory of their own.
func imagesOf(t *testing.T, s *repair.Snapshot) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := WriteDir(dir, Connection{7, s}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// go-criu's own decoder reads what is written.
func TestGoCRIU(t *testing.T) {
	dir := imagesOf(t, fixed("10.0.0.2:80", "10.0.0.1:40000"))
	decode := func(name string, m proto.Message) *crit.CriuEntry {
		t.Helper()
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		img, err := crit.New(f, nil, "", false, false).Decode(m)
		if err != nil || len(img.Entries) != 1 {
			t.Fatalf("%s: %+v, %v", name, img, err)
		}
		return img.Entries[0]
	}
	entry := decode("tcp-stream-7.img", &tcp_stream.TcpStreamEntry{})
	var queues struct {
		In  []byte `json:"in_q"`
		Out []byte `json:"out_q"`
	}
	if err := json.Unmarshal([]byte(entry.Extra), &queues); err != nil {
		t.Fatal(err)
	}
	if string(queues.In) != "unread" || string(queues.Out) != "sentunsent" {
		t.Errorf("%q, %q", queues.In, queues.Out)
	}
	fields := entry.Message.ProtoReflect()
	for name, want := range fixedStream {
		field := fields.Descriptor().Fields().ByTextName(name)
		if got := uint32(fields.Get(field).Uint()); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	sk := decode("inetsk.img", &sk_inet.InetSkEntry{}).Message.(*sk_inet.InetSkEntry)
	if sk.GetSrcPort() != 80 || sk.GetDstPort() != 40000 || sk.GetState() != 9 || sk.GetShutdown().String() != "BOTH" ||
		!slices.Equal(sk.GetSrcAddr(), []uint32{0x0200000a}) || sk.GetOpts().GetSoBufLock() != sndBufLock ||
		sk.GetOpts().GetSoSndbuf() != 50000 || sk.GetTcpOpts().GetKeepidle() != 2 || sk.GetOpts().GetSoLinger() != 5 {
		t.Errorf("%v", sk)
	}
}

// critTool runs CRIU's own tool. Where it is not installed the test skips, but
// not in CI.
func critTool(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("crit")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("crit, of Debian's package criu, is not installed")
		}
		t.Skip("crit, of Debian's package criu, is not installed")
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("crit %q: %v\n%s", args, err, out)
	}
	return out
}

// number reads one, which may be written in base 16.
func number(v any) uint32 {
	switch v := v.(type) {
	case float64:
		return uint32(v)
	case string:
		var n uint32
		if json.Unmarshal([]byte(v), &n) == nil {
			return n
		}
	}
	return 1<<32 - 1
}

// crit, of CRIU itself, reads what is written, and what it writes from that is
// read here.
func TestCrit(t *testing.T) {
	for family, ends := range map[string][2]string{
		"INET":  {"10.0.0.2:80", "10.1.2.3:40000"},
		"INET6": {"[fd00:1:2:3:4:5:6:7]:80", "[2001:db8::1]:40000"},
	} {
		s := fixed(ends[0], ends[1])
		dir := imagesOf(t, s)
		var stream struct {
			Magic   string
			Entries []map[string]any
		}
		name := filepath.Join(dir, "tcp-stream-7.img")
		text := critTool(t, "decode", "--pretty", "-i", name)
		if err := json.Unmarshal(text, &stream); err != nil || stream.Magic != "TCP_STREAM" || len(stream.Entries) != 1 {
			t.Fatalf("%v\n%s", err, text)
		}
		for field, want := range fixedStream {
			if got := number(stream.Entries[0][field]); got != want {
				t.Errorf("%s is %d, want %d", field, got, want)
			}
		}
		if mask := stream.Entries[0]["opt_mask"]; mask != "0x7" {
			t.Errorf("opt_mask is %v", mask)
		}
		queues, _ := stream.Entries[0]["extra"].(map[string]any)
		for field, want := range map[string]string{"inq": "unread", "outq": "sentunsent"} {
			text, _ := queues[field].(string)
			if got, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text)); string(got) != want || err != nil {
				t.Errorf("%s is %q, %v", field, got, err)
			}
		}
		var sockets struct {
			Magic   string
			Entries []map[string]any
		}
		text = critTool(t, "decode", "--pretty", "-i", filepath.Join(dir, "inetsk.img"))
		if err := json.Unmarshal(text, &sockets); err != nil || sockets.Magic != "INETSK" || len(sockets.Entries) != 1 {
			t.Fatalf("%v\n%s", err, text)
		}
		sk := sockets.Entries[0]
		for field, want := range map[string]any{
			"family": family, "type": "STREAM", "proto": "TCP", "state": "LAST_ACK", "src_port": 80.0, "dst_port": 40000.0, "ino": 7.0,
			"shutdown": "BOTH",
		} {
			if sk[field] != want {
				t.Errorf("%s is %v, want %v", field, sk[field], want)
			}
		}
		for field, want := range map[string]netip.Addr{"src_addr": s.Local.Addr(), "dst_addr": s.Remote.Addr()} {
			list, _ := sk[field].([]any)
			if len(list) != 1 || list[0] != want.String() {
				t.Errorf("%s is %v, want %v", field, list, want)
			}
		}

		if family == "INET" {
			continue // once is enough: the tool takes its time
		}
		back := t.TempDir()
		for _, base := range []string{"tcp-stream-7.img", "inetsk.img"} {
			text := filepath.Join(back, base+".json")
			critTool(t, "decode", "-i", filepath.Join(dir, base), "-o", text)
			critTool(t, "encode", "-i", text, "-o", filepath.Join(back, base))
		}
		list, err := ReadDir(back, repair.Limits{})
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		same(t, list[0].Snapshot, s)
	}
}

// same compares cores; how bytes are cut into pieces is no difference.
func same(t *testing.T, got, want *repair.Snapshot) {
	t.Helper()
	g, w := got.Core, want.Core
	for _, q := range []*repair.Bytes{&g.SendQueue, &g.RecvQueue, &w.SendQueue, &w.RecvQueue} {
		*q = repair.Bytes{slices.Concat(*q...)}
	}
	if a, b := textOf(t, g), textOf(t, w); a != b {
		t.Errorf("got  %s\nwant %s", a, b)
	}
}

func textOf(t *testing.T, c repair.Core) string {
	t.Helper()
	b, err := (&repair.Snapshot{Core: c}).JSON(true)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
