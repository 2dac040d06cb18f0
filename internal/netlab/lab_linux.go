package netlab

import (
	"fmt"
	"io"
	"sync"
)

// Lab owns what it makes: namespaces, devices, wires, captures, processes.
type Lab struct {
	tb TB // nil for a lab made by Open

	mu      sync.Mutex
	closed  bool
	closers []io.Closer // in the order of making
}

// New returns a lab that closes when the test and its subtests end. It skips
// or fails the test, as Require does, where namespaces are not possible.
func New(t TB) *Lab {
	t.Helper()
	Require(t)
	l := &Lab{tb: t}
	t.Cleanup(l.Close)
	return l
}

// Open returns a lab for use outside of tests. The caller closes it. The error
// is why namespaces are not possible.
func Open() (*Lab, error) {
	if err := namespacesErr(); err != nil {
		return nil, err
	}
	return &Lab{}, nil
}

// Close ends everything made by the lab, last made first. Sockets made inside
// its namespaces are their users' to close; the kernel keeps a namespace alive
// until the last of them is gone.
func (l *Lab) Close() {
	l.mu.Lock()
	closers := l.closers
	l.closers, l.closed = nil, true
	l.mu.Unlock()
	for i := len(closers) - 1; i >= 0; i-- {
		if err := closers[i].Close(); err != nil {
			l.logf("closing the lab: %v", err)
		}
	}
}

// own hands c to the lab. If the lab has closed already, c is closed at once.
func (l *Lab) own(c io.Closer) error {
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.closers = append(l.closers, c)
	}
	l.mu.Unlock()
	if !closed {
		return nil
	}
	_ = c.Close()
	return fmt.Errorf("netlab: the lab is closed")
}

func (l *Lab) logf(format string, args ...any) {
	if l.tb != nil {
		l.tb.Logf("netlab: "+format, args...)
	}
}
