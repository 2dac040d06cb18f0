package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/tcprepair/ustack/internal/netlab"
)

// helperEnv makes this test binary be `ustack demo`.
const helperEnv = "DEMO_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		os.Exit(helper())
	}
	os.Exit(netlab.Main(m))
}

func helper() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := Run(ctx, os.Stdout, Options{Small: true}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// lastLine decodes the result and checks that nothing follows it.
func lastLine(t *testing.T, out []byte) Result {
	t.Helper()
	lines := bytes.Split(bytes.TrimSuffix(out, []byte("\n")), []byte("\n"))
	var r Result
	d := json.NewDecoder(bytes.NewReader(lines[len(lines)-1]))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("the last line is no result: %v\n%s", err, out)
	}
	return r
}

func wantGood(t *testing.T, out []byte, link string) {
	t.Helper()
	got := lastLine(t, out)
	if got.Dropped == 0 {
		t.Errorf("no segment was dropped")
	}
	want := Result{Demo: "ok", Link: link, HTTPBytes: small.http, EchoBytes: small.echo,
		UploadBytes: 2 * small.upload, Dropped: got.Dropped, DigestMatch: true}
	if got != want {
		t.Errorf("got  %+v\nwant %+v\n%s", got, want, out)
	}
	for _, key := range []string{"rcv_nxt_moved", "bytes_acked_moved", "dropped_socket_repair", "digest_match"} {
		if !bytes.Contains(out, []byte(`"`+key+`":`)) {
			t.Errorf("the last line lacks %s", key)
		}
	}
}

func TestOnTAP(t *testing.T) {
	netlab.RequireTAP(t)
	var out bytes.Buffer
	if err := Run(context.Background(), &out, Options{Link: LinkTAP, InPlace: true, Small: true}); err != nil {
		t.Error(err)
	}
	wantGood(t, out.Bytes(), LinkTAP)
}

func TestInMemory(t *testing.T) {
	var out bytes.Buffer
	if err := Run(context.Background(), &out, Options{Link: LinkMemory, Small: true}); err != nil {
		t.Error(err)
	}
	wantGood(t, out.Bytes(), LinkMemory)
}

// As the command runs it: in a process of its own, which enters namespaces.
func TestInNamespaces(t *testing.T) {
	netlab.RequireTAP(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%v\n%s", err, stderr.Bytes())
	}
	wantGood(t, out, LinkTAP)
}

// A signal to the process outside ends the one inside, which tidies up.
func TestSignalEndsIt(t *testing.T) {
	netlab.RequireTAP(t)
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=1", "TMPDIR="+dir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Frozen: the demo is in the middle of its longest part.
	var out bytes.Buffer
	lines := bufio.NewScanner(io.TeeReader(stdout, &out))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "(c)") {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("it ended with %v", err)
	}
	if r := lastLine(t, out.Bytes()); r.Demo != "failed" || !strings.HasPrefix(r.Reason, "interrupted") {
		t.Errorf("%+v", r)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUnknownLink(t *testing.T) {
	var out bytes.Buffer
	err := Run(context.Background(), &out, Options{Link: "string"})
	if err == nil || errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "string") || out.Len() > 0 {
		t.Errorf("%v, %q", err, out.String())
	}
}

func TestFailureIsReported(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out bytes.Buffer
	err := Run(ctx, &out, Options{Link: LinkMemory, Small: true})
	if !errors.Is(err, ErrFailed) {
		t.Errorf("got %v, want %v", err, ErrFailed)
	}
	if r := lastLine(t, out.Bytes()); r.Demo != "failed" || !strings.HasPrefix(r.Reason, "interrupted") || r.DigestMatch {
		t.Errorf("%+v", r)
	}
}

func TestChildStatus(t *testing.T) {
	var out bytes.Buffer
	if err := childStatus(context.Background(), &out, &Result{}, 0); err != nil || out.Len() > 0 {
		t.Errorf("status 0: %v, %q", err, out.String())
	}
	if err := childStatus(context.Background(), &out, &Result{}, 1); !errors.Is(err, ErrFailed) || out.Len() > 0 {
		t.Errorf("status 1: %v, %q", err, out.String())
	}
	if err := childStatus(context.Background(), &out, &Result{}, 137); !errors.Is(err, ErrFailed) || !strings.Contains(lastLine(t, out.Bytes()).Reason, "137") {
		t.Errorf("status 137: %v, %q", err, out.String())
	}
}
