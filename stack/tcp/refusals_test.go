package tcp_test

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/internal/repairtest"
	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// What must be refused is, as by the kernel and the command line, and a stack
// is left as it was: with the same endpoints, ports and counters.
func TestRefusals(t *testing.T) {
	s := pair(t)
	client, server := connect(t, s, families[0], 80)
	l := listen(t, s[0], families[0], 0, 81)
	defer l.Close()
	ours := tcpip.AddressWithPrefix{Address: addr4[0], PrefixLen: 24}
	s[0].SetRouteTable([]tcpip.Route{{Destination: ours.Subnet(), NIC: testNIC}})
	origin := endpointOf(t, s[0], client)
	snap, err := repair.Checkpoint(origin.Repair())
	if err != nil {
		t.Fatal(err)
	}
	factory := &tcp.RepairFactory{Stack: s[0]}
	type state struct {
		endpoints []*tcp.Endpoint
		counted   [3]uint64
		conn      string
	}
	look := func() state {
		c := s[0].Stats().TCP
		again, err := origin.Repair().Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		again.Timestamp = 0 // it goes on
		again.Extra.TSRecentAge = 0
		text, err := again.JSON(true)
		if err != nil {
			t.Fatal(err)
		}
		again.Release()
		counted := [3]uint64{c.CurrentConnected.Value(), c.CurrentEstablished.Value(), c.ResetsSent.Value()}
		return state{tcp.Endpoints(s[0]), counted, string(text)}
	}
	before := look()
	repairtest.Refusals(t, &repairtest.Target{
		Snapshot: snap,
		Restore: func(file []byte) error {
			got, err := repair.Read(bytes.NewReader(file), repair.Limits{})
			if err != nil {
				return err
			}
			_, err = repair.Restore(factory, got)
			return err
		},
		Foreign:   netip.MustParseAddr("10.0.0.9"),
		Nowhere:   netip.MustParseAddr("192.0.2.1"),
		Listening: 81,
		Unchanged: func(t *testing.T, after string) {
			t.Helper()
			now := look()
			if !slices.Equal(now.endpoints, before.endpoints) || now.counted != before.counted || now.conn != before.conn {
				t.Fatalf("after %q: %+v, was %+v", after, now, before)
			}
		},
	})
	if err := repair.Resume(origin.Repair(), repair.Off); err != nil {
		t.Fatal(err)
	}
	transfer(t, client, server, 10_000)
	transfer(t, server, client, 10_000)
}
