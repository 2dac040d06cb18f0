package packetdrill

import (
	"fmt"
	"net/netip"
)

// flow is one conversation: the segments between a local and a remote port,
// and how the script's numbers relate to those on the wire.
//
// Sequence numbers of segments with SYN are as the script has them; those of
// all others count from the initial sequence number, whatever it was. The peer
// is played by the runner, so its numbers need no translation but that. The
// stack's are its own, and are learnt from its SYN.
type flow struct {
	local, remote netip.AddrPort
	// fromConnect is set if the stack opened the flow.
	fromConnect bool
	sock        *sock      // the socket that has it; nil before accept
	sent        []*segment // from the stack, not yet expected by the script

	haveRemote bool
	remoteISN  uint32 // script and wire alike
	haveLocal  bool
	localISN   uint32 // on the wire
	scriptISN  uint32 // of the stack, in the script

	tsFirst          bool // a timestamp has been seen
	tsScript, tsLive uint32
	tsLived          map[uint32]uint32 // script's value -> the wire's
	written          []byte            // what the program wrote, from offset from on
	from             int               // 0, unless the connection was restored
	acked            int               // how much of it the peer has acknowledged
	readOff          int               // how much of the peer's stream was read
}

// ackToLive translates a sequence number of the stack's from script to wire.
func (f *flow) ackToLive(ack uint32, syn bool) uint32 {
	if syn {
		return ack - f.scriptISN + f.localISN
	}
	return ack + f.localISN
}

// toLive translates a segment to the stack.
func (f *flow) toLive(s *TCPSpec) (TCPSpec, error) {
	out := *s
	syn := s.Flags&SYN != 0
	if !syn && !s.Absolute {
		out.Seq += f.remoteISN
	}
	out.End = out.Seq + uint32(out.Len)
	if s.Flags&ACK != 0 {
		out.Ack = f.ackToLive(s.Ack, syn)
		f.acked = max(f.acked, f.offset(out.Ack))
	}
	out.Options = nil
	for _, o := range s.Options {
		switch o.Kind {
		case OptSACK:
			blocks := make([][2]uint32, len(o.Blocks))
			for i, b := range o.Blocks {
				blocks[i] = [2]uint32{f.ackToLive(b[0], syn), f.ackToLive(b[1], syn)}
			}
			o.Blocks = blocks
		case OptTimestamp:
			if s.Flags&ACK != 0 {
				ecr, err := f.ecrToLive(o.Ecr)
				if err != nil {
					return out, err
				}
				o.Ecr = ecr
			}
		}
		out.Options = append(out.Options, o)
	}
	return out, nil
}

// ecrToLive translates an echoed timestamp: exactly if the script has seen the
// stack send it, by counting from the first one otherwise.
func (f *flow) ecrToLive(ecr uint32) (uint32, error) {
	if live, ok := f.tsLived[ecr]; ok {
		return live, nil
	}
	if !f.tsFirst {
		return 0, fmt.Errorf("ecr %d echoes a timestamp, but no timestamp of the stack's has been expected", ecr)
	}
	return ecr - f.tsScript + f.tsLive, nil
}

// learn takes note of a segment that the stack has sent.
func (f *flow) learn(s *segment) {
	if s.tcp.Flags&SYN != 0 {
		f.haveLocal = true
		f.localISN = s.tcp.Seq
	}
}

// toScript translates a segment from the stack. The segment that the script
// expects in its place says what the script calls the stack's initial sequence
// number and its timestamps.
func (f *flow) toScript(live TCPSpec, expected *TCPSpec) TCPSpec {
	out := live
	syn := live.Flags&SYN != 0
	if syn && expected.Flags&SYN != 0 {
		f.scriptISN = expected.Seq
	}
	seqDelta := -f.localISN
	switch {
	case expected.Absolute:
		seqDelta = 0
	case syn:
		seqDelta += f.scriptISN
	}
	out.Seq += seqDelta
	out.End = out.Seq + uint32(out.Len)
	ackDelta := -f.remoteISN
	if syn {
		ackDelta = 0
	}
	if live.Flags&ACK != 0 {
		out.Ack += ackDelta
	}
	out.Options = nil
	for _, o := range live.Options {
		switch o.Kind {
		case OptSACK:
			blocks := make([][2]uint32, len(o.Blocks))
			for i, b := range o.Blocks {
				blocks[i] = [2]uint32{b[0] + ackDelta, b[1] + ackDelta}
			}
			o.Blocks = blocks
		case OptTimestamp:
			o.Val = f.valToScript(o.Val, expected)
		}
		out.Options = append(out.Options, o)
	}
	return out
}

