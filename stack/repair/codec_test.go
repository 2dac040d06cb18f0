package repair

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"hash/crc32"
	"io"
	"math"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

func encode(t testing.TB, s *Snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := s.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("wrote %d bytes of %d: %v", n, b.Len(), err)
	}
	return b.Bytes()
}

// sealed replaces the checksum with the right one.
func sealed(b []byte) []byte {
	b = bytes.Clone(b[:len(b)-4])
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genSnapshot(t, false)
		var b bytes.Buffer
		if _, err := want.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		b.WriteString("and more")
		got, err := Read(iotest.HalfReader(&b), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, want)
		if b.String() != "and more" {
			t.Fatalf("%d bytes are left", b.Len())
		}
	})
}

func TestRoundTripStates(t *testing.T) {
	for _, s := range append(states, StateListen) {
		want := listener()
		if s != StateListen {
			want = possible(s)
		}
		got, err := Read(bytes.NewReader(encode(t, want)), Limits{})
		if err != nil {
			t.Fatalf("%v: %v", s, err)
		}
		same(t, got, want)
		if err := got.Validate(); err != nil {
			t.Errorf("%v: %v", s, err)
		}
	}
}

// The bytes of the form are fixed: files of today are read tomorrow.
func TestGolden(t *testing.T) {
	const name = "testdata/listener-v1.hex"
	if *update {
		if err := os.WriteFile(name, []byte(hex.Dump(encode(t, listener()))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.Dump(encode(t, listener())); got != string(want) {
		t.Errorf("the form has changed:\n%s", got)
	}
}

var update = flag.Bool("update", false, "write testdata")

func TestManyInOneStream(t *testing.T) {
	want := []*Snapshot{possible(StateEstablished), listener(), possible(StateTimeWait), idle()}
	var b bytes.Buffer
	for _, s := range want {
		if _, err := s.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
	}
	whole := b.Bytes()
	got, err := ReadAll(iotest.OneByteReader(bytes.NewReader(whole)), Limits{})
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d snapshots, %v", len(got), err)
	}
	for i := range want {
		same(t, got[i], want[i])
	}
	got, err = ReadAll(bytes.NewReader(whole[:len(whole)-1]), Limits{})
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(got) != 3 {
		t.Errorf("%d snapshots, %v", len(got), err)
	}
	got, err = ReadAll(strings.NewReader(""), Limits{})
	if err != nil || len(got) != 0 {
		t.Errorf("%d snapshots, %v", len(got), err)
	}
}

// An idle connection, with everything that is carried along, takes no more
// than 400 bytes.
func TestIdleSize(t *testing.T) {
	s := idle()
	six := len(encode(t, s))
	s.Local, s.Remote = netip.MustParseAddrPort("10.0.0.2:80"), netip.MustParseAddrPort("10.0.0.1:4000")
	four := len(encode(t, s))
	s.Extra = nil
	t.Logf("IPv6 %d bytes, IPv4 %d, the core alone %d", six, four, len(encode(t, s)))
	if six > 400 || four > 400 {
		t.Errorf("IPv6 %d bytes, IPv4 %d", six, four)
	}
}

func TestTruncated(t *testing.T) {
	for _, s := range []*Snapshot{possible(StateEstablished), listener()} {
		whole := encode(t, s)
		for n := range whole {
			_, err := Read(bytes.NewReader(whole[:n]), Limits{})
			if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(err.Error(), "the snapshot is cut short in its ") || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%d bytes of %d: %v", n, len(whole), err)
			}
		}
		if _, err := Read(bytes.NewReader(whole), Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Read(iotest.ErrReader(errFake), Limits{}); !errors.Is(err, errFake) {
		t.Error(err)
	}
}

// Whichever bit is wrong, the snapshot is refused.
func TestDamaged(t *testing.T) {
	whole := encode(t, listener())
	for i := range len(whole) * 8 {
		damaged := bytes.Clone(whole)
		damaged[i/8] ^= 1 << (i % 8)
		_, err := Read(bytes.NewReader(damaged), Limits{})
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("bit %d of byte %d: %v", i%8, i/8, err)
		}
	}
}

func TestVersion(t *testing.T) {
	whole := encode(t, idle())
	whole[7] = 9
	_, err := Read(bytes.NewReader(sealed(whole)), Limits{})
	if !errors.Is(err, ErrInvalid) || err.Error() != "snapshot version 9, this program knows up to 1" {
		t.Error(err)
	}
	for _, other := range []string{"\x89PNG\r\n\x1a\n", "{", "\x89USNAQ\x00\x01", "\x7fELF and so on"} {
		if _, err := Read(strings.NewReader(other), Limits{}); err == nil || err.Error() != "this is not a snapshot" {
			t.Errorf("%q: %v", other, err)
		}
	}
}

func TestLimits(t *testing.T) {
	whole := encode(t, listener())
	for want, l := range map[string]Limits{
		"the send queue of 20 bytes is larger than the limit of 19": {Queue: 19},
		"3 children are more than the limit of 2":                   {Children: 2},
		"bytes is larger than the limit of 1":                       {Extra: 1},
	} {
		if _, err := Read(bytes.NewReader(whole), l); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", l, err)
		}
	}
	s := possible(StateEstablished)
	s.SendQueue, s.Unsent, s.Extra.Sent = nil, 0, nil
	for want, l := range map[string]Limits{
		"the receive queue of 6 bytes is larger than the limit of 5": {Queue: 5},
		"the held data of 16 bytes is larger than the limit of 15":   {Queue: 15},
	} {
		if _, err := Read(bytes.NewReader(encode(t, s)), l); !errors.Is(err, ErrInvalid) || err.Error() != want {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Snapshot){
		"unsent":     func(s *Snapshot) { s.Unsent = -1 },
		"too unsent": func(s *Snapshot) { s.Unsent = 21 },
		"queue":      func(s *Snapshot) { s.RecvQueue = repeat(make([]byte, 1<<20), 1025) },
		"grandchild": func(s *Snapshot) { s.Children = []*Snapshot{listener()} },
		"no child":   func(s *Snapshot) { s.Children = []*Snapshot{nil} },
		"zone": func(s *Snapshot) {
			s.Local = netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(strings.Repeat("z", 256)), 1)
		},
	} {
		s := possible(StateEstablished)
		spoil(s)
		var b bytes.Buffer
		if n, err := s.WriteTo(&b); !errors.Is(err, ErrInvalid) || n != 0 || b.Len() != 0 {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

// pointers keeps where what is written lies.
type pointers struct{ at map[*byte]bool }

func (p pointers) Write(b []byte) (int, error) {
	p.at[&b[0]] = true
	return len(b), nil
}

// A queue is written from where it lies: it is not held twice.
func TestWriteDoesNotCopy(t *testing.T) {
	s := possible(StateEstablished)
	s.SendQueue = Bytes{make([]byte, 3<<20), make([]byte, 5)}
	s.Extra.Held = []Span{{Seq: s.RcvNxt() + 9, Data: Bytes{make([]byte, 1<<20)}}}
	w := pointers{map[*byte]bool{}}
	if _, err := s.WriteTo(w); err != nil {
		t.Fatal(err)
	}
	for _, p := range [][]byte{s.SendQueue[0], s.SendQueue[1], s.RecvQueue[0], s.Extra.Held[0].Data[0]} {
		if !w.at[&p[0]] {
			t.Errorf("a piece of %d bytes was copied", len(p))
		}
	}
}

func TestWriteFails(t *testing.T) {
	whole := encode(t, possible(StateEstablished))
	for n := range whole {
		wrote, err := possible(StateEstablished).WriteTo(&shortWriter{n})
		if !errors.Is(err, errFake) || wrote != int64(n) {
			t.Fatalf("room for %d: %d, %v", n, wrote, err)
		}
	}
}

type shortWriter struct{ room int }

func (w *shortWriter) Write(p []byte) (int, error) {
	if len(p) > w.room {
		n := w.room
		w.room = 0
		return n, errFake
	}
	w.room -= len(p)
	return len(p), nil
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Lengths that lie are believed only as far as the bytes go.
func TestLyingLengths(t *testing.T) {
	s := possible(StateEstablished)
	s.SendQueue, s.Unsent, s.Extra, s.RecvQueue = nil, 0, nil, nil
	core := appendCore(nil, s, 0)
	lying := func(send, recv, blobs, children uint64) []byte {
		head := core[:2+1+2*(1+16+2)+4+4] // up to the lengths
		c := bytes.Clone(head)
		for _, n := range []uint64{send, 0, recv, blobs, children} {
			c = binary.AppendUvarint(c, n)
		}
		c = append(c, core[len(head)+5:]...)
		b := append([]byte(magic), 0, 1)
		b = binary.BigEndian.AppendUint16(b, uint16(len(c)))
		b = binary.BigEndian.AppendUint32(b, 0)
		return append(b, c...)
	}
	if got, err := Read(bytes.NewReader(sealed(append(lying(0, 0, 0, 0), 0, 0, 0, 0))), Limits{}); err != nil {
		t.Fatalf("the honest one: %v", err)
	} else {
		same(t, got, s)
	}
	extraLies := append([]byte(magic), 0, 1, 0, 50, 0, 0x40, 0, 0)
	for name, b := range map[string][]byte{
		"send":     lying(DefaultQueueLimit, 0, 0, 0),
		"receive":  lying(0, DefaultQueueLimit, 0, 0),
		"held":     lying(0, 0, DefaultQueueLimit, 0),
		"children": lying(0, 0, 0, DefaultChildrenLimit),
		"extra":    extraLies,
	} {
		b = append(b, make([]byte, 100)...)
		var err error
		n := allocated(func() { _, err = Read(bytes.NewReader(b), Limits{}) })
		if err == nil || n > 64<<10+8<<10 {
			t.Errorf("%s: %d bytes allocated, %v", name, n, err)
		}
	}
}

// Fields with numbers that this program does not know are skipped, whatever
// they are, and wherever.
func TestUnknownFieldsAreSkipped(t *testing.T) {
	type later struct {
		ISS  uint32           `wire:"1"`
		Sent []SentSegment    `wire:"5"`
		Held []Span           `wire:"6"`
		New1 string           `wire:"1000"`
		New2 map[string]int64 `wire:"1001"`
		New3 Bytes            `wire:"1002"`
		New4 int64            `wire:"1003"`
		New5 struct {
			A Bytes `wire:"1"`
		} `wire:"1004"`
	}
	v := later{
		ISS: 7, Sent: []SentSegment{{Seq: 1, Len: 2}}, Held: []Span{{5, Bytes{[]byte("held")}}},
		New1: "new", New2: map[string]int64{"a": 1}, New3: Bytes{[]byte("of later")}, New4: -5,
	}
	v.New5.A = Bytes{[]byte("deep")}
	p, err := planOf(reflect.TypeFor[later]())
	if err != nil {
		t.Fatal(err)
	}
	var e encoder
	e.extra(reflect.ValueOf(v), p)
	var got Extra
	refs, err := readExtra(&got, bases{}, e.buf)
	if err != nil {
		t.Fatal(err)
	}
	if err := resolve(refs, e.blobs); err != nil {
		t.Fatal(err)
	}
	want := Extra{ISS: v.ISS, Sent: v.Sent, Held: v.Held}
	same(t, &Snapshot{Extra: &got}, &Snapshot{Extra: &want})
}

// Numbers of the extra part are there, go up, and only go with types that can
// be encoded.
func TestWireTags(t *testing.T) {
	if _, err := planOf(reflect.TypeFor[Extra]()); err != nil {
		t.Error(err)
	}
	for _, bad := range []any{
		struct{ A int }{},
		struct {
			A int `wire:"0"`
		}{},
		struct {
			A int `wire:"x"`
		}{},
		struct {
			A int `wire:"1"`
			B int `wire:"1"`
		}{},
		struct {
			A int `wire:"2"`
			B int `wire:"1"`
		}{},
		struct {
			A float64 `wire:"1"`
		}{},
		struct {
			A any `wire:"1"`
		}{},
		struct {
			A [][]int `wire:"1"`
		}{},
		struct {
			A map[int]int `wire:"1"`
		}{},
		struct {
			A map[string]string `wire:"1"`
		}{},
		struct {
			A *string `wire:"1"`
		}{},
		struct {
			A []struct{} `wire:"1"`
		}{},
		struct {
			A struct{ B int } `wire:"1"`
		}{},
	} {
		if _, err := planOf(reflect.TypeOf(bad)); err == nil {
			t.Errorf("%T was accepted", bad)
		}
	}
}

func TestDurations(t *testing.T) {
	for _, tt := range []struct{ d, want time.Duration }{
		{0, 0}, {1, 1}, {-1, -1}, {time.Millisecond, time.Millisecond}, {-time.Hour, -time.Hour}, {time.Hour + 1, time.Hour + 1},
		{longest, longest}, {-longest, -longest}, {math.MaxInt64, longest}, {math.MinInt64, -longest},
	} {
		if got := time.Duration(duration(durationCode(int64(tt.d)))); got != tt.want {
			t.Errorf("%d becomes %d, not %d", tt.d, got, tt.want)
		}
	}
	for _, code := range []uint64{math.MaxUint64, math.MaxUint64 - 1, math.MaxUint64 - 2} {
		if d := duration(code); d > math.MaxInt64/2+1 || d < math.MinInt64/2 {
			t.Errorf("%x becomes %d", code, d)
		}
	}
}

func TestMalformedExtra(t *testing.T) {
	for name, b := range map[string][]byte{
		"no value":              {1 << 1},
		"number that goes on":   {1 << 1, 0x80},
		"number too large":      {1 << 1, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"length beyond the end": {3<<1 | 1, 5, 0},
		"wrong kind":            {3 << 1, 5},
		"other wrong kind":      {1<<1 | 1, 1, 5},
		"number 0":              {0, 5},
		"twice":                 {1 << 1, 5, 1 << 1, 5},
		"descending":            {2 << 1, 5, 1 << 1, 5},
		"unknown, no value":     {0x80, 0x10},
		"unknown, too long":     {0x81, 0x10, 7, 0},
		"empty element":         {5<<1 | 1, 1, 0},
		"held data backwards":   {6<<1 | 1, 12, 5, 2<<1 | 1, 2, 4, 2, 5, 2<<1 | 1, 2, 0, 2},
		"held data nowhere":     {6<<1 | 1, 6, 5, 2<<1 | 1, 2, 0, 2},
	} {
		var e Extra
		refs, err := readExtra(&e, bases{}, b)
		if err == nil {
			err = resolve(refs, nil)
		}
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []*Snapshot{possible(StateEstablished), listener(), idle(), possible(StateSynSent), possible(StateTimeWait)} {
		f.Add(encode(f, s)[:len(encode(f, s))-4])
	}
	f.Add([]byte{})
	f.Add([]byte(magic + "\x00\x02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = sealed(append(bytes.Clone(b), 0, 0, 0, 0)) // or the checksum ends it all
		s, err := Read(bytes.NewReader(b), Limits{})
		if err != nil {
			return
		}
		_ = s.Validate()
		again, err := Read(bytes.NewReader(encode(t, s)), Limits{})
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		same(t, again, s)
	})
}

func BenchmarkWriteIdle(b *testing.B) {
	s := idle()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadIdle(b *testing.B) {
	whole := encode(b, idle())
	r := bytes.NewReader(whole)
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(whole)
		if _, err := Read(r, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
