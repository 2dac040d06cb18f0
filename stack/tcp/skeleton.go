// Package tcp is a TCP for gVisor's netstack. It stands in for gVisor's own
// package of the same name: the exported names are the same, so that the
// import path is all that changes.
package tcp

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// ProtocolNumber is TCP's number in the IP header.
const ProtocolNumber = header.TCPProtocolNumber

// Endpoint is one TCP socket.
type Endpoint struct{ tcpip.Endpoint }

// NewProtocol returns a TCP whose connections use Reno congestion control
// unless told otherwise. It is for stack.Options.TransportProtocols.
func NewProtocol(s *stack.Stack) stack.TransportProtocol { return nil }

// NewProtocolCUBIC is NewProtocol with CUBIC congestion control.
func NewProtocolCUBIC(s *stack.Stack) stack.TransportProtocol { return nil }

// ID is the endpoint's number, unique and stable in its stack's lifetime.
func (e *Endpoint) ID() uint64 { return 0 }

// SetRepair freezes (On) or thaws (Off, OffNoProbe) the connection.
func (e *Endpoint) SetRepair(m repair.Mode) error { return nil }

// Frozen reports whether the connection is in repair mode.
func (e *Endpoint) Frozen() bool { return false }

// QueueSeq is the sequence number after the last byte of a queue.
func (e *Endpoint) QueueSeq(q repair.Queue) (uint32, error) { return 0, nil }

// Drops counts the endpoint's refused segments by reason.
func (e *Endpoint) Drops() (d [conn.NumDropReasons]uint32) { return }

// ConnInfo describes the connection.
func (e *Endpoint) ConnInfo() conn.Info { return conn.Info{} }

// DropCounts counts the segments that the stack's TCP refused, by reason.
func DropCounts(s *stack.Stack) (d [conn.NumDropReasons]uint64) { return }

// Endpoints lists the TCP endpoints of s, by ID: listeners and connections
// that are in its tables.
func Endpoints(s *stack.Stack) []*Endpoint { return nil }
