package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcprepair/ustack/internal/netlab"
)

// A connection under load both ways moves 100 times between any two of ustack
// and the kernel. The peer, a kernel, notices nothing.
func TestMoveMatrix(t *testing.T) {
	netlab.RequireTAP(t)
	const moves = 100
	for _, tc := range []struct {
		name string
		ring []int // kernels are 0 and 1, ustacks 2 and 3
	}{
		{"kernel-kernel", []int{0, 1}},
		{"kernel-ustack", []int{0, 2}},
		{"ustack-ustack", []int{2, 3}},
	} {
		for family, name := range []string{"ipv4", "ipv6"} {
			t.Run(tc.name+"/"+name, func(t *testing.T) {
				c, err := newCountry(2, 2)
				if err != nil {
					t.Fatal(err)
				}
				defer c.close()
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
				defer cancel()
				trip, err := c.travel(ctx, family, tc.ring, moves, func(int, *trip) {})
				if err != nil {
					t.Fatal(err)
				}
				if trip.rst > 0 {
					t.Errorf("%d RSTs on the wire: %q", trip.rst, c.capture.StrayResets())
				}
				slices.Sort(trip.took)
				t.Logf("%d moves: %v in the median, %v at most; %d MiB sent, %d received", len(trip.took),
					trip.took[len(trip.took)/2], trip.took[len(trip.took)-1], trip.here.out.sent.Load()>>20, trip.here.in.received.Load()>>20)
			})
		}
	}
}

// The whole demo, with fewer moves. The last line has exactly the keys that are
// promised, in their order.
func TestRunMoves(t *testing.T) {
	netlab.RequireTAP(t)
	var out bytes.Buffer
	err := RunMoves(context.Background(), &out, MoveOptions{InPlace: true, Moves: 16})
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	want := regexp.MustCompile(`^\{"demo":"ok","moves":16,"families":\["ipv4","ipv6"\],"resets":0,"digest_match":true,` +
		`"lost_without_filter":(true|false),"move_us":\{"p50":[1-9]\d*,"p99":[1-9]\d*\}\}$`)
	if last := lines[len(lines)-1]; err != nil || !want.MatchString(last) {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestMovesInterrupted(t *testing.T) {
	netlab.RequireTAP(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out bytes.Buffer
	err := RunMoves(ctx, &out, MoveOptions{InPlace: true})
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	var r MoveResult
	if err := json.Unmarshal(lines[len(lines)-1], &r); err != nil {
		t.Fatalf("%v\n%s", err, out.Bytes())
	}
	if !errors.Is(err, ErrFailed) || r.Demo != "failed" || r.DigestMatch || !strings.HasPrefix(r.Reason, "interrupted") {
		t.Errorf("%v, %+v", err, r)
	}
}
