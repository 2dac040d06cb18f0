package criu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	sk_inet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	tcp_stream "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/tcprepair/ustack/stack/repair"
)

// convertibles are the states that images have.
var convertibles = []repair.State{
	repair.StateSynSent, repair.StateEstablished, repair.StateFinWait1, repair.StateFinWait2,
	repair.StateCloseWait, repair.StateClosing, repair.StateLastAck,
}

// draw draws a possible connection that images can tell whole.
func draw(t *rapid.T, state repair.State) *repair.Snapshot {
	s := new(repair.Snapshot)
	s.State = state
	s.Local, s.Remote = netip.MustParseAddrPort("10.0.0.2:80"), netip.MustParseAddrPort("10.1.2.3:40000")
	switch rapid.IntRange(0, 3).Draw(t, "family") {
	case 1:
		s.Local, s.Remote = netip.MustParseAddrPort("[fd00:1:2:3:4:5:6:7]:65535"), netip.MustParseAddrPort("[2001:db8::1]:1")
	case 2:
		s.Local, s.Remote = netip.MustParseAddrPort("[::ffff:10.0.0.2]:80"), netip.MustParseAddrPort("[::ffff:10.1.2.3]:80")
	case 3:
		s.Local, s.Remote = netip.MustParseAddrPort("[fe80::1%eth0]:80"), netip.MustParseAddrPort("[fe80::2%eth0]:81")
	}
	data := rapid.SliceOfN(rapid.Byte(), 0, 50)
	s.SendSeq, s.RecvSeq = rapid.Uint32().Draw(t, "send seq"), rapid.Uint32().Draw(t, "recv seq")
	one := func(name string) repair.Bytes {
		if p := data.Draw(t, name); len(p) > 0 {
			return repair.Bytes{p}
		}
		return nil
	}
	if state != repair.StateSynSent {
		s.RecvQueue = one("recv")
	}
	if state != repair.StateFinWait2 {
		s.SendQueue = one("send")
		s.Unsent = rapid.IntRange(0, s.SendQueue.Len()).Draw(t, "unsent")
	}
	s.FINQueued = slices.Contains([]repair.State{repair.StateFinWait1, repair.StateFinWait2, repair.StateClosing, repair.StateLastAck}, state)
	s.FINSent = s.FINQueued && s.Unsent == 0
	s.FINAcked = state == repair.StateFinWait2
	s.FINReceived = slices.Contains([]repair.State{repair.StateCloseWait, repair.StateClosing, repair.StateLastAck}, state)
	s.Options = repair.Options{
		MSS: rapid.Uint16Min(1).Draw(t, "mss"), SACK: rapid.Bool().Draw(t, "sack"),
		Scaling: rapid.Bool().Draw(t, "scaling"), Timestamps: rapid.Bool().Draw(t, "timestamps"),
	}
	if s.Options.Scaling {
		s.Options.SendScale, s.Options.RecvScale = rapid.Uint8Max(14).Draw(t, "send scale"), rapid.Uint8Max(14).Draw(t, "recv scale")
	}
	if s.Options.Timestamps {
		s.TimestampMicros = rapid.Bool().Draw(t, "micros")
		s.Timestamp = rapid.Uint32().Draw(t, "timestamp") &^ 1
		if s.TimestampMicros {
			s.Timestamp |= 1
		}
	}
	window := rapid.Uint32Max(0xffff << 14)
	s.Window = repair.Window{SndWnd: window.Draw(t, "window"), RcvWnd: window.Draw(t, "our window")}
	s.Window.MaxWindow = rapid.Uint32Range(s.Window.SndWnd, 0xffff<<14).Draw(t, "largest")
	s.Window.RcvWup = s.RcvNxt() - rapid.Uint32Max(1000).Draw(t, "since")
	s.Window.SndWl1 = s.RcvNxt() - rapid.Uint32Max(1000).Draw(t, "updated")
	s.NoDelay, s.Cork = rapid.Bool().Draw(t, "nodelay"), rapid.Bool().Draw(t, "cork")
	if err := s.Validate(); err != nil {
		t.Fatalf("this generator is wrong: %v", err)
	}
	return s
}

// example is one of them.
func example(state repair.State) *repair.Snapshot {
	return rapid.Custom(func(t *rapid.T) *repair.Snapshot { return draw(t, state) }).Example(int(state))
}

