package linux

import (
	"testing"

	"golang.org/x/sys/unix"
)

// UserFilter reads the filter that a socket has.
func UserFilter(t *testing.T, s *Socket) []unix.SockFilter {
	t.Helper()
	f, err := userFilter(s.fd)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
