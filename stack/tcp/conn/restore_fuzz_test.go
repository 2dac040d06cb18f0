package conn

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tcprepair/ustack/stack/repair"
)

// spoil overwrites a field of v, at any depth, of the tape's choice.
func (t *tape) spoil(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if n := v.NumField(); n > 0 {
			if f := v.Field(int(t.byte()) % n); f.CanSet() {
				t.spoil(f)
			}
		}
	case reflect.Pointer:
		if v.IsNil() && v.Type().Elem().Kind() == reflect.Uint32 {
			v.Set(reflect.New(v.Type().Elem()))
		}
		if !v.IsNil() {
			t.spoil(v.Elem())
		}
	case reflect.Slice:
		n := v.Len()
		k := t.byte()
		switch {
		case v.Type().Elem().Kind() == reflect.Uint8: // the connection's memory
		case k < 16:
			v.SetLen(n / 2)
		case k < 64 || n == 0:
			if n < 1000 {
				more := reflect.New(v.Type().Elem()).Elem()
				if n > 0 {
					more.Set(v.Index(int(k) % n))
				}
				v.Set(reflect.Append(v, more))
			}
		default:
			t.spoil(v.Index(int(k) % n))
		}
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(t.number(v.Int()))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(t.number(int64(v.Uint()))))
	case reflect.String:
		v.SetString([]string{"", "reno", "cubic", "bbr"}[t.byte()%4])
	case reflect.Map:
		if keys := v.MapKeys(); len(keys) > 0 {
			// A map has no order; all its values get the same.
			n := reflect.ValueOf(t.number(0))
			for _, k := range keys {
				v.SetMapIndex(k, n)
			}
		}
	}
}

// number is one near old, or anywhere.
func (t *tape) number(old int64) int64 {
	k := t.byte()
	if k&1 == 0 {
		return old + int64(int8(t.byte()))
	}
	return int64(int8(t.byte())) << (k >> 2)
}

// FuzzRestore drives a connection, reads it out, spoils what was read and sets
// it down again. Whatever comes of that must keep the invariants, at once and
// while it is driven on; what is refused must have changed nothing.
func FuzzRestore(f *testing.F) {
	for how := range 4 {
		f.Add([]byte{byte(how), 0x3f, 0, 1, 0, 2, 5, 180, 255, 255, 255, 255, 0, 9, 255, 255, 15, 5, 7, 5, 180,
			10, 40, 0, 16, 0x10, 0, 0, 0, 0x20, 1, 0, 0, 0, 200, 9, 9, 30, 14, 9, 12 + 16, 9, 9}, []byte{1, 3, 0, 9, 1, 4}, byte(how))
	}
	f.Fuzz(func(t *testing.T, life, spoilt []byte, how byte) {
		in := &tape{life}
		d := newDriven(t, in)
		defer d.c.Release()
		for n := 0; in.more() && n < 200; n++ {
			d.step(in)
		}
		d.c.SetRepair(d.now, repair.On)
		snap, err := d.c.Snapshot(d.now, nil)
		if err != nil {
			return
		}
		defer snap.Release()
		sound := len(spoilt) == 0
		snap.Local, snap.Remote = netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
		if err := snap.Validate(); err != nil {
			t.Fatalf("what was read out of %s cannot be: %v", d.c.State(), err)
		}
		if how&1 != 0 {
			snap.Extra = nil
		}
		tp := &tape{spoilt}
		for n := 0; tp.more() && n < 100; n++ {
			if k := tp.byte(); k%2 == 0 || snap.Extra == nil {
				tp.spoil(reflect.ValueOf(&snap.Core).Elem())
			} else {
				tp.spoil(reflect.ValueOf(snap.Extra).Elem())
			}
		}
		cfg := Config{MSS: 100 + uint16(how)<<3, RcvBuf: 1 << (how >> 4), SndBufMax: 1 << 20, SACK: true, RACK: how&2 != 0}
		e := &driven{t: t, now: Time(time.Hour) * Time(how>>2)}
		err = e.c.Restore(e.now, &cfg, snap)
		if err != nil {
			if sound {
				t.Fatalf("what was read out of %s is refused: %v", d.c.State(), err)
			}
			if e.c.state != 0 || e.c.frozen || e.c.sendq.chunks != nil {
				t.Fatal("refused, and something changed")
			}
			return
		}
		defer e.c.Release()
		e.drain()
		again, err := e.c.Snapshot(e.now, nil)
		if err != nil {
			t.Fatal(err)
		}
		var twice Conn
		if err := twice.Restore(e.now, &cfg, again); err != nil {
			t.Fatalf("what was restored cannot be restored again: %v", err)
		}
		twice.Release()
		again.Release()
		e.c.SetRepair(e.now, repair.Off)
		e.drain()
		tp = &tape{append(spoilt, life...)}
		for n := 0; tp.more() && n < 200; n++ {
			e.step(tp)
		}
		e.input(&Segment{Seq: e.c.rcv.nxt, Ack: e.c.snd.nxt, Flags: header.TCPFlagAck, Window: 1000})
		for range 50 {
			if at := e.c.Deadline(); at != Never {
				e.now = max(e.now, at)
				e.c.Tick(e.now)
				e.drain()
			}
		}
	})
}
