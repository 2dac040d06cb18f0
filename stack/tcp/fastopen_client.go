package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// opening is what only few handshakes have, until they are over.
type opening struct {
	// deferUntil is when an embryo's last ACK counts without data
	// (TCP_DEFER_ACCEPT); 0: at once.
	deferUntil conn.Time

	// The rest is what a connecting endpoint has to do with Fast Open.

	// deferred is whom to connect to once there is something to write; nil: the
	// SYN is on its way.
	deferred *tcpip.FullAddress
	option   *conn.FastOpen // on the SYN; nil: none
	data     bool           // the SYN carries data
}

// SetFastOpenConnect makes a later Connect wait for the first Write where a
// cookie for the server is at hand, so that the SYN carries what is written
// (TCP_FASTOPEN_CONNECT). Connect then reports success at once. Without a cookie
// Connect asks the server for one. It is ErrNotSupported unless Tuning.FastOpen
// has FastOpenClient, and ErrInvalidOptionValue once there is a connection.
func (e *Endpoint) SetFastOpenConnect(on bool) tcpip.Error {
	if !e.proto.fastOpenClient() {
		return &tcpip.ErrNotSupported{}
	}
	e.mu.Lock()
	defer e.unlock()
	if e.started || e.listening.Load() != nil {
		return &tcpip.ErrInvalidOptionValue{}
	}
	e.change().fastOpenConnect = on
	return nil
}

// FastOpenConnect returns what SetFastOpenConnect has set.
func (e *Endpoint) FastOpenConnect() bool {
	e.mu.Lock()
	defer e.unlock()
	return e.settings.fastOpenConnect
}

func (p *protocol) fastOpenClient() bool {
	return p.options.snapshot().tuning.FastOpen&FastOpenClient != 0
}

// ConnectFastOpen is Connect and Write in one (MSG_FASTOPEN): with a cookie for
// the server at hand the SYN carries what it can of the payload, and n says how
// much that is; without one n is 0 and the SYN asks for a cookie. The error is
// Connect's, which is ErrConnectStarted when all is well, or ErrNotSupported
// unless Tuning.FastOpen has FastOpenClient. Where Connect was deferred, addr is
// ignored; once the handshake is over it is Write. opts.More says that the rest
// will be written as soon as it is over, so that the acknowledgement of the
// SYN-ACK may wait for that.
func (e *Endpoint) ConnectFastOpen(addr tcpip.FullAddress, p tcpip.Payloader, opts tcpip.WriteOptions) (n int64, err tcpip.Error) {
	if !e.proto.fastOpenClient() {
		return 0, &tcpip.ErrNotSupported{}
	}
	err = e.untilNotBusy(func(now conn.Time) (err tcpip.Error) {
		n, err = e.tryFastOpen(now, addr, p, opts)
		return err
	})
	return n, err
}

// tryFastOpen is ConnectFastOpen, but for having to wait for another endpoint,
// which is an errBusy. e.mu is held.
func (e *Endpoint) tryFastOpen(now conn.Time, addr tcpip.FullAddress, p tcpip.Payloader, opts tcpip.WriteOptions) (int64, tcpip.Error) {
	if e.isDeferred() {
		return e.connectDeferred(now, p, opts)
	}
	if s := e.EndpointState(); s != StateInitial && s != StateBound {
		if err := e.connectAgain(); err != nil {
			return 0, err
		}
		n, err := e.write(now, p, opts)
		return int64(n), err
	}
	return e.connectWith(now, addr, p, opts)
}

// connectWith opens a connection with what the SYN can carry of p. e.mu is held.
func (e *Endpoint) connectWith(now conn.Time, addr tcpip.FullAddress, p tcpip.Payloader, opts tcpip.WriteOptions) (n int64, err tcpip.Error) {
	before := e.opening
	e.opening = &opening{}
	err = e.startConnect(now, addr)
	if !e.started {
		e.opening = before
		return 0, err
	}
	if size := p.Len(); size > 0 {
		k, _ := e.conn.WriteSYN(p, size, opts.More) // the rest is written later
		n = int64(k)
	}
	e.opening.data = n > 0
	return n, err
}

