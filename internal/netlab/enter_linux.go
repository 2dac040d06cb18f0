package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// childEnv marks a process that Main or Enter started inside new namespaces.
// Its value is the starter's process id, so that a program which inherits the
// variable from there does not take itself for that child.
const childEnv = "NETLAB_PARENT"

// childGrace is how long a child may take to end in order.
const childGrace = 10 * time.Second

// TB is what netlab needs of a testing.TB. It is an interface of our own so
// that a program using netlab does not link package testing.
type TB interface {
	Helper()
	Cleanup(func())
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Main runs a test binary's tests where network namespaces can be made, and
// returns the exit status:
//
//	func TestMain(m *testing.M) { os.Exit(netlab.Main(m)) }
//
// With the rights it needs it runs m right here. Without them it starts the
// binary again in new user, network and mount namespaces. Where the kernel
// refuses that too, it runs m here, and Require tells each test the reason.
func Main(m interface{ Run() int }) int {
	if inChild() || namespacesErr() == nil {
		return m.Run()
	}
	status, err := reexec(context.Background(), os.Stdout, os.Stderr, unix.CLONE_NEWUSER)
	if err != nil {
		refused = err
		return m.Run()
	}
	return status
}

// Enter starts the running program again, with its arguments, in new user,
// network and mount namespaces, and waits for it. As the original it returns
// ran and the child's exit status. In that child it returns at once with
// neither: the caller goes on inside the namespaces. The error says why there
// can be no child; Usable may still hold then. When ctx ends, the child gets
// SIGTERM, and is killed if it does not end of that.
func Enter(ctx context.Context, stdout, stderr io.Writer) (status int, ran bool, err error) {
	if inChild() {
		return 0, false, nil
	}
	status, err = reexec(ctx, stdout, stderr, unix.CLONE_NEWUSER)
	if err != nil && namespacesErr() == nil {
		// Root where user namespaces are switched off.
		status, err = reexec(ctx, stdout, stderr, 0)
	}
	if err != nil {
		return 0, false, err
	}
	return status, true, nil
}

// Usable returns nil if this process can make network namespaces and TAP
// devices in them, else the reason why not.
func Usable() error {
	if err := namespacesErr(); err != nil {
		return err
	}
	return tapErr()
}

// Require skips the test, with the reason, if this process can not make
// network namespaces. With CI=true in the environment it fails it instead.
func Require(t TB) {
	t.Helper()
	require(t, namespacesErr())
}

// RequireTAP is Require for a test that needs TAP devices too.
func RequireTAP(t TB) {
	t.Helper()
	require(t, Usable())
}

func require(t TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%v (and CI=true forbids to skip)", err)
	default:
		t.Skipf("%v", err)
	}
}

// refused is why Main could not start a child. Written before any test runs.
var refused error

// namespacesErr is the reason why this process can not make network
// namespaces, or nil.
var namespacesErr = sync.OnceValue(func() error {
	ns, err := newNetNS()
	if err == nil {
		_ = ns.Close()
		return nil
	}
	switch {
	case inChild():
		return fmt.Errorf("netlab: this user namespace grants no network namespaces: %w", err)
	case refused != nil:
		return fmt.Errorf("netlab: no right to make a network namespace (%w), and %w", err, refused)
	}
	return fmt.Errorf("netlab: no right to make a network namespace: %w", err)
})

// tapErr is the reason why this process can not make TAP devices, or nil.
var tapErr = sync.OnceValue(func() error {
	lab, err := Open()
	if err != nil {
		return err
	}
	defer lab.Close()
	ns, err := lab.Namespace("probe")
	if err != nil {
		return err
	}
	err = ns.Do(func() error {
		fd, err := openTAP("probe", TAPConfig{})
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("netlab: no TAP device can be made: %w", err)
	}
	return nil
})

func inChild() bool { return os.Getenv(childEnv) == strconv.Itoa(os.Getppid()) }

// reexec runs this program again in new network and mount namespaces (and
// those of flags) until it ends. An error means that it did not start.
func reexec(ctx context.Context, stdout, stderr io.Writer, flags uintptr) (int, error) {
	// The death signal fires when the starting thread ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = childGrace
	cmd.Env = append(os.Environ(), childEnv+"="+strconv.Itoa(os.Getpid()))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: flags | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  unix.SIGKILL,
	}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("the kernel refuses new user and network namespaces: %w", err)
	}
	done := make(chan struct{})
	defer close(done)
	go relay(signals, cmd.Process, done)
	return exitStatus(cmd.Wait()), nil
}

// relay passes signals on, for the child has no way to hear of them when they
// were sent to this process alone.
func relay(signals <-chan os.Signal, p *os.Process, done <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			_ = p.Signal(s) // it may have ended meanwhile
		case <-done:
			return
		}
	}
}

// exitStatus is the status a shell would report.
func exitStatus(err error) int {
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 1
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return exit.ExitCode()
}

// newNetNS makes a network namespace and returns to the old one.
func newNetNS() (netns.NsHandle, error) {
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return netns.None(), fmt.Errorf("the thread's network namespace: %w", err)
	}
	defer old.Close()
	ns, err := netns.New()
	if err != nil {
		runtime.UnlockOSThread()
		return netns.None(), err
	}
	if err := netns.Set(old); err != nil {
		// Still locked: the runtime ends the thread with its goroutine.
		_ = ns.Close()
		return netns.None(), fmt.Errorf("returning from a new network namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return ns, nil
}
