package tcp

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// secrets key the hashes that make a stack's numbers unguessable from outside.
type secrets struct {
	flow   [32]byte // initial sequence numbers and timestamp offsets
	cookie [32]byte // SYN cookies
}

func (s *secrets) init(r io.Reader) {
	for _, b := range [][]byte{s.flow[:], s.cookie[:]} {
		if _, err := io.ReadFull(r, b); err != nil {
			// Predictable sequence numbers let anybody forge segments; a
			// stack without randomness must not start.
			panic("tcp: the stack's secure random source failed: " + err.Error())
		}
	}
}

// isnTick is that clock's. RFC 9293 has 4 us, from slower days: a tuple can be
// used up and begun anew in less. With Linux's 64 ns the clock wraps in 274 s,
// still longer than a segment lives.
const isnTick = 64 * time.Nanosecond

// flowNumbers are what a connection is born with that depends on its tuple.
type flowNumbers struct {
	isn      seqnum.Value
	tsOffset uint32
}

// numbersFor returns a new connection's initial sequence number and timestamp
// offset. Both are a keyed hash of the tuple, so that one flow's say nothing
// of another's; the sequence number also moves with a clock, so that a new
// incarnation's numbers lie beyond the old one's.
//
//	https://www.rfc-editor.org/rfc/rfc6528#section-3
//	https://www.rfc-editor.org/rfc/rfc7323#section-5.4
func (s *secrets) numbersFor(id stack.TransportEndpointID, now conn.Time) flowNumbers {
	sum := hashTuple(&s.flow, id)
	clock := uint32(int64(now) / int64(isnTick))
	return flowNumbers{
		isn:      seqnum.Value(binary.BigEndian.Uint32(sum[0:]) + clock),
		tsOffset: binary.BigEndian.Uint32(sum[4:]),
	}
}

// hashTuple hashes a connection's addresses and ports, and whatever more is
// given, under a key.
func hashTuple(key *[32]byte, id stack.TransportEndpointID, more ...byte) [sha256.Size]byte {
	var b [128]byte
	n := copy(b[:], key[:])
	n += copy(b[n:], id.LocalAddress.AsSlice())
	n += copy(b[n:], id.RemoteAddress.AsSlice())
	n += copy(b[n:], binary.BigEndian.AppendUint16(nil, id.LocalPort))
	n += copy(b[n:], binary.BigEndian.AppendUint16(nil, id.RemotePort))
	n += copy(b[n:], more)
	return sha256.Sum256(b[:n])
}

// timestampAt is a flow's timestamp clock: milliseconds, from the flow's own
// offset. A connection continues it.
func timestampAt(now conn.Time, offset uint32) uint32 {
	return uint32(int64(now)/int64(time.Millisecond)) + offset
}
