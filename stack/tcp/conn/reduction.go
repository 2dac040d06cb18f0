package conn

// reduction is what a connection remembers of the last time its congestion
// window was reduced, and of what was sent again since. Most never have to, so
// it is made when it is first needed.
type reduction struct {
	prr      prrState
	undo     undoState
	undone   bool   // it was taken back
	resentTS uint32 // our timestamp on the first retransmission after it
}

// noReduction is that of all connections that have had none. It is never written to.
var noReduction reduction

// reduced returns the connection's reduction to be written to.
func (l *lossState) reduced() *reduction {
	if l.reduction == &noReduction {
		l.reduction = new(reduction)
	}
	return l.reduction
}

// sent notes that n bytes were sent, to be counted against a reduction.
func (l *lossState) sent(n int64) {
	if l.reduction != &noReduction {
		l.prr.out += n
	}
}
