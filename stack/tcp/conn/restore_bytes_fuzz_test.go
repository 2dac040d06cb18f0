package conn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tcprepair/ustack/stack/repair"
)

// image is the binary form of what a tape makes of a connection, without the
// checksum. Nil: it cannot be read out.
func image(t testing.TB, tp []byte) []byte {
	in := &tape{tp}
	d := newDriven(t, in)
	defer d.c.Release()
	for n := 0; in.more() && n < 200; n++ {
		d.step(in)
	}
	d.c.SetRepair(d.now, repair.On)
	snap, err := d.c.Snapshot(d.now, nil)
	if err != nil {
		return nil
	}
	defer snap.Release()
	snap.Local, snap.Remote = netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
	var b bytes.Buffer
	if _, err := snap.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()[:b.Len()-4]
}

// sealed adds the checksum, which would otherwise end nearly every attempt.
func sealed(b []byte) []byte {
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return binary.BigEndian.AppendUint32(bytes.Clone(b), sum)
}

// FuzzRestoreBytes reads a snapshot from arbitrary bytes, sets it down and
// drives what comes of it with segments, time and user calls. There may be no
// panic, no hang and no more memory than the bytes justify, and the invariants
// hold; what is refused has changed nothing.
func FuzzRestoreBytes(f *testing.F) {
	life := []byte{0x3f, 0, 1, 0, 2, 5, 180, 255, 255, 255, 255, 0, 9, 255, 255, 15, 5, 7, 5, 180}
	script := []byte{10, 40, 0, 16, 0x10, 0, 0, 0, 0x20, 1, 0, 0, 0, 200, 9, 9, 30, 14, 9, 12 + 16, 9, 9}
	for how := range byte(4) {
		whole := append(append([]byte{how}, life...), script...)
		for n := len(life) + 1; n <= len(whole); n += 3 {
			if b := image(f, whole[:n]); b != nil {
				f.Add(b, script, how)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b, script []byte, how byte) {
		b = sealed(b)
		snap, err := repair.Read(bytes.NewReader(b), repair.Limits{Queue: 1 << 20, Extra: 1 << 18, Children: 8})
		if err != nil {
			return
		}
		cfg := Config{MSS: 100 + uint16(how)<<3, RcvBuf: 1 << (how >> 4), SndBufMax: 1 << 20, SACK: true, RACK: how&2 != 0}
		d := &driven{t: t, now: Time(time.Hour) * Time(how>>2)}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err = d.c.Restore(d.now, &cfg, snap)
		runtime.ReadMemStats(&after)
		if n, most := after.TotalAlloc-before.TotalAlloc, uint64(2<<20+1000*len(b)); n > most {
			t.Fatalf("restoring %d bytes took %d bytes of memory", len(b), n)
		}
		if err != nil {
			if d.c.state != 0 || d.c.frozen || d.c.sendq.chunks != nil {
				t.Fatal("refused, and something changed")
			}
			if !errors.Is(err, repair.ErrInvalid) && !errors.Is(err, repair.ErrState) && !errors.Is(err, repair.ErrTooBig) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		defer d.c.Release()
		d.drain()
		d.c.SetRepair(d.now, repair.Off)
		d.drain()
		tp := &tape{script}
		for n := 0; tp.more() && n < 200; n++ {
			d.step(tp)
		}
		d.input(&Segment{Seq: d.c.rcv.nxt, Ack: d.c.snd.nxt, Flags: header.TCPFlagAck, Window: 1000})
		for range 50 {
			if at := d.c.Deadline(); at != Never {
				d.now = max(d.now, at)
				d.c.Tick(d.now)
				d.drain()
			}
		}
	})
}