// streamOf and socketOf return the images.
func streamOf(t interface{ Fatal(...any) }, s *repair.Snapshot) []byte {
	var b bytes.Buffer
	if err := WriteStream(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func socketsOf(t interface{ Fatal(...any) }, conns ...Connection) []byte {
	var b bytes.Buffer
	if err := WriteSockets(&b, conns...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read puts the two images together.
func read(sockets, stream []byte) (*repair.Snapshot, error) {
	list, err := ReadSockets(bytes.NewReader(sockets))
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, errors.New("not one socket")
	}
	return list[0].Snapshot(bytes.NewReader(stream), repair.Limits{})
}

// The core comes back as it was, in every state that images have.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := draw(t, rapid.SampledFrom(convertibles).Draw(t, "state"))
		got, err := read(socketsOf(t, Connection{7, want}), streamOf(t, want))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Core, want.Core) {
			t.Fatalf("got  %+v\nwant %+v", got.Core, want.Core)
		}
	})
}

// The numbers are those that Linux and libsoccr give and expect: both sequence
// numbers are those of the ends, FINs counted; the lengths do not count them.
func TestFINConvention(t *testing.T) {
	for state, fins := range map[repair.State]struct{ sent, received uint32 }{
		repair.StateSynSent: {0, 0}, repair.StateEstablished: {0, 0}, repair.StateFinWait1: {1, 0}, repair.StateFinWait2: {1, 0},
		repair.StateCloseWait: {0, 1}, repair.StateClosing: {1, 1}, repair.StateLastAck: {1, 1},
	} {
		s := example(state)
		s.SendSeq, s.SendQueue, s.Unsent = 0xfffffffe, repair.Bytes{[]byte("abc")}, 2
		s.FINSent = false
		if state == repair.StateFinWait2 {
			s.SendQueue, s.Unsent, s.FINSent = nil, 0, true
		}
		s.RecvSeq, s.RecvQueue = 1000, repair.Bytes{[]byte("de")}
		if state == repair.StateSynSent {
			s.RecvQueue = nil
		}
		s.Window.RcvWup, s.Window.SndWl1 = 1000, 1000
		e := streamEntry(s)
		sent := uint32(s.SendQueue.Len())
		if got, want := e.GetOutqSeq(), 0xfffffffe+sent+fins.sent; got != want {
			t.Errorf("%v: outq_seq %d, want %d", state, got, want)
		}
		if got, want := e.GetInqSeq(), 1000+fins.received; got != want {
			t.Errorf("%v: inq_seq %d, want %d", state, got, want)
		}
		if e.GetOutqLen() != sent || int(e.GetUnsqLen()) != s.Unsent || int(e.GetInqLen()) != s.RecvQueue.Len() {
			t.Errorf("%v: lengths %d, %d, %d", state, e.GetOutqLen(), e.GetUnsqLen(), e.GetInqLen())
		}
	}
}

// A FIN that waits behind nothing unsent counts as sent; nothing else changes.
func TestUnsentFIN(t *testing.T) {
	want := example(repair.StateFinWait1)
	want.SendQueue, want.Unsent, want.FINSent = nil, 0, false
	got, err := read(socketsOf(t, Connection{7, want}), streamOf(t, want))
	if err != nil {
		t.Fatal(err)
	}
	want.FINSent = true
	if !reflect.DeepEqual(got.Core, want.Core) {
		t.Errorf("got  %+v\nwant %+v", got.Core, want.Core)
	}
}

// The clock's last bit is not its own, and it never goes back.
func TestTick(t *testing.T) {
	for _, v := range []uint32{0, 1, 2, 1001, math.MaxUint32} {
		for _, micros := range []bool{false, true} {
			got := tick(v, micros)
			if got&1 == 1 != micros || got-v > 1 {
				t.Errorf("%d, %v becomes %d", v, micros, got)
			}
		}
	}
}

func TestListener(t *testing.T) {
	s := &repair.Snapshot{Core: repair.Core{Local: netip.MustParseAddrPort("[::]:80"), State: repair.StateListen}, Extra: &repair.Extra{Backlog: 17}}
	list, err := ReadSockets(bytes.NewReader(socketsOf(t, Connection{9, s})))
	if err != nil || len(list) != 1 || !list[0].Listening() || list[0].Inode() != 9 {
		t.Fatalf("%v, %v", list, err)
	}
	got, err := list[0].Snapshot(nil, repair.Limits{})
	if err != nil || got.Local != s.Local || got.Remote.IsValid() || got.State != s.State || got.Extra.Backlog != 17 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := WriteStream(io.Discard, s); !errors.Is(err, repair.ErrState) {
		t.Error(err)
	}
}

