package packetdrill

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// errno is the name of an error as scripts have it; empty for none.
type errno string

// errnoOf is what a program sees of an error of the stack's, as Linux has it.
func errnoOf(err tcpip.Error) errno {
	if err == nil {
		return ""
	}
	switch err.(type) {
	case *tcpip.ErrAborted:
		return "EPIPE"
	case *tcpip.ErrAddressFamilyNotSupported:
		return "EAFNOSUPPORT"
	case *tcpip.ErrAlreadyBound, *tcpip.ErrInvalidEndpointState, *tcpip.ErrInvalidOptionValue:
		return "EINVAL"
	case *tcpip.ErrAlreadyConnected:
		return "EISCONN"
	case *tcpip.ErrAlreadyConnecting:
		return "EALREADY"
	case *tcpip.ErrBadAddress:
		return "EFAULT"
	case *tcpip.ErrBadLocalAddress:
		return "EADDRNOTAVAIL"
	case *tcpip.ErrClosedForSend:
		return "EPIPE"
	case *tcpip.ErrConnectStarted:
		return "EINPROGRESS"
	case *tcpip.ErrConnectionAborted:
		return "ECONNABORTED"
	case *tcpip.ErrConnectionRefused:
		return "ECONNREFUSED"
	case *tcpip.ErrConnectionReset:
		return "ECONNRESET"
	case *tcpip.ErrDestinationRequired:
		return "EDESTADDRREQ"
	case *tcpip.ErrMessageTooLong:
		return "EMSGSIZE"
	case *tcpip.ErrNetworkUnreachable:
		return "ENETUNREACH"
	case *tcpip.ErrNoBufferSpace:
		return "ENOBUFS"
	case *tcpip.ErrNoPortAvailable:
		return "EAGAIN"
	case *tcpip.ErrHostUnreachable:
		return "EHOSTUNREACH"
	case *tcpip.ErrHostDown:
		return "EHOSTDOWN"
	case *tcpip.ErrNoNet:
		return "ENONET"
	case *tcpip.ErrNoSuchFile:
		return "ENOENT"
	case *tcpip.ErrNotConnected:
		return "ENOTCONN"
	case *tcpip.ErrNotPermitted:
		return "EPERM"
	case *tcpip.ErrNotSupported, *tcpip.ErrQueueSizeNotSupported:
		return "EOPNOTSUPP"
	case *tcpip.ErrPortInUse:
		return "EADDRINUSE"
	case *tcpip.ErrTimeout:
		return "ETIMEDOUT"
	case *tcpip.ErrUnknownDevice:
		return "ENODEV"
	case *tcpip.ErrUnknownProtocol:
		return "EPROTONOSUPPORT"
	case *tcpip.ErrUnknownProtocolOption:
		return "ENOPROTOOPT"
	case *tcpip.ErrWouldBlock:
		return "EAGAIN"
	}
	return errno(fmt.Sprintf("%T", err))
}

// errnoNumbers are Linux's numbers, for SO_ERROR.
var errnoNumbers = map[string]int64{
	"EPERM": 1, "ENOENT": 2, "EINTR": 4, "EBADF": 9, "EAGAIN": 11, "ENOMEM": 12, "EFAULT": 14, "EINVAL": 22, "EFBIG": 27, "EPIPE": 32,
	"EPROTO": 71, "EMSGSIZE": 90, "ENOPROTOOPT": 92, "EPROTONOSUPPORT": 93, "EOPNOTSUPP": 95, "EAFNOSUPPORT": 97,
	"EADDRINUSE": 98, "EADDRNOTAVAIL": 99, "ENETDOWN": 100, "ENETUNREACH": 101, "ECONNABORTED": 103, "ECONNRESET": 104,
	"ENOBUFS": 105, "EISCONN": 106, "ENOTCONN": 107, "ETIMEDOUT": 110, "ECONNREFUSED": 111, "EHOSTDOWN": 112,
	"EHOSTUNREACH": 113, "EALREADY": 114, "EINPROGRESS": 115,
}

func init() {
	for name, n := range errnoNumbers {
		constants[name] = n
	}
}

// wouldBlock reports whether a call has to wait.
func wouldBlock(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrWouldBlock)
	return ok
}

// sameErrno compares errors, of which some go by two names.
func sameErrno(a, b errno) bool {
	alias := func(e errno) errno {
		switch e {
		case "EWOULDBLOCK":
			return "EAGAIN"
		case "ENOTSUP":
			return "EOPNOTSUPP"
		}
		return e
	}
	return alias(a) == alias(b)
}
