package repair

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// genSnapshot draws any Snapshot that can be written, possible or not.
func genSnapshot(t *rapid.T, child bool) *Snapshot {
	s := new(Snapshot)
	genValue(t, reflect.ValueOf(&s.Core).Elem(), 0)
	s.Unsent = rapid.IntRange(0, s.SendQueue.Len()).Draw(t, "unsent")
	if rapid.Bool().Draw(t, "extra") {
		s.Extra = new(Extra)
		genValue(t, reflect.ValueOf(s.Extra).Elem(), 0)
	}
	if !child {
		for range rapid.IntRange(0, 3).Draw(t, "children") {
			s.Children = append(s.Children, genSnapshot(t, true))
		}
	}
	return s
}

var genAddr = rapid.Custom(func(t *rapid.T) netip.AddrPort {
	port := rapid.Uint16().Draw(t, "port")
	var raw [16]byte
	copy(raw[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))
	var addr netip.Addr
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return netip.AddrPort{}
	case 1:
		addr = netip.AddrFrom4([4]byte(raw[:]))
	case 2:
		addr = netip.AddrFrom16(raw)
	case 3:
		addr = netip.AddrFrom16(netip.AddrFrom4([4]byte(raw[:])).As16())
	case 4:
		raw[0] = 0xfe // not a mapped address: those have no zone
		addr = netip.AddrFrom16(raw).WithZone(rapid.StringMatching(`[a-z0-9]{0,15}`).Draw(t, "zone"))
	}
	return netip.AddrPortFrom(addr, port)
})

// genValue fills v with anything of its type.
func genValue(t *rapid.T, v reflect.Value, depth int) {
	switch p := v.Addr().Interface().(type) {
	case *netip.AddrPort:
		*p = genAddr.Draw(t, "addr")
		return
	case *State:
		*p = State(rapid.IntRange(1, 11).Draw(t, "state"))
		return
	case *time.Duration:
		unit := rapid.SampledFrom([]time.Duration{1, time.Millisecond, time.Hour}).Draw(t, "unit")
		n := int64(longest / unit)
		*p = time.Duration(rapid.Int64Range(-n, n).Draw(t, "duration")) * unit
		return
	case *TimerKind:
		*p = TimerKind(rapid.IntRange(1, 9).Draw(t, "timer"))
		return
	case *Bytes:
		for range rapid.IntRange(0, 3).Draw(t, "pieces") {
			*p = append(*p, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data"))
		}
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "int"))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(rapid.Uint64().Draw(t, "uint") >> (64 - v.Type().Bits()))
	case reflect.String:
		v.SetString(rapid.String().Draw(t, "string"))
	case reflect.Struct:
		for i := range v.NumField() {
			genValue(t, v.Field(i), depth+1)
		}
	case reflect.Slice:
		n := rapid.IntRange(0, 4).Draw(t, "len")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			genValue(t, v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(rapid.MapOfN(rapid.String(), rapid.Int64(), 0, 5).Draw(t, "map")))
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "there") {
			v.Set(reflect.New(v.Type().Elem()))
			genValue(t, v.Elem(), depth+1)
		}
	default:
		t.Fatalf("what is a %v?", v.Type())
	}
}

// same reports a difference between two Snapshots. How bytes are cut into
// pieces is none.
func same(t interface{ Fatalf(string, ...any) }, got, want *Snapshot) {
	diff := cmp.Diff(want, got,
		cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(Snapshot{}), cmpopts.EquateComparable(netip.AddrPort{}),
		cmp.FilterValues(func(a, b Bytes) bool { return len(a)+len(b) > 0 }, // or EquateEmpty applies
			cmp.Comparer(func(a, b Bytes) bool { return string(join(a)) == string(join(b)) })))
	if diff != "" {
		t.Fatalf("not the same (-want +got):\n%s", diff)
	}
}

// idle is an established connection at rest, with everything that a moved one
// carries.
func idle() *Snapshot {
	s := possible(StateEstablished)
	s.SendQueue, s.RecvQueue, s.Unsent = nil, nil, 0
	s.Extra = &Extra{
		ISS: 0x9abcdef0, IRS: 0x87654321, TSRecent: 0x87654321, TSRecentAge: 12345 * time.Millisecond, Advertised: 0x80001234,
		Congestion: Congestion{Name: "cubic", Window: 1 << 24, Threshold: 1 << 23, Point: 0xfffffff0, State: map[string]int64{
			"owed": 1 << 20, "w_est_owed": 1 << 20, "w_max": 1 << 24, "cwnd_prior": 1 << 24, "k": 1 << 33, "t": 1 << 33, "w_est": 1 << 24,
			"hystart_round_min_us": 1 << 16, "hystart_last_min_us": 1 << 16, "hystart_baseline_us": 1 << 16, "hystart_samples": 8,
		}},
		RTT:     RTT{Smoothed: 100 * time.Millisecond, Variance: 20 * time.Millisecond, Min: 90 * time.Millisecond},
		ECN:     ECN{Agreed: true},
		PathMSS: 1440,
		Socket: SocketOptions{
			Keepalive: true, KeepaliveIdle: 2 * time.Hour, KeepaliveInterval: 75 * time.Second, KeepaliveCount: 9,
			SendBuffer: 1 << 20, SendBufferMax: 4 << 20, RecvBuffer: 1 << 20, RecvBufferMax: 6 << 20,
		},
		Timers:   []Timer{{Kind: TimerKeepalive, Left: 7199 * time.Second}},
		SYNSends: 1,
		Recovery: Recovery{
			Sent: 1 << 30, Seen: true, SeenEnd: s.SendSeq, SeenAge: 7200 * time.Second, SeenRTT: 100 * time.Millisecond, Steps: 1,
			Round: s.SendSeq, MostInFlight: 1 << 24, LimitedUntil: s.SendSeq - 1<<15,
		},
		Activity: Activity{
			DataSent: 7200 * time.Second, DataReceived: 7200 * time.Second, Received: 7200 * time.Second, SmallEnd: s.SendSeq,
			RecvMSS: 1440, QuickACKs: 15, RecvRTT: 100 * time.Millisecond, Taken: 1 << 20, MostTaken: 1 << 20,
		},
	}
	// Segments and bytes of a gigabyte each way, and the rarer things.
	s.Extra.Counters = []uint64{
		1 << 20, 1 << 20, 1 << 30, 1 << 30, 1 << 30, 1 << 30, 1 << 16, 1000, 100, 1, 1, 100, 0, 10, 5, 1, 1, 0, 10, 1, 0, 0,
	}
	return s
}

func TestIdleIsPossible(t *testing.T) {
	if err := idle().Validate(); err != nil {
		t.Error(err)
	}
}
