package tcp

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// TCP Fast Open (RFC 7413): a cookie that a server has given a client lets the
// client's next SYN carry data, and the server answer it before the handshake is
// over. It is off until Tuning.FastOpen switches it on.

// FastOpenMode says what a stack uses Fast Open for. The bits are those of
// Linux's tcp_fastopen.
type FastOpenMode uint16

const (
	// FastOpenClient allows ConnectFastOpen and SetFastOpenConnect.
	FastOpenClient FastOpenMode = 0x1
	// FastOpenServer lets listeners with a Fast Open backlog accept it.
	FastOpenServer FastOpenMode = 0x2
	// FastOpenClientNoCookie sends data on every SYN, cookie or not.
	FastOpenClientNoCookie FastOpenMode = 0x4
	// FastOpenServerNoCookie accepts data on every SYN, cookie or not. It lets
	// anybody have a forged address served.
	FastOpenServerNoCookie FastOpenMode = 0x200
	// FastOpenListeners gives every listener its backlog as Fast Open backlog.
	FastOpenListeners FastOpenMode = 0x400
)

// FastOpenKey is the key of a server's cookies.
type FastOpenKey [16]byte

// fastOpenKeys are a primary key and perhaps a secondary one, whose cookies are
// still good.
type fastOpenKeys []FastOpenKey

// cookie is the cookie for a peer: a keyed hash of both addresses, as Linux
// makes it, so that it is good at every port, and at every host with the key.
func (k *FastOpenKey) cookie(id stack.TransportEndpointID) []byte {
	var b [32]byte
	n := copy(b[:], id.RemoteAddress.AsSlice())
	n += copy(b[n:], id.LocalAddress.AsSlice())
	return binary.LittleEndian.AppendUint64(nil, siphash((*[16]byte)(k), b[:n]))
}

// fastOpenState is what a stack's TCP knows for Fast Open.
type fastOpenState struct {
	keys  atomic.Pointer[fastOpenKeys]
	mu    sync.Mutex
	peers map[tcpip.Address]fastOpenPeer
}

// fastOpenPeer is what a client remembers of a server.
type fastOpenPeer struct {
	mss    uint16
	cookie *conn.FastOpen // with a cookie, or nil
	// tries counts requests that brought none: one in the option's present
	// form, one in the experimental form.
	tries uint8
}

// maxFastOpenPeers bounds how many servers are remembered.
const maxFastOpenPeers = 4096

// peer returns what is remembered of a server.
func (f *fastOpenState) peer(a tcpip.Address) fastOpenPeer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.peers[a]
}

// learn changes what is remembered of a server.
func (f *fastOpenState) learn(a tcpip.Address, change func(*fastOpenPeer)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.peers == nil {
		f.peers = make(map[tcpip.Address]fastOpenPeer)
	}
	p, known := f.peers[a]
	if !known && len(f.peers) >= maxFastOpenPeers {
		for old := range f.peers {
			delete(f.peers, old)
			break
		}
	}
	change(&p)
	f.peers[a] = p
}

// forget forgets all servers.
func (f *fastOpenState) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.peers = nil
}

// serverKeys returns the stack's keys, drawn when they are first needed.
func (p *protocol) serverKeys() fastOpenKeys {
	if k := p.fastOpen.keys.Load(); k != nil {
		return *k
	}
	drawn := make(fastOpenKeys, 1)
	if _, err := io.ReadFull(p.stack.SecureRNG().Reader, drawn[0][:]); err != nil {
		return nil // and no cookies
	}
	p.fastOpen.keys.CompareAndSwap(nil, &drawn)
	return *p.fastOpen.keys.Load()
}

// maxFastOpenKeys is how many keys there may be at once.
const maxFastOpenKeys = 2

// SetFastOpenKeys sets the keys of a stack's Fast Open cookies, which are drawn
// at random otherwise: cookies are made with the first, and the second's are
// still good. It is an error if there are none or more than two, or the stack
// runs another TCP.
func SetFastOpenKeys(s *stack.Stack, keys ...FastOpenKey) error {
	p := protocolOf(s)
	switch {
	case p == nil:
		return errNotOurs
	case len(keys) == 0 || len(keys) > maxFastOpenKeys:
		return errors.New("one key or two")
	}
	own := fastOpenKeys(slices.Clone(keys))
	p.fastOpen.keys.Store(&own)
	return nil
}

// ForgetFastOpen makes a stack forget the cookies that servers have given it.
func ForgetFastOpen(s *stack.Stack) {
	if p := protocolOf(s); p != nil {
		p.fastOpen.forget()
	}
}
