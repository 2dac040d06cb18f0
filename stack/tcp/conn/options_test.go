package conn

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func TestParseOptions(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []byte
		syn  bool
		want Options
	}{
		{"none", nil, true, Options{}},
		{"a Linux SYN", []byte{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7}, true,
			Options{MSS: 1460, SACKPermitted: true, HasTS: true, TSVal: 9, HasWScale: true, WScale: 7}},
		{"SYN options on another segment are ignored", []byte{2, 4, 5, 180, 4, 2, 3, 3, 7, 0}, false, Options{}},
		{"SACK on a SYN is ignored", []byte{5, 10, 0, 0, 0, 1, 0, 0, 0, 2}, true, Options{}},
		{"shift above 14 counts as 14", []byte{3, 3, 15, 0}, true, Options{HasWScale: true, WScale: 14}},
		{"padded timestamp", []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, false, Options{HasTS: true, TSVal: 1, TSEcr: 2}},
		{"timestamp at odd offset", []byte{8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0}, false, Options{HasTS: true, TSVal: 1, TSEcr: 2}},
		{"after end of list nothing counts", []byte{0, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0}, false, Options{}},
		{"unknown options are skipped", []byte{254, 4, 1, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1}, false, Options{HasTS: true, TSVal: 1, TSEcr: 2}},
		{"length zero ends the parse", []byte{8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 7, 0}, false, Options{HasTS: true, TSVal: 1, TSEcr: 2}},
		{"length one ends the parse", []byte{7, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, false, Options{}},
		{"length past the end ends the parse", []byte{8, 12, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1}, false, Options{}},
		{"kind without length", []byte{1, 1, 1, 8}, false, Options{}},
		{"MSS of wrong length", []byte{2, 3, 5, 1, 4, 2, 1, 1}, true, Options{SACKPermitted: true}},
		{"SACK of wrong length", []byte{5, 9, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1}, false, Options{}},
		{"two SACK blocks", []byte{1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4}, false,
			Options{NumSACK: 2, SACK: [4]header.SACKBlock{{Start: 1, End: 2}, {Start: 3, End: 4}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Options{MSS: 1, WScale: 9, NumSACK: 3} // what was there must go
			ParseOptions(tc.in, tc.syn, &got)
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// Linux's order on a SYN, with and without timestamps.
func TestEncodeOptionsInLinuxOrder(t *testing.T) {
	for _, tc := range []struct {
		o    Options
		want []byte
	}{
		{Options{MSS: 1460, SACKPermitted: true, HasTS: true, TSVal: 9, HasWScale: true, WScale: 7},
			[]byte{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7}},
		{Options{MSS: 1460, SACKPermitted: true, HasWScale: true, WScale: 7},
			[]byte{2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 7}},
		{Options{HasTS: true, TSVal: 1, TSEcr: 2}, []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}},
	} {
		var b [MaxOptionsLen]byte
		n := tc.o.Encode(b[:])
		if d := cmp.Diff(tc.want, b[:n]); d != "" || n != tc.o.Len() {
			t.Errorf("%s: length %d, Len says %d (-want +got)\n%s", &tc.o, n, tc.o.Len(), d)
		}
	}
}

// Whatever bytes come, the parse ends, and what it found can be sent again.
func FuzzParseOptions(f *testing.F) {
	f.Add([]byte{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7}, true)
	f.Add([]byte{1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4}, false)
	f.Fuzz(func(t *testing.T, in []byte, syn bool) {
		if len(in) > MaxOptionsLen {
			in = in[:MaxOptionsLen]
		}
		var o, again Options
		ParseOptions(in, syn, &o)
		var b [MaxOptionsLen]byte
		n := o.Encode(b[:])
		if n != o.Len() || n%4 != 0 {
			t.Fatalf("%s: encoded %d bytes, Len says %d", &o, n, o.Len())
		}
		ParseOptions(b[:n], syn, &again)
		if o != again {
			t.Fatalf("%s became %s", &o, &again)
		}
	})
}
