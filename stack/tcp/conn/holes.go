package conn

import "gvisor.dev/gvisor/pkg/tcpip/seqnum"

// holes is what a scoreboard keeps beside its records while the peer is not
// known to have everything up to the last that it has. It is there only then.
type holes struct {
	rtxq []rtx          // retransmissions under way, oldest first
	lost []seqnum.Value // records to retransmit, in the order they were found lost

	sacked, lostOut, rtxOut tally
	high                    seqnum.Value            // the end of the highest record SACKed
	reported                [maxSACKBlocks]seqRange // the blocks of the last acknowledgement
	numReported             int
}

// noHoles are the holes of all scoreboards that have none. They are never written to.
var noHoles holes

// dig returns the scoreboard's holes to be written to.
func (b *scoreboard) dig() *holes {
	if b.holes == &noHoles {
		b.holes = new(holes)
	}
	return b.holes
}

func (h *holes) none() bool {
	return len(h.rtxq)+len(h.lost)+h.numReported == 0 && h.sacked == tally{} && h.lostOut == tally{} && h.rtxOut == tally{}
}
