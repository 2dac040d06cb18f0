package netsim

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Takeover gives the first host's end of the link, with its address, to another
// host, as when an address moves with the service behind it. What is on its way
// arrives there. The first host still has its address, and may send.
func (l *Link) Takeover(h *Host) error {
	return h.attach(l.ba.to, l.A())
}

// MoveSender has a transfer go on from another endpoint, which its connection
// has been moved to.
func (f *Bulk) MoveSender(ep tcpip.Endpoint, wq *waiter.Queue) {
	f.sender.wq.EventUnregister(&f.sender.entry)
	f.sender = f.net.watch(ep, wq, f.send)
}
