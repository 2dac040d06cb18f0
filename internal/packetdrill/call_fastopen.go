package packetdrill

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp"
)

// fastOpener is what an endpoint offers that knows TCP Fast Open (RFC 7413).
type fastOpener interface {
	ConnectFastOpen(tcpip.FullAddress, tcpip.Payloader, tcpip.WriteOptions) (int64, tcpip.Error)
	SetFastOpenConnect(bool) tcpip.Error
	FastOpenConnect() bool
	SetFastOpenBacklog(int) tcpip.Error
	FastOpenBacklog() int
	SetFastOpenKeys(...tcp.FastOpenKey) tcpip.Error
	FastOpenKeys() []tcp.FastOpenKey
}

// fastOpener is the socket's endpoint, which must know Fast Open.
func (r *runner) fastOpener(s *sock) fastOpener {
	e, ok := s.ep.(fastOpener)
	if !ok {
		r.skip("TCP Fast Open with this TCP")
	}
	return e
}

// connectsLater reports whether a connect that has returned success has put the
// connection off until there is data.
func connectsLater(s *sock) bool {
	e, ok := s.ep.(fastOpener)
	state := tcp.EndpointState(s.ep.State())
	return ok && e.FastOpenConnect() && (state == tcp.StateInitial || state == tcp.StateBound)
}

// openWith opens a connection with the data of a write on the SYN. It reports
// whether the call is over.
func (r *runner) openWith(c *call, s *sock, data []byte, flags int64) (outcome, bool) {
	to := s.deferred
	if !to.IsValid() {
		var family int64
		usual := netip.AddrPortFrom(r.set.remote, r.set.connect)
		if to, family = usual, -1; c.Name == "sendto" {
			if w, ok := c.arg(4).(Word); ok && w.Name == "AF_UNSPEC" {
				return failed("EOPNOTSUPP"), true
			}
			to, family = r.address(c, 4, usual)
		}
		if family == constants["AF_UNSPEC"] {
			return failed("EOPNOTSUPP"), true
		}
	}
	waits := !s.nonblock && flags&msgDontwait == 0
	n, err := r.fastOpener(s).ConnectFastOpen(r.fullAddress(to), bytes.NewReader(data), tcpip.WriteOptions{More: waits})
	if s.flow != nil {
		s.flow.written = append(s.flow.written, data[:n]...)
	}
	c.done, c.opened = n, true
	_, started := err.(*tcpip.ErrConnectStarted)
	switch {
	case err == nil && int(n) == len(data): // the handshake was over already
		return returned(n), true
	case err == nil:
		return outcome{}, false
	case !started:
		return failed(errnoOf(err)), true
	}
	r.begin(s, to)
	s.deferred, s.connecting = netip.AddrPort{}, true
	s.flow.written = append(s.flow.written, data[:n]...)
	switch {
	case waits:
		return outcome{}, false
	case n > 0:
		return returned(n), true
	}
	return failed("EINPROGRESS"), true
}

// handshake waits for the handshake that a write has begun. It reports whether
// the call is over, or has to wait.
func (r *runner) handshake(c *call, s *sock) (outcome, bool) {
	const over = waiter.EventOut | waiter.EventErr | waiter.EventHUp
	if s.ep.Readiness(over) == 0 {
		return r.wait(c, s, false, s.sndTimeout), true
	}
	s.connecting = false
	if err := s.ep.LastError(); err != nil {
		s.reported = true
		return failed(errnoOf(err)), true
	}
	return outcome{}, false
}

func setFastOpen(r *runner, s *sock, v int64) tcpip.Error {
	return r.fastOpener(s).SetFastOpenBacklog(int(v))
}

func getFastOpen(r *runner, s *sock) (int64, tcpip.Error) {
	return int64(r.fastOpener(s).FastOpenBacklog()), nil
}

func setFastOpenConnect(r *runner, s *sock, v int64) tcpip.Error {
	if v != 0 && v != 1 {
		return &tcpip.ErrInvalidOptionValue{}
	}
	return r.fastOpener(s).SetFastOpenConnect(v == 1)
}

func getFastOpenConnect(r *runner, s *sock) (int64, tcpip.Error) {
	if r.fastOpener(s).FastOpenConnect() {
		return 1, nil
	}
	return 0, nil
}

// setFastOpenKey takes keys as TCP_FASTOPEN_KEY does: 16 bytes, or 32 for two.
func setFastOpenKey(r *runner, s *sock, v string) tcpip.Error {
	const size = len(tcp.FastOpenKey{})
	if len(v)%size != 0 {
		return &tcpip.ErrInvalidOptionValue{}
	}
	var keys []tcp.FastOpenKey
	for ; len(v) > 0; v = v[size:] {
		keys = append(keys, tcp.FastOpenKey([]byte(v[:size])))
	}
	return r.fastOpener(s).SetFastOpenKeys(keys...)
}

// parseFastOpenKeys reads keys as the sysctl has them: four words in hex, with
// dashes between, a comma between keys.
func parseFastOpenKeys(text string) (keys []tcp.FastOpenKey, err error) {
	for one := range strings.SplitSeq(text, ",") {
		b, err := hex.DecodeString(strings.ReplaceAll(one, "-", ""))
		if err != nil || len(b) != len(tcp.FastOpenKey{}) {
			return nil, fmt.Errorf("%q is no key: four words in hex", one)
		}
		var k tcp.FastOpenKey
		for i := 0; i < len(b); i += 4 {
			binary.LittleEndian.PutUint32(k[i:], binary.BigEndian.Uint32(b[i:]))
		}
		keys = append(keys, k)
	}
	return keys, nil
}