func TestWriteRefuses(t *testing.T) {
	bad := example(repair.StateEstablished)
	bad.Unsent = -1
	synReceived := example(repair.StateEstablished)
	synReceived.State = repair.StateSynReceived
	timeWait := example(repair.StateFinWait2)
	timeWait.State, timeWait.FINReceived = repair.StateTimeWait, true
	child := example(repair.StateEstablished)
	parent := &repair.Snapshot{Core: repair.Core{
		State: repair.StateListen, Local: netip.AddrPortFrom(child.Local.Addr(), child.Local.Port()),
	}, Children: []*repair.Snapshot{child}}
	for name, tt := range map[string]struct {
		s    *repair.Snapshot
		want error
	}{
		"impossible": {bad, repair.ErrInvalid}, "SYN-RECEIVED": {synReceived, repair.ErrState},
		"TIME-WAIT": {timeWait, repair.ErrState}, "children": {parent, repair.ErrState},
	} {
		for _, err := range []error{WriteStream(io.Discard, tt.s), WriteSockets(io.Discard, Connection{1, tt.s})} {
			if !errors.Is(err, tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// What is not whole is refused, wherever it ends.
func TestTruncated(t *testing.T) {
	s := example(repair.StateEstablished)
	s.RecvQueue, s.SendQueue, s.Unsent = repair.Bytes{[]byte("abc")}, repair.Bytes{[]byte("defg")}, 1
	sockets, stream := socketsOf(t, Connection{7, s}), streamOf(t, s)
	for n := range stream {
		if _, err := read(sockets, stream[:n]); !errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%d bytes of %d: %v", n, len(stream), err)
		}
	}
	for n := range sockets {
		if n == 8 {
			continue // an image of no sockets
		}
		if _, err := ReadSockets(bytes.NewReader(sockets[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d bytes of %d: %v", n, len(sockets), err)
		}
	}
	if _, err := read(sockets, append(stream, 0)); !errors.Is(err, repair.ErrInvalid) {
		t.Errorf("a byte too many: %v", err)
	}
}

func TestReadRefuses(t *testing.T) {
	s := example(repair.StateEstablished)
	sockets, stream := socketsOf(t, Connection{7, s}), streamOf(t, s)
	spoiled := func(spoil func(*tcp_stream.TcpStreamEntry)) []byte {
		e := streamEntry(s)
		spoil(e)
		var b bytes.Buffer
		if err := writeImage(&b, magicTCPStream, e); err != nil {
			t.Fatal(err)
		}
		for _, q := range []repair.Bytes{s.RecvQueue, s.SendQueue} {
			q.WriteTo(&b)
		}
		return b.Bytes()
	}
	for name, tt := range map[string]struct{ sockets, stream []byte }{
		"sockets for a stream": {sockets, sockets},
		"stream for sockets":   {stream, stream},
		"no image":             {sockets, []byte("nothing of the kind")},
		"no window":            {sockets, spoiled(func(e *tcp_stream.TcpStreamEntry) { e.SndWnd = nil })},
		"queue that lies":      {sockets, spoiled(func(e *tcp_stream.TcpStreamEntry) { e.InqLen = proto.Uint32(1 << 31) })},
		"unsent that lies":     {sockets, spoiled(func(e *tcp_stream.TcpStreamEntry) { e.UnsqLen = proto.Uint32(51) })},
		"scale":                {sockets, spoiled(func(e *tcp_stream.TcpStreamEntry) { e.OptMask, e.SndWscale = proto.Uint32(4), proto.Uint32(300) })},
		"entry that lies":      {sockets, append(bytes.Clone(stream[:8]), 0xff, 0xff, 0xff, 0x7f)},
		"garbage entry":        {sockets, append(bytes.Clone(stream[:8]), 2, 0, 0, 0, 0xff, 0xff)},
	} {
		if _, err := read(tt.sockets, tt.stream); !errors.Is(err, repair.ErrInvalid) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, spoil := range map[string]func(*sk_inet.InetSkEntry){
		"closed":  func(e *sk_inet.InetSkEntry) { e.State = proto.Uint32(7) },
		"state":   func(e *sk_inet.InetSkEntry) { e.State = proto.Uint32(256 + 1) },
		"port":    func(e *sk_inet.InetSkEntry) { e.SrcPort = proto.Uint32(65536 + 80) },
		"address": func(e *sk_inet.InetSkEntry) { e.SrcAddr = nil },
		"words":   func(e *sk_inet.InetSkEntry) { e.DstAddr = make([]uint32, 5) },
		"family":  func(e *sk_inet.InetSkEntry) { e.Family = proto.Uint32(1) },
	} {
		e := socketEntry(s, 7)
		spoil(e)
		var b bytes.Buffer
		if err := writeImage(&b, magicInetSk, e); err != nil {
			t.Fatal(err)
		}
		if _, err := read(b.Bytes(), stream); !errors.Is(err, repair.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	list, err := ReadSockets(bytes.NewReader(sockets))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := list[0].Snapshot(nil, repair.Limits{}); !errors.Is(err, repair.ErrInvalid) {
		t.Errorf("no stream: %v", err)
	}
}

// Newer versions of CRIU keep sockets among the files of other kinds.
func TestFilesImage(t *testing.T) {
	s := example(repair.StateEstablished)
	udp := socketEntry(s, 5)
	udp.Type, udp.Proto = proto.Uint32(2), proto.Uint32(17)
	entries := []proto.Message{
		&fdinfo.FileEntry{Type: fdinfo.FdTypes_PIPE.Enum(), Id: proto.Uint32(1)},
		&fdinfo.FileEntry{Type: fdinfo.FdTypes_INETSK.Enum(), Id: proto.Uint32(2), Isk: udp},
		&fdinfo.FileEntry{Type: fdinfo.FdTypes_INETSK.Enum(), Id: proto.Uint32(3), Isk: socketEntry(s, 7)},
	}
	var b bytes.Buffer
	if err := writeImage(&b, magicFiles, entries...); err != nil {
		t.Fatal(err)
	}
	got, err := read(b.Bytes(), streamOf(t, s))
	if err != nil || !reflect.DeepEqual(got.Core, s.Core) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDir(t *testing.T) {
	dir := t.TempDir()
	listener := &repair.Snapshot{Core: repair.Core{Local: netip.MustParseAddrPort("0.0.0.0:80"), State: repair.StateListen}}
	conns := []Connection{{0x1a2b, example(repair.StateEstablished)}, {3, listener}, {4, example(repair.StateLastAck)}}
	names, err := WriteDir(dir, conns...)
	if err != nil || !slices.Equal(names, []string{"inetsk.img", "tcp-stream-1a2b.img", "tcp-stream-4.img"}) {
		t.Fatalf("%q, %v", names, err)
	}
	got, err := ReadDir(dir, repair.Limits{})
	if err != nil || len(got) != 3 {
		t.Fatalf("%d, %v", len(got), err)
	}
	for i, c := range got {
		if c.Inode != conns[i].Inode || !reflect.DeepEqual(c.Snapshot.Core, conns[i].Snapshot.Core) {
			t.Errorf("%d: got %+v", i, c)
		}
	}
	one, err := ReadFile(filepath.Join(dir, "tcp-stream-1a2b.img"), repair.Limits{})
	if err != nil || one.Inode != 0x1a2b || !reflect.DeepEqual(one.Snapshot.Core, conns[0].Snapshot.Core) {
		t.Errorf("%+v, %v", one, err)
	}
	for _, name := range []string{"tcp-stream-9.img", "tcp-stream-1A2B.img", "inetsk.img", "tcp-stream-.img"} {
		if _, err := ReadFile(filepath.Join(dir, name), repair.Limits{}); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	// A socket without a stream is no connection of this dump.
	if err := os.Remove(filepath.Join(dir, "tcp-stream-4.img")); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadDir(dir, repair.Limits{}); err != nil || len(got) != 2 {
		t.Errorf("%d, %v", len(got), err)
	}
	if _, err := ReadDir(t.TempDir(), repair.Limits{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// Nothing is overwritten, and nothing half-done left.
func TestWriteDirFails(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "tcp-stream-2.img")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := example(repair.StateEstablished)
	names, err := WriteDir(dir, Connection{1, s}, Connection{2, s})
	if !errors.Is(err, fs.ErrExist) || names != nil {
		t.Errorf("%q, %v", names, err)
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 {
		t.Errorf("left: %v, %v", list, err)
	}
	if b, err := os.ReadFile(there); string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
}

// FuzzImages reads anything as the two images.
func FuzzImages(f *testing.F) {
	for _, state := range convertibles {
		s := example(state)
		f.Add(socketsOf(f, Connection{1, s}), streamOf(f, s))
	}
	f.Fuzz(func(t *testing.T, sockets, stream []byte) {
		list, err := ReadSockets(bytes.NewReader(sockets))
		if err != nil {
			return
		}
		for _, sk := range list {
			s, err := sk.Snapshot(bytes.NewReader(stream), repair.Limits{})
			if err != nil {
				continue
			}
			if err := s.Validate(); err != nil {
				t.Fatal(err)
			}
			if s.State == repair.StateListen {
				continue
			}
			again, err := read(socketsOf(t, Connection{1, s}), streamOf(t, s))
			if err != nil {
				t.Fatal(err)
			}
			again.Timestamp = s.Timestamp // an old kernel's may have any last bit
			if !reflect.DeepEqual(again.Core, s.Core) {
				t.Fatalf("got  %+v\nwant %+v", again.Core, s.Core)
			}
		}
	})
}

func TestMagics(t *testing.T) {
	b := streamOf(t, example(repair.StateEstablished))
	if binary.LittleEndian.Uint32(b) != 0x54564319 || binary.LittleEndian.Uint32(b[4:]) != 0x51465506 {
		t.Errorf("% x", b[:8])
	}
}
