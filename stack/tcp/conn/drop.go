package conn

// DropReason says why a segment was refused. Every refused segment has exactly
// one. The names are Linux's (include/net/dropreason-core.h, without the
// SKB_DROP_REASON_ prefix); SOCKET_TOMBSTONE and SOCKET_RESERVED are ours.
type DropReason uint8

// The reasons. NotDropped, the zero value, is the verdict on a segment that
// was taken.
const (
	NotDropped DropReason = iota
	DropNoSocket
	DropTCPChecksum
	DropTCPFlags
	DropZeroWindow
	DropOldData
	DropOverWindow
	DropOfoMerge
	DropOfoQueuePrune
	DropOfoDrop
	DropPAWS
	DropTimeWaitPAWS
	DropListenOverflow
	DropOldSequence
	DropInvalidSequence
	DropInvalidEndSequence
	DropInvalidAckSequence
	DropReset
	DropInvalidSYN
	DropClosed
	DropOldAck
	DropTooOldAck
	DropAckUnsentData
	DropAbortOnData
	DropSocketBacklog
	DropSocketRcvbuf
	DropProtoMem
	DropSocketRepair
	DropSocketTombstone
	DropSocketReserved

	// NumDropReasons is the size of an array indexed by DropReason.
	NumDropReasons
)

var dropNames = [NumDropReasons]string{
	NotDropped:             "NOT_DROPPED",
	DropNoSocket:           "NO_SOCKET",
	DropTCPChecksum:        "TCP_CSUM",
	DropTCPFlags:           "TCP_FLAGS",
	DropZeroWindow:         "TCP_ZEROWINDOW",
	DropOldData:            "TCP_OLD_DATA",
	DropOverWindow:         "TCP_OVERWINDOW",
	DropOfoMerge:           "TCP_OFOMERGE",
	DropOfoQueuePrune:      "TCP_OFO_QUEUE_PRUNE",
	DropOfoDrop:            "TCP_OFO_DROP",
	DropPAWS:               "TCP_RFC7323_PAWS",
	DropTimeWaitPAWS:       "TCP_RFC7323_TW_PAWS",
	DropListenOverflow:     "TCP_LISTEN_OVERFLOW",
	DropOldSequence:        "TCP_OLD_SEQUENCE",
	DropInvalidSequence:    "TCP_INVALID_SEQUENCE",
	DropInvalidEndSequence: "TCP_INVALID_END_SEQUENCE",
	DropInvalidAckSequence: "TCP_INVALID_ACK_SEQUENCE",
	DropReset:              "TCP_RESET",
	DropInvalidSYN:         "TCP_INVALID_SYN",
	DropClosed:             "TCP_CLOSE",
	DropOldAck:             "TCP_OLD_ACK",
	DropTooOldAck:          "TCP_TOO_OLD_ACK",
	DropAckUnsentData:      "TCP_ACK_UNSENT_DATA",
	DropAbortOnData:        "TCP_ABORT_ON_DATA",
	DropSocketBacklog:      "SOCKET_BACKLOG",
	DropSocketRcvbuf:       "SOCKET_RCVBUFF",
	DropProtoMem:           "PROTO_MEM",
	DropSocketRepair:       "SOCKET_REPAIR",
	DropSocketTombstone:    "SOCKET_TOMBSTONE",
	DropSocketReserved:     "SOCKET_RESERVED",
}

// String returns the reason's name as Linux spells it.
func (r DropReason) String() string {
	if r < NumDropReasons {
		return dropNames[r]
	}
	return "UNKNOWN"
}
