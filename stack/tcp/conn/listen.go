package conn

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// ListenAction is what a listener does with a segment.
type ListenAction uint8

const (
	// ListenIgnore: the segment is dropped without a word.
	ListenIgnore ListenAction = iota
	// ListenReset: the segment is answered with Reset, unless its
	// acknowledgement number turns out to be a SYN cookie.
	ListenReset
	// ListenOpen: the segment opens a connection; see Conn.Accept.
	ListenOpen
)

// ListenVerdict decides what becomes of a segment that reaches the state
// LISTEN. Listeners are not Conns: they have no sequence numbers, and many
// connections come of one. The reason is NotDropped with ListenOpen only.
//
// https://www.rfc-editor.org/rfc/rfc9293#section-3.10.7.2
//
// A SYN that is also a FIN is ignored, as Linux does (tcp_rcv_state_process)
// and CERT VU#464113 advises: the RFC would keep the FIN for later, but nobody
// sends one in earnest, and firewalls that look for a SYN may overlook it.
func ListenVerdict(s *Segment) (ListenAction, DropReason) {
	switch {
	case s.Has(header.TCPFlagRst):
		return ListenIgnore, DropReset
	case s.Has(header.TCPFlagAck):
		return ListenReset, DropTCPFlags
	case s.Flags&flagsFINSYNRST == header.TCPFlagSyn:
		return ListenOpen, NotDropped
	}
	return ListenIgnore, DropTCPFlags
}
