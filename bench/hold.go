//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"golang.org/x/sys/unix"
)

// Idle connections are spread over several ports, because a port takes no more
// of them from one address than there are ports at the other end.
const (
	portHold  = 7000
	holdPorts = 8
)

// peerSockets is how many of them one process of the peer's keeps, which may not
// be allowed many files.
const peerSockets = 15_000

// patience is how long is waited for what must come.
const patience = 60 * time.Second

// holder keeps the connections to those ports.
type holder interface {
	// wait waits until there are n.
	wait(n int) error
	// cost is what of the memory taken between two looks is the stack's.
	cost(before, after memory) float64
	// exercise answers a byte on each.
	exercise() error
	// drop ends all.
	drop() error
}

// memory is what a process has taken, and what the kernel has, in bytes.
type memory struct{ process, kernel float64 }

// memoryInUse reads the memory in use, garbage left out.
func memoryInUse() memory {
	runtime.GC()
	runtime.GC() // what finalizers and pools have let go in the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{process: float64(m.HeapAlloc + m.StackInuse), kernel: kernelSlab()}
}

// kernelSlab is the memory in the kernel's object caches.
func kernelSlab() float64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) > 1 && f[0] == "Slab:" {
			kib, _ := strconv.ParseFloat(f[1], 64)
			return kib * 1024
		}
	}
	return 0
}

// kept is a collection that grows, to be waited for.
type kept[T any] struct {
	mu    sync.Mutex
	list  []T
	grown *sync.Cond
}

func newKept[T any]() *kept[T] {
	k := &kept[T]{}
	k.grown = sync.NewCond(&k.mu)
	return k
}

func (k *kept[T]) add(v T) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list = append(k.list, v)
	k.grown.Broadcast()
}

func (k *kept[T]) wait(n int) error {
	late := false
	t := time.AfterFunc(patience, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		late = true
		k.grown.Broadcast()
	})
	defer t.Stop()
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.list) < n && !late {
		k.grown.Wait()
	}
	if len(k.list) != n {
		return fmt.Errorf("%d connections have come, want %d", len(k.list), n)
	}
	return nil
}

func (k *kept[T]) take() []T {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.list
	k.list = nil
	return l
}

func (k *kept[T]) snapshot() []T {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.list
}

// endpointHolder keeps endpoints of a netstack, ours or gVisor's, without a
// net.Conn or a goroutine around them.
type endpointHolder struct {
	*kept[tcpip.Endpoint]
}

func holdEndpoints(s *gstack.Stack) (holder, error) {
	h := endpointHolder{newKept[tcpip.Endpoint]()}
	for i := range holdPorts {
		if err := h.listen(s, uint16(portHold+i)); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// listen accepts for good.
func (h endpointHolder) listen(s *gstack.Stack, port uint16) error {
	var wq waiter.Queue
	ep, terr := s.NewEndpoint(header.TCPProtocolNumber, header.IPv4ProtocolNumber, &wq)
	if terr != nil {
		return fmt.Errorf("%v", terr)
	}
	if terr := ep.Bind(tcpip.FullAddress{Port: port}); terr != nil {
		return fmt.Errorf("%v", terr)
	}
	if terr := ep.Listen(4096); terr != nil {
		return fmt.Errorf("%v", terr)
	}
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents)
	wq.EventRegister(&entry)
	go func() {
		for {
			child, _, terr := ep.Accept(nil)
			if _, empty := terr.(*tcpip.ErrWouldBlock); empty {
				<-ready
				continue
			}
			if terr != nil {
				return
			}
			h.add(child)
		}
	}()
	return nil
}

func (h endpointHolder) cost(before, after memory) float64 { return after.process - before.process }

func (h endpointHolder) exercise() error {
	for _, ep := range h.snapshot() {
		var b bytes.Buffer
		for end := time.Now().Add(patience); b.Len() == 0; {
			_, terr := ep.Read(&b, tcpip.ReadOptions{})
			if _, empty := terr.(*tcpip.ErrWouldBlock); empty && time.Now().Before(end) {
				runtime.Gosched()
				continue
			}
			if terr != nil {
				return fmt.Errorf("read: %v", terr)
			}
		}
		if _, terr := ep.Write(bytes.NewReader(b.Bytes()), tcpip.WriteOptions{}); terr != nil {
			return fmt.Errorf("write: %v", terr)
		}
	}
	return nil
}

func (h endpointHolder) drop() error {
	for _, ep := range h.take() {
		ep.Abort()
	}
	return nil
}

// socketHolder keeps sockets of the kernel's.
type socketHolder struct {
	*kept[int]
}

func holdSockets() (holder, error) {
	h := socketHolder{newKept[int]()}
	for i := range holdPorts {
		if err := h.listen(portHold + i); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// listen accepts for good.
func (h socketHolder) listen(port int) error {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(l, &unix.SockaddrInet4{Port: port}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(l, 4096); err != nil {
		return os.NewSyscallError("listen", err)
	}
	go func() {
		for {
			fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			h.add(fd)
		}
	}()
	return nil
}

// cost counts half, because the peer's sockets are the kernel's too.
func (h socketHolder) cost(before, after memory) float64 { return (after.kernel - before.kernel) / 2 }

func (h socketHolder) exercise() error {
	var b [1]byte
	for _, fd := range h.snapshot() {
		if _, err := unix.Read(fd, b[:]); err != nil {
			return os.NewSyscallError("read", err)
		}
		if _, err := unix.Write(fd, b[:]); err != nil {
			return os.NewSyscallError("write", err)
		}
	}
	return nil
}

func (h socketHolder) drop() error {
	for _, fd := range h.take() {
		resetSocket(fd)
	}
	return nil
}

// resetSocket closes a socket by a reset, which leaves no TIME-WAIT behind.
func resetSocket(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

// filesFor checks that the process may have n sockets. Go has raised the limit
// to the most it may be.
func filesFor(n int) error {
	const others = 50
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if want := uint64(n + others); l.Cur < want {
		l.Cur, l.Max = want, max(want, l.Max)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			return fmt.Errorf("room for %d sockets (ulimit -n): %w", n, err)
		}
	}
	return nil
}
