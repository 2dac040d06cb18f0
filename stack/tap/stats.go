//go:build linux

package tap

import "sync/atomic"

// Stats is what an endpoint has carried and dropped since it was opened.
// Frames are counted as the device saw them: one large TCP packet is one frame,
// however many pieces it is cut into elsewhere. Bytes include the Ethernet
// header and exclude the virtio-net header.
type Stats struct {
	RxFrames uint64 // handed to the stack
	RxBytes  uint64
	TxFrames uint64 // taken by the device
	TxBytes  uint64

	RxShort     uint64 // dropped: too short for its headers
	RxTruncated uint64 // dropped: longer than any frame may be
	RxBadHeader uint64 // dropped: the virtio-net header contradicts the frame
	RxOtherHost uint64 // dropped: unicast to an address that is not ours

	TxNoBuffer  uint64 // dropped: the kernel had no room (EAGAIN, ENOBUFS, ENOMEM)
	TxDown      uint64 // dropped: the device is down (EIO, ENETDOWN)
	TxRejected  uint64 // dropped: the kernel refused the frame
	TxMalformed uint64 // dropped: GSO options that do not fit the packet or the device
	TxClosed    uint64 // dropped: the endpoint is closed or the device is gone
}

// counters is the live form of Stats.
type counters struct {
	rxFrames, rxBytes, txFrames, txBytes           atomic.Uint64
	rxShort, rxTruncated, rxBadHeader, rxOtherHost atomic.Uint64
	txNoBuffer, txDown, txRejected, txMalformed    atomic.Uint64
	txClosed                                       atomic.Uint64
}

// snapshot reads every counter. They are read one after another, so a frame in
// flight may be in one of them already and not yet in another.
func (c *counters) snapshot() Stats {
	return Stats{
		RxFrames:    c.rxFrames.Load(),
		RxBytes:     c.rxBytes.Load(),
		TxFrames:    c.txFrames.Load(),
		TxBytes:     c.txBytes.Load(),
		RxShort:     c.rxShort.Load(),
		RxTruncated: c.rxTruncated.Load(),
		RxBadHeader: c.rxBadHeader.Load(),
		RxOtherHost: c.rxOtherHost.Load(),
		TxNoBuffer:  c.txNoBuffer.Load(),
		TxDown:      c.txDown.Load(),
		TxRejected:  c.txRejected.Load(),
		TxMalformed: c.txMalformed.Load(),
		TxClosed:    c.txClosed.Load(),
	}
}
