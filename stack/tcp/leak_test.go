package tcp_test

import (
	"testing"

	"gvisor.dev/gvisor/pkg/refs"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// What came before a reset and was not read is freed by Close.
func TestUnreadDataIsFreedAfterAReset(t *testing.T) {
	was := refs.GetLeakMode()
	refs.SetLeakMode(refs.LeaksPanic) // DoRepeatedLeakCheck panics if a buffer is left
	defer refs.SetLeakMode(was)
	w := newWire(t)
	ep, iss := w.open()
	const data = "unread"
	w.inject(segment{seq: peerISN + 1, ack: iss, flags: header.TCPFlagAck | header.TCPFlagPsh, window: 65535, payload: data}, nil)
	w.want(header.TCPFlagAck)
	w.inject(segment{seq: peerISN + 1 + uint32(len(data)), flags: header.TCPFlagRst}, nil)
	w.quiet("after the reset")
	ep.Close()
	refs.DoRepeatedLeakCheck()
}
