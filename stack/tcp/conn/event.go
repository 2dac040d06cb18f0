package conn

// Event is a set of things that happened since the last call of Conn.Events.
type Event uint8

// The events are edges, as epoll's EPOLLET sees them.
const (
	// EventReadable: data came to an empty queue, or more came, or Read would
	// now report the end or an error.
	EventReadable Event = 1 << iota
	// EventWritable: room appeared in a send queue that had refused a Write,
	// or Write would now report an error.
	EventWritable
	// EventEstablished: the handshake is complete.
	EventEstablished
	// EventPeerClosed: the peer's FIN was received in order.
	EventPeerClosed
	// EventError: Err became non-nil.
	EventError
	// EventClosed: the connection reached CLOSED; it will send nothing more
	// once Output is drained, and the caller may forget it.
	EventClosed
)
