package conn

import "gvisor.dev/gvisor/pkg/tcpip/header"

// Header prediction: an established connection that is receiving in order
// expects the next segment to look just like the last. What it must look like
// is worked out once, whenever something that matters changes, and kept in
// Conn.predicted; the fast path compares one word. Whatever makes a connection
// not ordinary (repair mode, the peer's window closed, a hole in what we
// received) sets the word to zero, which no segment's word equals. So the fast path needs
// no test of its own for any of these.
//
// The idea is Van Jacobson's; Linux calls the word pred_flags.

const (
	wordSet  = 1 << 31 // in the word of every segment, so that none is zero
	wordTS   = 1 << 24
	wordSACK = 1 << 25
	wordCE   = 1 << 26
)

// word folds what prediction looks at into one integer: the window field, the
// flags without PSH, and which options there are.
func (s *Segment) word() uint32 {
	w := wordSet | uint32(s.Flags&^header.TCPFlagPsh)<<16 | uint32(s.Window)
	if s.Options.HasTS {
		w |= wordTS
	}
	if s.Options.NumSACK != 0 {
		w |= wordSACK
	}
	if s.CE {
		w |= wordCE
	}
	return w
}

// predict works out the prediction word anew. A window of less than
// what the field can say counts as closed: the field of one that is says the same.
func (c *Conn) predict() {
	c.predicted = 0
	if c.state != StateEstablished || c.frozen || !c.reasm.empty() || c.reasm.hasFIN || c.snd.wnd == 0 || c.snd.raw == 0 {
		return
	}
	c.predicted = wordSet | uint32(header.TCPFlagAck)<<16 | uint32(c.snd.raw)
	if c.tstamp.on {
		c.predicted |= wordTS
	}
}
