package tcp

import (
	"math/rand/v2"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// seeded is a source of secrets that a test can repeat.
type seeded struct{ *rand.ChaCha8 }

func testSecrets() (s secrets) {
	s.init(seeded{rand.NewChaCha8([32]byte{1})})
	return s
}

var testID = stack.TransportEndpointID{
	LocalPort: 80, LocalAddress: tcpip.AddrFrom4([4]byte{10, 0, 0, 1}),
	RemotePort: 4000, RemoteAddress: tcpip.AddrFrom4([4]byte{10, 0, 0, 2}),
}

// A cookie gives back the MSS it was made for, for a while, to its own tuple
// and sequence number only.
func TestCookie(t *testing.T) {
	s := testSecrets()
	const irs = 12345
	now := conn.Time(1000 * time.Second)
	for i, mss := range cookieMSS {
		c := s.makeCookie(testID, irs, cookieCount(now), uint32(i))
		if got, ok := s.checkCookie(testID, irs, c, now.Add(cookiePeriod)); !ok || got != mss {
			t.Errorf("MSS %d came back as %d, %t", mss, got, ok)
		}
		if _, ok := s.checkCookie(testID, irs, c, now.Add(2*cookiePeriod)); ok {
			t.Errorf("a cookie is good after %s", 2*cookiePeriod)
		}
		if _, ok := s.checkCookie(testID, irs, c, now.Add(cookieCountMax*cookiePeriod)); ok {
			t.Errorf("a cookie is good again after %s, when its counter's bits are", cookieCountMax*cookiePeriod)
		}
		if _, ok := s.checkCookie(testID, irs+1, c, now); ok {
			t.Error("a cookie is good for another sequence number")
		}
		other := testID
		other.RemotePort++
		if _, ok := s.checkCookie(other, irs, c, now); ok {
			t.Error("a cookie is good for another port")
		}
		if _, ok := s.checkCookie(testID, irs, c^1<<24, now); ok {
			t.Error("a cookie whose MSS was changed is good")
		}
	}
}

// The MSS a cookie remembers never exceeds the peer's.
func TestMSSIndex(t *testing.T) {
	for mss := uint16(64); mss < 2000; mss++ {
		if got := cookieMSS[mssIndex(mss)]; got > mss {
			t.Fatalf("MSS %d is remembered as %d", mss, got)
		}
	}
}

// Bits stamped into a timestamp can be read back, and do not make it later.
func TestStampBits(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		ts, bits := r.Uint32(), r.Uint32()&cookieTSMask
		got := stampBits(ts, bits)
		if got&cookieTSMask != bits || int32(got-ts) > 0 || ts-got > 2*cookieTSMask {
			t.Fatalf("stampBits(%#x, %#x) = %#x", ts, bits, got)
		}
	}
}

// RFC 6528: numbers of one tuple grow with time, of another tell nothing; and
// they are the same for as long as the clock stands still.
func TestInitialSequenceNumbers(t *testing.T) {
	s := testSecrets()
	a := s.numbersFor(testID, conn.Time(time.Second))
	if b := s.numbersFor(testID, conn.Time(time.Second)); a != b {
		t.Error("the same tuple at the same time has other numbers")
	}
	later := s.numbersFor(testID, conn.Time(2*time.Second))
	if got, want := a.isn.Size(later.isn), seqnum.Size(15625000); got != want {
		t.Errorf("in a second the number grew by %d, want %d: one in 64 ns", got, want)
	}
	if a.tsOffset != later.tsOffset {
		t.Error("the timestamp offset of a flow changes")
	}
	other := testID
	other.RemotePort++
	if b := s.numbersFor(other, conn.Time(time.Second)); b.isn == a.isn || b.tsOffset == a.tsOffset {
		t.Error("another tuple has the same numbers")
	}
}
