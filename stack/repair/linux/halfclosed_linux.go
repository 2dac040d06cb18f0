package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// TCP flags (RFC 9293 section 3.1).
const (
	flagFIN = 1
	flagACK = 16
)

// halfClose makes up the FINs that the connection has seen. The kernel can only
// be told of our own by a shutdown, with the send queue selected so that it
// counts as sent, and of the peer's segments by such segments.
func (s *Socket) halfClose(p *plan) (err error) {
	if !p.FINSent && !p.FINReceived {
		return nil
	}
	i, err := newInjector(p.Flow())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.close()) }()
	if p.FINReceived && (p.State != repair.StateClosing || p.finish) {
		// CLOSE-WAIT, perhaps on the way to LAST-ACK: the peer's FIN came first.
		if err := s.peerSays(i, p, flagFIN|flagACK, p.SendSeq, repair.StateCloseWait); err != nil {
			return err
		}
	}
	if !p.FINSent {
		return nil
	}
	err = s.onQueue(repair.SendQueue, func() error {
		return failed("shutdown", unix.Shutdown(s.fd, unix.SHUT_WR))
	})
	switch {
	case err != nil:
		return err
	case p.State == repair.StateFinWait2:
		return s.peerSays(i, p, flagACK, p.SendSeq+1, repair.StateFinWait2)
	case p.State == repair.StateClosing:
		return s.peerSays(i, p, flagFIN|flagACK, p.SendSeq, repair.StateClosing)
	}
	return nil
}

// injectLimit is far more than the kernel takes to deliver a packet to itself.
const injectLimit = 2 * time.Second

// peerSays makes up a segment of the peer's and waits for what it brings about.
func (s *Socket) peerSays(i *injector, p *plan, flags byte, ack uint32, want repair.State) error {
	if err := i.send(0, forge(p, flags, ack)); err != nil {
		return err
	}
	for deadline := time.Now().Add(injectLimit); ; runtime.Gosched() {
		state, err := s.state()
		if err != nil || state == want {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("linux: the connection is %v and did not become %v by a segment made up for it: %w", state, want, repair.ErrState)
		}
	}
}

// forge makes a TCP segment from the peer, without data and options. The window
// is the one the peer has.
func forge(p *plan, flags byte, ack uint32) []byte {
	window := p.window.SndWnd
	if p.Options.Scaling {
		window >>= p.Options.SendScale
	}
	b := make([]byte, 0, tcpHeaderLen)
	b = binary.BigEndian.AppendUint16(b, p.Remote.Port())
	b = binary.BigEndian.AppendUint16(b, p.Local.Port())
	b = binary.BigEndian.AppendUint32(b, p.RecvSeq)
	b = binary.BigEndian.AppendUint32(b, ack)
	b = append(b, tcpHeaderLen/4<<4, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(min(window, 0xffff)))
	return append(b, 0, 0, 0, 0) // checksum, urgent pointer
}
