// Package criu reads and writes TCP connections as CRIU keeps them: the stream
// in tcp-stream-<inode>.img, and the socket it belongs to as an inet_sk_entry
// in inetsk.img (read from files.img as well, where newer versions have it).
//
// An image has the core of a Snapshot. Of the extra part, a listener's backlog is
// written and read, and some of the socket's options are written. Of the core,
// images cannot tell
//   - that a FIN of ours with no unsent data before it has not been sent: it is
//     read as sent, and sent again when no acknowledgement comes;
//   - a timestamp clock's last bit: Linux takes it for the size of the tick.
//
// An inode number in an image is only the name by which the two files find each
// other.
package criu

import "github.com/tcprepair/ustack/stack/repair"

// Bits of tcp_stream_entry.opt_mask: TCPI_OPT_ of Linux's
// include/uapi/linux/tcp.h.
const (
	optTimestamps = 1
	optSACK       = 2
	optScaling    = 4
	optMicros     = 64 // TCPI_OPT_USEC_TS, since 6.7
)

// Socket constants of Linux, which images have on every architecture.
const (
	afInet     = 2
	afInet6    = 10
	sockStream = 1
	ipprotoTCP = 6
	oRdwr      = 2

	sndBufLock = 1 // SOCK_SNDBUF_LOCK: the user has set the size
	rcvBufLock = 2
)

// Buffer sizes for a Snapshot that tells none: what a fresh socket of Linux has.
const (
	defaultSendBuffer = 16384
	defaultRecvBuffer = 131072
)

// Connection is a Snapshot, or a listener's, with its inode number.
type Connection struct {
	Inode    uint32
	Snapshot *repair.Snapshot
}
