package linux

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
)

// key names the place of a connection in one of the machine's network
// namespaces.
type key struct {
	namespace uint64 // its cookie
	flow      repair.Flow
}

// places are those that this process keeps: by connections that it has frozen,
// and by sockets that hold a place.
var places = struct {
	sync.Mutex
	frozen map[key]*Socket
	held   map[key]*holder
}{frozen: make(map[key]*Socket), held: make(map[key]*holder)}

// cookie is the number of a socket's network namespace. Before Linux 5.14 it is
// the same for all.
func cookie(fd int) (v uint64) {
	if _, err := getsockopt(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE, unsafe.Pointer(&v), 8); err != nil {
		return 0
	}
	return v
}

// here says that the place is in the network namespace of this thread.
func (k *key) here() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return failed("socket", err)
	}
	k.namespace = cookie(fd)
	return failed("close", unix.Close(fd))
}

// register makes a frozen connection known, so that Bury finds it.
func (s *Socket) register() error {
	local, remote, err := s.addrs()
	if err != nil || !remote.IsValid() {
		return err
	}
	s.at = &key{cookie(s.fd), repair.Flow{Local: local, Remote: remote}}
	places.Lock()
	places.frozen[*s.at] = s
	places.Unlock()
	return nil
}

func (s *Socket) unregister() {
	if s.at == nil {
		return
	}
	places.Lock()
	if places.frozen[*s.at] == s {
		delete(places.frozen, *s.at)
	}
	places.Unlock()
	s.at = nil
}

// tombstone is the holder that has been made of the frozen connection, or nil.
func (s *Socket) tombstone() *holder {
	if s.at == nil {
		return nil
	}
	places.Lock()
	defer places.Unlock()
	if h := places.held[*s.at]; h != nil && h.of == s {
		return h
	}
	return nil
}

// unbury gives up the tombstone of a connection that has not gone after all.
func (s *Socket) unbury() {
	if h := s.tombstone(); h != nil {
		h.Cancel()
	}
}
