package stack

import (
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// ErrNoConn is reported for an ID that no connection has, or has any more.
var ErrNoConn = errors.New("no such connection")

// errnos says what a Unix socket reports for gVisor's errors, by their types.
var errnos = byType(map[syscall.Errno][]tcpip.Error{
	syscall.ECONNABORTED:    {&tcpip.ErrAborted{}, &tcpip.ErrConnectionAborted{}},
	syscall.EAFNOSUPPORT:    {&tcpip.ErrAddressFamilyNotSupported{}},
	syscall.EISCONN:         {&tcpip.ErrAlreadyConnected{}},
	syscall.EALREADY:        {&tcpip.ErrAlreadyConnecting{}},
	syscall.EINPROGRESS:     {&tcpip.ErrConnectStarted{}},
	syscall.EFAULT:          {&tcpip.ErrBadAddress{}, &tcpip.ErrBadBuffer{}},
	syscall.EADDRNOTAVAIL:   {&tcpip.ErrBadLocalAddress{}, &tcpip.ErrNoPortAvailable{}},
	syscall.EACCES:          {&tcpip.ErrBroadcastDisabled{}},
	syscall.EPIPE:           {&tcpip.ErrClosedForSend{}},
	syscall.ECONNREFUSED:    {&tcpip.ErrConnectionRefused{}},
	syscall.ECONNRESET:      {&tcpip.ErrConnectionReset{}},
	syscall.EDESTADDRREQ:    {&tcpip.ErrDestinationRequired{}},
	syscall.EADDRINUSE:      {&tcpip.ErrDuplicateAddress{}, &tcpip.ErrPortInUse{}},
	syscall.EINVAL:          {&tcpip.ErrAlreadyBound{}, &tcpip.ErrInvalidEndpointState{}, &tcpip.ErrInvalidOptionValue{}, &tcpip.ErrInvalidPortRange{}},
	syscall.EMSGSIZE:        {&tcpip.ErrMessageTooLong{}},
	syscall.ENETUNREACH:     {&tcpip.ErrNetworkUnreachable{}, &tcpip.ErrNoNet{}},
	syscall.EHOSTUNREACH:    {&tcpip.ErrHostUnreachable{}},
	syscall.EHOSTDOWN:       {&tcpip.ErrHostDown{}},
	syscall.ENOBUFS:         {&tcpip.ErrNoBufferSpace{}},
	syscall.ENOTCONN:        {&tcpip.ErrNotConnected{}},
	syscall.EPERM:           {&tcpip.ErrNotPermitted{}},
	syscall.EOPNOTSUPP:      {&tcpip.ErrNotSupported{}},
	syscall.ETIMEDOUT:       {&tcpip.ErrTimeout{}},
	syscall.ENODEV:          {&tcpip.ErrUnknownDevice{}, &tcpip.ErrUnknownNICID{}},
	syscall.EPROTONOSUPPORT: {&tcpip.ErrUnknownProtocol{}},
	syscall.ENOPROTOOPT:     {&tcpip.ErrUnknownProtocolOption{}, &tcpip.ErrQueueSizeNotSupported{}},
	syscall.ENOENT:          {&tcpip.ErrNoSuchFile{}},
	syscall.EAGAIN:          {&tcpip.ErrWouldBlock{}},
})

func byType(table map[syscall.Errno][]tcpip.Error) map[reflect.Type]syscall.Errno {
	types := make(map[reflect.Type]syscall.Errno)
	for no, list := range table {
		for _, err := range list {
			types[reflect.TypeOf(err)] = no
		}
	}
	return types
}

// errno is what a Unix socket reports for err. What cannot come of a stream
// socket's call is EIO.
func errno(err tcpip.Error) syscall.Errno {
	if no, ok := errnos[reflect.TypeOf(err)]; ok {
		return no
	}
	return syscall.EIO
}

// sysErr wraps a tcpip.Error as package net wraps what a system call returned.
// Nil stays nil.
func sysErr(call string, err tcpip.Error) error {
	if err == nil {
		return nil
	}
	return os.NewSyscallError(call, errno(err))
}

// readErr is sysErr for Read: a stream that ended is io.EOF.
func readErr(err tcpip.Error) error {
	if _, ok := err.(*tcpip.ErrClosedForReceive); ok {
		return io.EOF
	}
	return sysErr("read", err)
}

// opErr is what a method of Conn or Listener returns for err. The end of a
// stream is bare, as every reader expects.
func opErr(op string, local, remote net.Addr, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: local, Addr: remote, Err: err}
}
