package tcp

import (
	"errors"
	"io"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp/conn"
)

// Read implements tcpip.Endpoint. On a frozen connection there is nothing to
// read: it reports ErrWouldBlock, and waiters are notified at the thaw.
func (e *Endpoint) Read(dst io.Writer, opts tcpip.ReadOptions) (tcpip.ReadResult, tcpip.Error) {
	e.mu.Lock()
	now := e.proto.now()
	e.drain(now)
	n, err := e.read(now, dst, opts.Peek)
	res := tcpip.ReadResult{Count: n, Total: n}
	if opts.NeedRemoteAddr && n > 0 {
		res.RemoteAddr = e.remote()
	}
	e.unlock()
	if err != nil {
		e.countReadError(err)
	}
	return res, err
}

func (e *Endpoint) read(now conn.Time, dst io.Writer, peek bool) (int, tcpip.Error) {
	if !e.started {
		if e.isDeferred() {
			return 0, &tcpip.ErrWouldBlock{}
		}
		return 0, &tcpip.ErrNotConnected{}
	}
	size := e.conn.Readable()
	if size == 0 {
		if e.queue != repair.NoQueue && e.conn.Frozen() {
			return e.readSelected(dst, peek)
		}
		if err := e.givenUp.err(); err != nil {
			return 0, err
		}
		if e.userGone {
			return 0, &tcpip.ErrClosedForReceive{}
		}
	}
	n, err := e.conn.Read(now, dst, size, peek)
	switch {
	case n > 0:
		return n, nil
	case err == nil && size > 0:
		return 0, &tcpip.ErrBadBuffer{} // dst took nothing
	case err == nil:
		return 0, &tcpip.ErrWouldBlock{}
	}
	return 0, tcpipError(err)
}

func (e *Endpoint) countReadError(err tcpip.Error) {
	switch err.(type) {
	case *tcpip.ErrClosedForReceive:
		e.stats.all().ReadErrors.ReadClosed.Increment()
	case *tcpip.ErrNotConnected:
		e.stats.all().ReadErrors.NotConnected.Increment()
	case *tcpip.ErrWouldBlock:
	default:
		e.stats.all().ReadErrors.InvalidEndpointState.Increment()
	}
}

// Write implements tcpip.Endpoint. It copies what it takes. Where Connect was
// deferred (SetFastOpenConnect) it sends the SYN; if that carries none of the
// payload, the error is ErrConnectStarted.
func (e *Endpoint) Write(p tcpip.Payloader, opts tcpip.WriteOptions) (int64, tcpip.Error) {
	e.mu.Lock()
	now := e.proto.now()
	e.drain(now)
	n, err := e.write(now, p, opts)
	e.unlock()
	if err != nil {
		e.countWriteError(err)
	}
	return int64(n), err
}

func (e *Endpoint) write(now conn.Time, p tcpip.Payloader, opts tcpip.WriteOptions) (int, tcpip.Error) {
	if !e.started {
		if e.isDeferred() {
			n, err := e.connectDeferred(now, p, opts)
			if _, busy := err.(*errBusy); busy {
				err = &tcpip.ErrNoPortAvailable{}
			}
			if n > 0 {
				err = nil
			}
			return int(n), err
		}
		return 0, &tcpip.ErrClosedForSend{} // EPIPE, as Linux has it
	}
	if err := e.givenUp.err(); err != nil {
		return 0, err
	}
	size := p.Len()
	if opts.Atomic && size > e.conn.Writable() {
		// Nothing at all, then; but say that room is wanted.
		_, err := e.conn.Write(now, noBytes{}, size, false)
		if errors.Is(err, errNoBytes) {
			return 0, &tcpip.ErrWouldBlock{}
		}
		return 0, tcpipError(err)
	}
	n, err := e.conn.Write(now, p, size, opts.More)
	if opts.EndOfRecord && n == size && err == nil {
		e.conn.EndRecord()
	}
	switch {
	case n > 0:
		return n, nil
	case e.queue != repair.NoQueue && e.conn.Frozen():
		return e.writeSelected(now, p)
	}
	return 0, tcpipError(err)
}

func (e *Endpoint) countWriteError(err tcpip.Error) {
	switch err.(type) {
	case *tcpip.ErrClosedForSend:
		e.stats.all().WriteErrors.WriteClosed.Increment()
	case *tcpip.ErrWouldBlock:
	case *tcpip.ErrInvalidOptionValue, *tcpip.ErrBadBuffer:
		e.stats.all().WriteErrors.InvalidArgs.Increment()
	default:
		e.stats.all().WriteErrors.InvalidEndpointState.Increment()
	}
}

// errNoBytes is what noBytes, a reader of nothing, reports.
var errNoBytes = errors.New("no bytes")

type noBytes struct{}

func (noBytes) Read([]byte) (int, error) { return 0, errNoBytes }
