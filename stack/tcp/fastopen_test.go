package tcp

import (
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// The example of SipHash's authors: key 00..0f, input 00..0e.
func TestSipHash(t *testing.T) {
	var key [16]byte
	var in [15]byte
	for i := range key {
		key[i] = byte(i)
	}
	for i := range in {
		in[i] = byte(i)
	}
	if got, want := siphash(&key, in[:]), uint64(0xa129ca6149be45e5); got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
}

// The memory of servers is bounded.
func TestFastOpenPeersBounded(t *testing.T) {
	var f fastOpenState
	for i := range 2 * maxFastOpenPeers {
		f.learn(tcpip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), func(p *fastOpenPeer) { p.mss = 1000 })
	}
	if len(f.peers) != maxFastOpenPeers {
		t.Errorf("%d servers are remembered", len(f.peers))
	}
	if f.forget(); f.peer(tcpip.AddrFrom4([4]byte{10, 0, 0, 1})) != (fastOpenPeer{}) {
		t.Error("one was not forgotten")
	}
}

// The queue counts connections whose handshake is not over, and forgets none.
func TestEarlyCount(t *testing.T) {
	var q acceptQueue
	q.setBacklog(10)
	for n, want := range []bool{true, true, false} {
		if got := q.mayBeEarly(2, false); got != want {
			t.Errorf("with %d: %t", n, got)
		}
		q.admit(false)
		q.addEarly(&Endpoint{})
	}
	if q.mayBeEarly(0, false) || !q.mayBeEarly(0, true) {
		t.Error("a listener without a backlog of its own")
	}
	q.endEarly()
	q.endEarly()
	if !q.mayBeEarly(2, false) || q.coming != 0 {
		t.Errorf("after two have ended: %d early, %d coming", q.early, q.coming)
	}
	q.closed = true
	q.coming++
	if q.addEarly(&Endpoint{}) {
		t.Error("added to a closed queue")
	}
}

// Whoever did not switch Fast Open on does not have it.
func TestFastOpenIsOff(t *testing.T) {
	var e Endpoint
	e.proto = &protocol{}
	e.proto.options.init("reno")
	if _, ok := e.SetFastOpenConnect(true).(*tcpip.ErrNotSupported); !ok {
		t.Error("SetFastOpenConnect")
	}
	if _, err := e.ConnectFastOpen(tcpip.FullAddress{}, nil, tcpip.WriteOptions{}); err == nil {
		t.Error("ConnectFastOpen")
	}
	l := listener{ep: &e}
	p := packet{}
	p.seg.Options.FastOpen = &conn.FastOpen{}
	if early, reply := l.fastOpen(&p); early || reply != nil {
		t.Error("a listener answers a request for a cookie")
	}
}