// valToScript translates a timestamp of the stack's, counting from the first.
func (f *flow) valToScript(live uint32, expected *TCPSpec) uint32 {
	for _, o := range expected.Options {
		if o.Kind != OptTimestamp {
			continue
		}
		if !f.tsFirst {
			f.tsFirst, f.tsScript, f.tsLive = true, o.Val, live
			f.tsLived = make(map[uint32]uint32)
		}
		f.tsLived[o.Val] = live
	}
	if !f.tsFirst {
		return live
	}
	return live - f.tsLive + f.tsScript
}

// peerByte is the byte of the peer's stream at an offset. The period is prime
// so that bytes that are out of place show.
func peerByte(off int) byte { return byte(off % 251) }

// ownByte is the byte of the program's stream at an offset.
func ownByte(off int) byte { return byte(off%241) ^ 0x5a }

// inboundPayload is what a segment of the peer's carries: where it is in the
// stream decides what it is.
func (f *flow) inboundPayload(live *TCPSpec) []byte {
	off := f.peerOffset(live.Seq)
	if live.Flags&SYN != 0 {
		off++
	}
	b := make([]byte, live.Len)
	for i := range b {
		b[i] = peerByte(off + i)
	}
	return b
}

// offset is where in the program's stream a sequence number of the stack's is.
func (f *flow) offset(live uint32) int { return int(int32(live - f.localISN - 1)) }

// peerOffset is where in the peer's stream a sequence number of the peer's is.
func (f *flow) peerOffset(live uint32) int { return int(int32(live - f.remoteISN - 1)) }

// checkPayload compares what the stack sent with what the program wrote. A
// probe may carry an octet that was acknowledged before; it need not be the
// same.
func (f *flow) checkPayload(live *TCPSpec, payload []byte) error {
	if !f.haveLocal {
		return nil
	}
	off := f.offset(live.Seq)
	if live.Flags&SYN != 0 {
		off++
	}
	if n := min(f.acked-off, len(payload)); n > 0 {
		off, payload = off+n, payload[n:]
	}
	return f.checkWritten(off, payload)
}

// checkWritten compares bytes with what the program wrote, from an offset on.
func (f *flow) checkWritten(off int, b []byte) error {
	for i := range b {
		if at := off + i - f.from; at < 0 || at >= len(f.written) || f.written[at] != b[i] {
			return fmt.Errorf("byte %d of the stream is not what the program wrote", off+i)
		}
	}
	return nil
}

// goOn makes the flow that of a restored connection, whose queues begin at send
// and recv on the wire.
func (f *flow) goOn(n numbering, send, recv uint32) {
	f.haveLocal, f.haveRemote = true, true
	f.localISN, f.remoteISN = n.local, n.remote
	if !f.tsFirst {
		f.tsFirst, f.tsLived = true, make(map[uint32]uint32)
		f.tsScript, f.tsLive = 0, n.ts
	}
	f.acked, f.readOff = f.offset(send), f.peerOffset(recv)
	if keep := f.acked - f.from; keep >= 0 && keep <= len(f.written) {
		f.written = f.written[:keep]
	} else {
		f.written, f.from = nil, f.acked
	}
}

// checkRead compares what the program reads with what the peer sent, and moves
// on unless it was only a peek.
func (f *flow) checkRead(b []byte, peek bool) error {
	for i := range b {
		if b[i] != peerByte(f.readOff+i) {
			return fmt.Errorf("byte %d of what was read is not what the peer sent", i)
		}
	}
	if !peek {
		f.readOff += len(b)
	}
	return nil
}
