package daemon

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tcprepair/ustack/stack"
)

// site makes a directory with a secret beside it, and links that lead there.
func site(t *testing.T) (dir string, file []byte) {
	t.Helper()
	base := t.TempDir()
	dir = filepath.Join(base, "www")
	file = randomBytes(t, 1<<20)
	for _, err := range []error{
		os.Mkdir(dir, 0o700),
		os.Mkdir(filepath.Join(dir, "sub"), 0o700),
		os.WriteFile(filepath.Join(base, "secret"), []byte("secret"), 0o600),
		os.WriteFile(filepath.Join(dir, "file.bin"), file, 0o600),
		os.WriteFile(filepath.Join(dir, "sub", "a.txt"), []byte("inside"), 0o600),
		os.Symlink("../secret", filepath.Join(dir, "relative")),
		os.Symlink(filepath.Join(base, "secret"), filepath.Join(dir, "absolute")),
		os.Symlink("..", filepath.Join(dir, "up")),
		os.Symlink("sub/a.txt", filepath.Join(dir, "good")),
		syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir, file
}

func TestFiles(t *testing.T) {
	dir, file := site(t)
	h := host(t, Service{Name: "http", Dir: dir}, 16)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	do := func(method, path, bytesRange string) (int, []byte) {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+h.addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = "http://" + h.addr + path // as it is, not cleaned
		if bytesRange != "" {
			req.Header.Set("Range", "bytes="+bytesRange)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body
	}
	for _, tt := range []struct {
		method, path, bytesRange string
		status                   int
		body                     []byte
	}{
		{"GET", "/file.bin", "", 200, file},
		{"GET", "/file.bin", "100-199", 206, file[100:200]},
		{"GET", "/file.bin", "1048570-", 206, file[1048570:]},
		{"GET", "/file.bin", "-5", 206, file[len(file)-5:]},
		{"GET", "/file.bin", "2000000-", 416, nil},
		{"HEAD", "/file.bin", "", 200, []byte{}},
		{"GET", "/sub/a.txt", "", 200, []byte("inside")},
		{"GET", "/good", "", 200, []byte("inside")},
		{"POST", "/file.bin", "", 405, nil},
		{"PUT", "/new", "", 405, nil},
		{"DELETE", "/file.bin", "", 405, nil},
		{"GET", "/missing", "", 404, nil},
		{"GET", "/fifo", "", 404, nil},
	} {
		status, body := do(tt.method, tt.path, tt.bytesRange)
		if status != tt.status {
			t.Errorf("%s %s [%s]: status %d, want %d", tt.method, tt.path, tt.bytesRange, status, tt.status)
		}
		if tt.body != nil && !bytes.Equal(body, tt.body) {
			t.Errorf("%s %s [%s]: %d bytes, want %d, or others", tt.method, tt.path, tt.bytesRange, len(body), len(tt.body))
		}
	}
	for _, path := range []string{
		"/relative", "/absolute", "/up/secret", "/../secret", "/sub/../../secret",
		"/%2e%2e/secret", "/..%2fsecret", "/sub/%2e%2e/%2e%2e/secret", "//secret", "/up/",
	} {
		status, body := do("GET", path, "")
		if status == 200 || bytes.Contains(body, []byte("secret")) && !strings.Contains(path, "secret") {
			t.Errorf("GET %s: status %d, body %q: the directory leaks", path, status, body)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("PUT made a file")
	}
}

func TestUnreadableDir(t *testing.T) {
	if os.Geteuid() == 0 {
		// Root reads everything; a file in the directory's place will do.
		file := filepath.Join(t.TempDir(), "file")
		os.WriteFile(file, nil, 0o600)
		if _, err := openDir(file); err == nil {
			t.Error("a file passed for a directory")
		}
		return
	}
	dir := filepath.Join(t.TempDir(), "locked")
	os.Mkdir(dir, 0o100)
	if _, err := openDir(dir); err == nil {
		t.Error("a directory that cannot be listed passed")
	}
}

// A peer that asks for a file and takes nothing of it does not keep its place.
func TestFileNobodyTakes(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	st, err := stack.New(stack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	l, err := st.Listen("tcp", "127.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	places := limit(l, 1)
	s, err := newFileServer(dir, places, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.patience = time.Second
	go s.serve()
	defer s.shutdown(timeout(t, time.Millisecond))
	c := dial(t, st, "127.0.0.1:80")
	if _, err := io.WriteString(c, "GET /large HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the request to be answered", func() bool { return c.Info().Unread > 0 })
	waitFor(t, "the place to be given up", func() bool { return places.active.Load() == 0 })
}
