package repair

import (
	"errors"
	"net/netip"
	"time"
)

// Socket is a TCP socket as TCP_REPAIR shows it. Both an endpoint of this
// project and a socket of the Linux kernel are Sockets, so that a connection
// moves between any two by the same steps. The rules are Linux's
// (net/ipv4/tcp.c, do_tcp_setsockopt); the errors named are wrapped, to be
// told by errors.Is.
type Socket interface {
	// Addrs returns the two ends.
	Addrs() (local, remote netip.AddrPort, err error)
	// State is where the connection is.
	State() (State, error)

	// SetRepair freezes or thaws. ErrPermission for a listener, and without the
	// right to; ErrInvalid for a mode there is not.
	SetRepair(Mode) error
	// Repair reports whether it is frozen.
	Repair() (bool, error)

	// QueueSeq is the sequence number after the last byte of a queue, a FIN
	// that follows it included. ErrInvalid for NoQueue and outside repair.
	QueueSeq(Queue) (uint32, error)
	// SetQueueSeq sets where a queue starts. Only in CLOSED, with the queue
	// empty and in repair: ErrPermission otherwise. ErrInvalid for NoQueue.
	SetQueueSeq(Queue, uint32) error
	// Peek copies from the front of a queue: what was received and not read,
	// or what was written and not acknowledged, sent or not. Outside repair
	// ErrPermission; ErrInvalid for NoQueue.
	Peek(Queue, []byte) (int, error)
	// WriteQueue appends to a queue: to what was received, without an
	// acknowledgement, or to what counts as sent, without a packet.
	// ErrPermission outside repair, ErrClosed unless ESTABLISHED or CLOSE-WAIT,
	// ErrInvalid for NoQueue.
	WriteQueue(Queue, []byte) (int, error)
	// Queued is how many bytes the queues hold: received and not read; written
	// and not acknowledged; of those, never sent. FINs are not counted.
	Queued() (unread, unacked, unsent int, err error)

	// Options is what the two sides agreed on in the handshake, and the peer's
	// MSS.
	Options() (Options, error)
	// SetOptions is TCP_REPAIR_OPTIONS. ErrInvalid outside repair;
	// ErrPermission unless ESTABLISHED with nothing sent yet; ErrTooBig for a
	// scale above MaxScale.
	SetOptions(Options) error
	// Window is both windows, in bytes. ErrPermission outside repair.
	Window() (Window, error)
	// SetWindow is TCP_REPAIR_WINDOW. ErrPermission outside repair; ErrInvalid
	// if MaxWindow is below SndWnd, SndWl1 after RCV.NXT plus RcvWnd, or
	// RcvWup after RCV.NXT.
	SetWindow(Window) error
	// Timestamp is our timestamp clock's value now; micros if its tick is a
	// microsecond.
	Timestamp() (value uint32, micros bool, err error)
	// SetTimestamp sets it. ErrPermission outside repair.
	SetTimestamp(value uint32, micros bool) error

	// Bind and Connect set the two ends; in repair without a check for
	// conflicts, and without a SYN: the state is ESTABLISHED at once.
	// ErrAddrInUse if there is a connection with the same ends.
	Bind(local netip.AddrPort) error
	// Connect: see Bind.
	Connect(remote netip.AddrPort) error

	// Close ends the socket; in repair without a FIN or a RST.
	Close() error
}

// Snapshotter is a Socket that can read itself out in one step, with what
// Linux has no means to tell. The Socket is frozen; or it is a listener, which
// Snapshot freezes, with the connections that wait in it, unless it fails.
type Snapshotter interface {
	Socket
	// Snapshot reads a frozen Socket out. What it returns is the caller's.
	Snapshot() (*Snapshot, error)
}

// Resumer is a Socket that has more to do at the end of a freeze than
// SetRepair, such as sending what was never sent.
type Resumer interface {
	Socket
	// Resume thaws; the mode is Off or OffNoProbe.
	Resume(Mode) error
}

// Factory makes Sockets.
type Factory interface {
	// Socket returns a fresh one, CLOSED and unbound, of the family of local.
	Socket(local netip.AddrPort) (Socket, error)
}

// Restorer is a Factory that can set a Snapshot down in one step, in any
// state. The Socket it returns is frozen. After an error nothing has changed.
type Restorer interface {
	Factory
	// Restore sets the Snapshot down, which stays the caller's.
	Restore(*Snapshot) (Socket, error)
}

// Flow is the two ends of a connection.
type Flow struct{ Local, Remote netip.AddrPort }

// Reserver is a Factory that can keep the place of a connection: before it
// arrives, or after it has gone. Segments to that place draw no reset.
type Reserver interface {
	// Reserve holds a place for at most lifetime, or until Restore fills it or
	// it is cancelled. Up to hold bytes of segments are kept and given to the
	// connection when it is restored; with 0 they are swallowed. ErrAddrInUse
	// if the place is taken.
	Reserve(f Flow, hold int, lifetime time.Duration) (Reservation, error)
	// Bury leaves a tombstone that swallows segments for lifetime.
	Bury(f Flow, lifetime time.Duration) (Reservation, error)
}

// Reservation is a place that is kept.
type Reservation interface {
	// Cancel gives the place up. A second time does nothing.
	Cancel()
	// Segments is how many have been held and how many swallowed so far.
	Segments() (held, swallowed uint64)
}

// What the rules of Linux's TCP_REPAIR refuse, and what a Restore can meet.
var (
	ErrPermission = errors.New("operation not permitted") // EPERM
	ErrInvalid    = errors.New("invalid argument")        // EINVAL
	ErrTooBig     = errors.New("window scale above 14")   // EFBIG
	ErrClosed     = errors.New("broken pipe")             // EPIPE
	ErrAddrInUse  = errors.New("address already in use")  // EADDRNOTAVAIL or EADDRINUSE
	ErrAddress    = errors.New("no such local address")   // EADDRNOTAVAIL
	ErrNoRoute    = errors.New("no route to the peer")    // ENETUNREACH, EHOSTUNREACH
	ErrState      = errors.New("state cannot be restored here")
)
