package conn

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// Segment is one TCP segment, coming in or going out, without its ports and
// addresses: those are the caller's. It may be far larger than the MSS: a run
// of consecutive segments that a link merged, or one that a link will cut.
type Segment struct {
	Seq    seqnum.Value
	Ack    seqnum.Value // meaningful with the ACK flag only
	Flags  header.TCPFlags
	Window uint16 // as it stands in the header, not scaled
	CE     bool   // in: the packet carried ECN's Congestion Experienced mark
	ECT    bool   // out: mark the packet ECN-Capable Transport, ECT(0)
	Urgent uint16 // urgent pointer; ignored but kept for traces
	// GSOSize is the size in bytes of the pieces that the payload is to be cut
	// into (out), or was merged from (in); 0: it is one piece, or nobody knows.
	GSOSize uint16
	Options Options
	// Payload is owned by whoever holds the segment. Input takes it over;
	// Output hands it over.
	Payload buffer.Buffer
	// Arrived is when the segment reached this host; zero means now. It keeps
	// time in an inbox out of round-trip samples.
	Arrived Time
}

// Has reports whether all of flags are set.
func (s *Segment) Has(flags header.TCPFlags) bool { return s.Flags&flags == flags }

// DataLen is the payload's length in bytes.
func (s *Segment) DataLen() seqnum.Size { return seqnum.Size(s.Payload.Size()) }

// Len is how much sequence space the segment takes: data, SYN and FIN.
func (s *Segment) Len() seqnum.Size {
	n := s.DataLen()
	if s.Has(header.TCPFlagSyn) {
		n++
	}
	if s.Has(header.TCPFlagFin) {
		n++
	}
	return n
}

// End is the sequence number after the segment's last.
func (s *Segment) End() seqnum.Value { return s.Seq.Add(s.Len()) }

// Release lets go of the payload.
func (s *Segment) Release() {
	if s.Payload.Size() > 0 {
		s.Payload.Release()
	}
}

// String describes the segment on one line, much as tcpdump does.
func (s *Segment) String() string {
	return fmt.Sprintf("%s %d:%d(%d) ack %d win %d%s",
		s.Flags, uint32(s.Seq), uint32(s.End()), s.DataLen(), uint32(s.Ack), s.Window, &s.Options)
}
