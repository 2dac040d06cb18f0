package tcp_test

import (
	"testing"

	"gvisor.dev/gvisor/pkg/refs"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// What came before a reset and was not read is freed by Close.
func TestUnreadDataIsFreedAfterAReset(t *testing.T) {
	w := newWire(t)
	ep, iss := w.open()
	was := refs.GetLeakMode()
	refs.SetLeakMode(refs.LeaksPanic) // from here on, DoRepeatedLeakCheck panics if a buffer is left
	defer refs.SetLeakMode(was)
	const data = "unread"
	w.inject(segment{seq: peerISN + 1, ack: iss, flags: header.TCPFlagAck | header.TCPFlagPsh, window: 65535, payload: data}, nil)
	w.want(header.TCPFlagAck)
	w.inject(segment{seq: peerISN + 1 + uint32(len(data)), flags: header.TCPFlagRst}, nil)
	w.quiet("after the reset")
	ep.Close()
	refs.DoRepeatedLeakCheck()
}
