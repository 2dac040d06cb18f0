package netlab

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helperEnv makes this test binary be the program that a test starts.
const helperEnv = "NETLAB_TEST_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "enter":
		os.Exit(helperEnter())
	case "usable":
		fmt.Println(namespacesErr())
		os.Exit(7)
	}
	os.Exit(Main(leakCheck{m}))
}

// leakCheck fails the run if tests have left goroutines behind.
type leakCheck struct{ m *testing.M }

func (l leakCheck) Run() int {
	before := runtime.NumGoroutine()
	status := l.m.Run()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		return status // the fuzzing engine leaves some of its own
	}
	// A goroutine that has signalled its end needs a moment to be gone.
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			fmt.Fprintf(os.Stderr, "goroutines left: %d, %d before\n%s\n", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
			return 1
		}
	}
	return status
}

// helperEnter is a program such as `ustack demo`: it enters namespaces and says
// what it sees.
func helperEnter() int {
	status, ran, err := Enter(context.Background(), os.Stdout, os.Stderr)
	switch {
	case err != nil:
		fmt.Println("refused:", err)
		return 3
	case ran:
		return status
	}
	if err := namespacesErr(); err != nil {
		fmt.Println("inside, but:", err)
		return 4
	}
	self, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		fmt.Println(err)
		return 5
	}
	fmt.Println("inside as", os.Getuid(), self)
	return 42
}

// helper describes a run of this test binary as another user, or as this one if
// id is 0.
func helper(t *testing.T, mode string, id uint32, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(patient(t), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+mode)
	if id == 0 {
		return cmd
	}
	// The go tool keeps the binary where others can not look.
	cmd.Dir = must(os.MkdirTemp("", "netlab"))(t)
	t.Cleanup(func() { os.RemoveAll(cmd.Dir) })
	binary := must(os.ReadFile("/proc/self/exe"))(t)
	cmd.Path = filepath.Join(cmd.Dir, "helper")
	if err := errors.Join(os.Chmod(cmd.Dir, 0o777), os.WriteFile(cmd.Path, binary, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	return cmd
}

// nobody is a user without any right.
const nobody = 65534

// withoutRoot reports whether this run is without root already: Main has taken
// it into a user namespace, where there is nobody else to become, and the whole
// run shows what a single test would.
func withoutRoot(t *testing.T) bool {
	if inChild() || os.Getuid() != 0 {
		t.Log("this whole run is without root")
		return true
	}
	return false
}

func TestEnter(t *testing.T) {
	Require(t)
	home := must(os.Readlink("/proc/self/ns/net"))(t)
	for _, id := range []uint32{0, nobody} {
		t.Run(fmt.Sprint("as ", id), func(t *testing.T) {
			if id == nobody && withoutRoot(t) {
				return
			}
			out, err := helper(t, "enter", id).CombinedOutput()
			if got := exitStatus(err); got != 42 {
				t.Fatalf("exit status %d: %s", got, out)
			}
			if !strings.HasPrefix(string(out), "inside as 0 net:") || strings.Contains(string(out), home) {
				t.Errorf("it said %q; the namespace here is %s", out, home)
			}
		})
	}
}

// Without root, Main must have the tests run in a user namespace all the same.
func TestMainWithoutRoot(t *testing.T) {
	Require(t)
	if withoutRoot(t) {
		return
	}
	cmd := helper(t, "", nobody, "-test.v", "-test.run", "^TestVethCarriesTCP$|^TestCapture$")
	out, err := cmd.CombinedOutput()
	for _, name := range []string{"TestVethCarriesTCP", "TestCapture"} {
		if !bytes.Contains(out, []byte("--- PASS: "+name)) {
			t.Errorf("%s did not pass", name)
		}
	}
	if err != nil || t.Failed() {
		t.Errorf("%v\n%s", err, out)
	}
}

// A user without rights, in no namespace of ours, must hear the reason.
func TestReasonWhereRefused(t *testing.T) {
	if withoutRoot(t) {
		return
	}
	out, err := helper(t, "usable", nobody).CombinedOutput()
	if exitStatus(err) != 7 || !strings.Contains(string(out), "no right to make a network namespace") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestExitStatus(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 3": 3, "kill -TERM $$": 128 + int(unix.SIGTERM)} {
		if got := exitStatus(exec.Command("sh", "-c", script).Run()); got != want {
			t.Errorf("%s: %d, want %d", script, got, want)
		}
	}
	if got := exitStatus(os.ErrInvalid); got != 1 {
		t.Errorf("another error: %d", got)
	}
}

func TestRequire(t *testing.T) {
	for _, tc := range []struct {
		ci   string
		err  error
		want string
	}{
		{"", nil, ""},
		{"true", nil, ""},
		{"", os.ErrPermission, "skip"},
		{"true", os.ErrPermission, "fatal"},
	} {
		t.Setenv("CI", tc.ci)
		r := &recorder{}
		require(r, tc.err)
		if r.said != tc.want {
			t.Errorf("CI=%q, %v: %q, want %q", tc.ci, tc.err, r.said, tc.want)
		}
	}
}

type recorder struct {
	TB
	said string
}

func (r *recorder) Helper()               {}
func (r *recorder) Skipf(string, ...any)  { r.said = "skip" }
func (r *recorder) Fatalf(string, ...any) { r.said = "fatal" }
