package conn

import "gvisor.dev/gvisor/pkg/tcpip/seqnum"

// disorder is what a receiver keeps while data does not come in order. Most
// never do, and those that do only at times, so it is there only then.
type disorder struct {
	reasm reassembly
	sacks sackGenerator
}

// inOrder is the disorder of all connections that have none. It is never written to.
var inOrder disorder

// disordered returns the connection's disorder to be written to.
func (c *Conn) disordered() *disorder {
	if c.disorder == &inOrder {
		c.disorder = new(disorder)
	}
	return c.disorder
}

// tidy lets the disorder go once it is over and told of.
func (c *Conn) tidy() {
	if c.reasm.empty() && !c.reasm.hasFIN && !c.sacks.any() {
		c.disorder = &inOrder
	}
}

// noDisorder drops whatever came early. A duplicate is still to be told of.
func (c *Conn) noDisorder() {
	if c.disorder == nil || c.disorder == &inOrder {
		c.disorder = &inOrder
		return
	}
	c.reasm.release()
	c.sacks.recent = nil
	c.tidy()
}

// duplicate notes that what arrived from start to end was there already.
func (c *Conn) duplicate(start, end seqnum.Value) {
	if c.cfg.sack {
		c.disordered().sacks.duplicate(start, end, c.rcv.nxt)
	}
}

func (d *disorder) none() bool {
	return d.reasm.empty() && !d.reasm.hasFIN && d.reasm.mem == keeper{} && !d.sacks.any()
}
