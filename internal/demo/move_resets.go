package demo

// resets is how many RSTs were on the wire that cut a connection off, whoever
// sent them.
func (c *country) resets() int { return len(c.capture.StrayResets()) + c.capture.Missed() }
