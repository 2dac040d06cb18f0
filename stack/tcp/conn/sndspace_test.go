package conn

import (
	"testing"
	"time"
)

// TCP_NOTSENT_LOWAT bounds what waits unsent, and wakes a writer at half of it.
func TestNotSentLowat(t *testing.T) {
	w := established(t, func(a, b *Config) { a.MSS = 1012; a.Options.NotSentLowat = 4000 })
	w.run(time.Second, nil)
	w.a.events = 0
	if n := w.a.write(w, noise(100000, 1)); n != 14000 {
		t.Fatalf("took %d bytes; want the ten segments that may leave, and 4000", n)
	}
	w.settle(w.a)
	if w.a.c.WriteReady() {
		t.Error("writable with 4000 bytes unsent")
	}
	if n := w.a.write(w, noise(1, 2)); n != 0 {
		t.Errorf("took %d more", n)
	}
	for w.a.c.Unsent() >= 2000 {
		if w.a.events&EventWritable != 0 {
			t.Fatalf("woken with %d bytes unsent", w.a.c.Unsent())
		}
		if w.run(time.Second, func() bool { return w.a.c.Unsent() < 2000 }); w.a.c.Unsent() >= 2000 {
			t.Fatal("nothing moves")
		}
	}
	w.settle(w.a)
	if w.a.events&EventWritable == 0 || !w.a.c.WriteReady() {
		t.Error("not woken with less than half of it unsent")
	}
}

// Linux fills the burst it has begun, so a write may be taken that the buffer
// has no room for, but never without bound.
func TestLinuxSendBuffer(t *testing.T) {
	w := established(t, func(a, b *Config) { a.MSS = 1012; a.LikeLinux = true; a.SndBuf = 20000; b.RcvBuf = 60000 })
	w.run(time.Second, nil)
	goal := w.a.c.burst()
	first := w.a.write(w, noise(1<<20, 1))
	if first != 10000+goal {
		t.Errorf("took %d bytes; want what may leave and a burst of %d", first, goal)
	}
	for range 100 {
		w.settle(w.a)
		if n := w.a.write(w, noise(1000, 2)); n != 0 {
			t.Fatalf("a full buffer took %d more", n)
		}
	}
	w.a.events = 0
	w.run(time.Second, func() bool { return w.a.events&EventWritable != 0 })
	if w.a.events&EventWritable == 0 {
		t.Fatal("the writer was not woken")
	}
	if used := linuxMemory(w.a.c.snd.una.Size(w.a.c.sendq.end), seqSize(uint16(goal))); used > 20000 {
		t.Errorf("woken with %d of 20000 in use", used)
	}
}