// isDeferred reports whether Connect was put off and nothing was written
// since. e.mu is held.
func (e *Endpoint) isDeferred() bool {
	return e.opening != nil && e.opening.deferred != nil && !e.userGone
}

// connectDeferred opens the connection that Connect has put off. e.mu is held.
func (e *Endpoint) connectDeferred(now conn.Time, p tcpip.Payloader, opts tcpip.WriteOptions) (int64, tcpip.Error) {
	e.connectDone = true
	return e.connectWith(now, *e.opening.deferred, p, opts)
}

// deferConnect puts a connection off until there is something to write, if the
// user wants that and the server will take it. Otherwise the SYN asks for a
// cookie. e.mu is held.
func (e *Endpoint) deferConnect(addr tcpip.FullAddress) bool {
	if !e.settings.fastOpenConnect || !e.proto.fastOpenClient() {
		return false
	}
	peer := addr.Addr
	if peer.BitLen() == header.IPv6AddressSizeBits && header.IsV4MappedAddress(peer) {
		peer = tcpip.AddrFrom4Slice(peer.AsSlice()[header.IPv6AddressSize-header.IPv4AddressSize:])
	}
	if e.proto.fastOpen.peer(peer).cookie == nil && !e.proto.noClientCookie() {
		e.opening = &opening{}
		return false
	}
	e.opening = &opening{deferred: &addr}
	e.ready.Store(uint32(waiter.WritableEvents)) // so that the user writes
	return true
}

func (p *protocol) noClientCookie() bool {
	return p.options.snapshot().tuning.FastOpen&FastOpenClientNoCookie != 0
}

// fastOpenSYN says what the SYN of a Fast Open attempt carries: the cookie and
// as much data as the server's segments hold beside all options, or a request
// for a cookie. e.mu is held.
// https://www.rfc-editor.org/rfc/rfc7413#section-4.2.1
func (e *Endpoint) fastOpenSYN(cfg *conn.Config) {
	a := e.opening
	if a == nil {
		return
	}
	known := e.proto.fastOpen.peer(e.ends.remoteAddress())
	room := min(cfg.MSS, orMSS(known.mss, cfg.MSS), orMSS(cfg.Options.MaxSegment, cfg.MSS))
	switch {
	case e.proto.noClientCookie():
		a.option = nil
	case known.cookie != nil:
		a.option = known.cookie
	default:
		const triedPresent = 1
		a.option = &conn.FastOpen{Experimental: known.tries == triedPresent}
		room = 0
	}
	cfg.FastOpen = a.option
	cfg.SYNData = max(int(room)-conn.MaxOptionsLen, 0)
}

func orMSS(mss, def uint16) uint16 {
	if mss == 0 {
		return def
	}
	return mss
}

// learnFastOpen remembers what a SYN-ACK says. o are its options. e.mu is held.
// https://www.rfc-editor.org/rfc/rfc7413#section-4.1.3
func (e *Endpoint) learnFastOpen(o *conn.Options) {
	a := e.opening
	e.opening = nil
	if a == nil || a.option == nil && !a.data {
		return
	}
	again := e.conn.Counters().Timeouts > 0
	e.proto.fastOpen.learn(e.ends.remoteAddress(), func(p *fastOpenPeer) {
		if p.mss = o.MSS; p.mss == 0 {
			p.mss = conn.DefaultMSS
		}
		given := o.FastOpen
		switch {
		case a.option == nil:
			// One that was not asked for is not believed.
		case given != nil && len(given.Cookie) > 0:
			p.cookie = given
		case !again && !a.data && p.cookie == nil:
			tries := uint8(1)
			if a.option.Experimental {
				tries = 2
			}
			p.tries = max(p.tries, tries)
		}
	})
}
