package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tcprepair/ustack/internal/netlab"
)

// helperEnv makes this test binary be `ustack demo`.
const helperEnv = "DEMO_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		if err := Run(context.Background(), os.Stdout, Options{Small: true}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(netlab.Main(m))
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
	if r := lastLine(t, out.Bytes()); r.Demo != "failed" || r.Reason == "" || r.DigestMatch {
		t.Errorf("%+v", r)
	}
}

func TestChildStatus(t *testing.T) {
	var out bytes.Buffer
	if err := childStatus(&out, 0); err != nil || out.Len() > 0 {
		t.Errorf("status 0: %v, %q", err, out.String())
	}
	if err := childStatus(&out, 1); !errors.Is(err, ErrFailed) || out.Len() > 0 {
		t.Errorf("status 1: %v, %q", err, out.String())
	}
	if err := childStatus(&out, 137); !errors.Is(err, ErrFailed) || !strings.Contains(lastLine(t, out.Bytes()).Reason, "137") {
		t.Errorf("status 137: %v, %q", err, out.String())
	}
}
