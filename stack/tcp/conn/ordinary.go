package conn

// What most connections never need is made when it is first needed: the record
// of a reduced window, of holes, of disorder, and so on. Until then a connection
// has one that says that there is nothing, which all share and none writes to; so
// whoever reads need not ask whether it is there.

// beOrdinary gives the connection the shared ones.
func (c *Conn) beOrdinary() {
	c.timers.init()
	c.board.holes = &noHoles
	c.loss.reduction = &noReduction
	c.sendq.breaks = &noBreaks
	c.disorder = &inOrder
	c.oddities = &nothingOdd
	c.stats.Mishaps = &noMishaps
}

// sharedIntact reports whether they still say that there is nothing.
func sharedIntact() bool {
	return noUnusual == neverUnusual() && noHoles.none() && noReduction == reduction{} && noBreaks.none() &&
		inOrder.none() && nothingOdd == oddities{} && noMishaps == Mishaps{} && unset == Profile{}
}
