package conn

import (
	"testing"
	"time"
)

// payloadSizes records the payloads that a sends.
func payloadSizes(w *world) *[]int {
	var list []int
	w.wiretap = func(from *host, s *Segment) {
		if from == w.a && s.DataLen() > 0 {
			list = append(list, int(s.DataLen()))
		}
	}
	return &list
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// A corked connection sends full segments and holds the rest until it is
// filled up, uncorked, or 200 ms old.
func TestCork(t *testing.T) {
	w := established(t, func(a, b *Config) { a.Options.Cork = true; a.MSS = 1012; a.GSOMax = 0 })
	w.run(time.Second, nil)
	got := payloadSizes(w)
	w.a.write(w, noise(1500, 1))
	w.run(50*time.Millisecond, nil)
	if !equal(*got, []int{1000}) {
		t.Fatalf("1500 written: %v", *got)
	}
	w.a.write(w, noise(500, 2))
	w.run(50*time.Millisecond, nil)
	if !equal(*got, []int{1000, 1000}) {
		t.Fatalf("filled up: %v", *got)
	}
	w.a.write(w, noise(100, 3))
	w.run(190*time.Millisecond, nil)
	if !equal(*got, []int{1000, 1000}) {
		t.Fatalf("held: %v", *got)
	}
	w.run(20*time.Millisecond, nil)
	if !equal(*got, []int{1000, 1000, 100}) {
		t.Fatalf("after 200 ms: %v", *got)
	}
	w.a.write(w, noise(100, 4))
	w.run(50*time.Millisecond, nil)
	w.a.c.SetOptions(w.now, UserOptions{})
	w.run(time.Millisecond, nil)
	if !equal(*got, []int{1000, 1000, 100, 100}) {
		t.Fatalf("uncorked: %v", *got)
	}
}

// MSG_MORE is a cork for one write, with TCP_NODELAY too.
func TestMoreFollows(t *testing.T) {
	w := established(t, func(a, b *Config) { a.Options.NoDelay = true })
	w.run(time.Second, nil)
	got := payloadSizes(w)
	w.a.c.Write(w.now, newBytes(40), 40, true)
	w.run(100*time.Millisecond, nil)
	if !equal(*got, nil) {
		t.Fatalf("more was to follow: %v", *got)
	}
	w.a.c.Write(w.now, newBytes(60), 60, false)
	w.run(time.Millisecond, nil)
	if !equal(*got, []int{100}) {
		t.Fatalf("it followed: %v", *got)
	}
}

// Nagle, as Minshall refined it: one small segment may be unacknowledged.
func TestNagle(t *testing.T) {
	w := established(t, func(a, b *Config) { a.MSS = 1012 })
	w.run(time.Second, nil)
	got := payloadSizes(w)
	w.a.write(w, noise(100, 1))
	w.a.write(w, noise(100, 2))
	w.settle(w.a)
	w.a.write(w, noise(1500, 3))
	w.settle(w.a)
	if !equal(*got, []int{200, 1000}) {
		t.Errorf("at once: %v; want the first, and of the last what fills a segment", *got)
	}
	w.run(100*time.Millisecond, nil)
	if !equal(*got, []int{200, 1000, 500}) {
		t.Errorf("in the end: %v", *got)
	}
	w.a.c.SetOptions(w.now, UserOptions{NoDelay: true})
	*got = nil
	w.a.write(w, noise(10, 4))
	w.settle(w.a)
	w.a.write(w, noise(10, 5))
	w.settle(w.a)
	if !equal(*got, []int{10, 10}) {
		t.Errorf("without delay: %v", *got)
	}
}

// A record's end is a segment's end, in every transmission, and the last record
// waits for company as any small segment does.
func TestRecords(t *testing.T) {
	w := established(t, func(a, b *Config) { a.MSS = 1012 })
	w.run(time.Second, nil)
	got := payloadSizes(w)
	for _, n := range []int{300, 1700, 100, 1} {
		w.a.write(w, noise(n, uint64(n)))
		w.a.c.EndRecord()
	}
	lost := false
	w.fate = func(from *host, s *Segment) (time.Duration, int) {
		if from == w.a && s.DataLen() == 700 && !lost {
			lost = true
			return 0, 0
		}
		return 0, 1
	}
	w.settle(w.a)
	if !equal(*got, []int{300, 1000, 700, 100}) {
		t.Errorf("at once: %v; want what ends a record, but not the last octet", *got)
	}
	w.run(5*time.Second, nil)
	if !equal(*got, []int{300, 1000, 700, 100, 1, 700}) && !equal(*got, []int{300, 1000, 700, 100, 700, 1}) {
		t.Errorf("in the end: %v", *got)
	}
	w.b.read(w)
	if len(w.b.got) != 2101 {
		t.Errorf("%d bytes arrived", len(w.b.got))
	}
}

// What MSG_MORE holds leaves with the next acknowledgement, and at a push.
func TestMoreIsMomentary(t *testing.T) {
	w := established(t, func(a, b *Config) { a.Options.NoDelay = true; a.MSS = 1012 })
	w.run(time.Second, nil)
	got := payloadSizes(w)
	w.a.c.Write(w.now, newBytes(1100), 1100, true)
	w.run(15*time.Millisecond, nil)
	if !equal(*got, []int{1000}) {
		t.Fatalf("before the acknowledgement: %v", *got)
	}
	w.run(20*time.Millisecond, nil)
	if !equal(*got, []int{1000, 100}) {
		t.Fatalf("after it: %v", *got)
	}
	w.run(time.Second, nil)
	w.a.c.Write(w.now, newBytes(10), 10, true)
	w.settle(w.a)
	w.a.c.Push()
	w.settle(w.a)
	if !equal(*got, []int{1000, 100, 10}) {
		t.Fatalf("pushed: %v", *got)
	}
}
