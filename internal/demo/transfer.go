package demo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

const fileName = "demo.bin"

// chunk is how many bytes the peer writes at once.
const chunk = 64 << 10

// newSource is an endless stream of bytes, always the same for a name. They look
// random, so that no byte can stand in for another.
func newSource(name string) io.Reader {
	return rand.NewChaCha8(sha256.Sum256([]byte(name)))
}

// file is what is served over HTTP.
type file struct {
	dir  string
	size int64
	sum  [sha256.Size]byte
}

func newFile(size int64) (*file, error) {
	dir, err := os.MkdirTemp("", "ustack-demo-")
	if err != nil {
		return nil, err
	}
	f := &file{dir: dir, size: size}
	if err := f.fill(); err != nil {
		return nil, errors.Join(err, f.remove())
	}
	return f, nil
}

func (f *file) fill() error {
	out, err := os.Create(filepath.Join(f.dir, fileName))
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.CopyN(io.MultiWriter(out, h), newSource("http"), f.size)
	h.Sum(f.sum[:0])
	return errors.Join(err, out.Close())
}

func (f *file) remove() error { return os.RemoveAll(f.dir) }

// download fetches the file over HTTP and compares digests.
func (s *session) download(ctx context.Context, from netip.Addr, f *file) error {
	transport := &http.Transport{
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return s.peer.dial(ctx, netip.AddrPortFrom(from, portHTTP))
		},
	}
	defer transport.CloseIdleConnections()
	url := fmt.Sprintf("http://%s/%s", netip.AddrPortFrom(from, portHTTP), fileName)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	start := time.Now()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	h := sha256.New()
	s.result.HTTPBytes, err = io.Copy(h, response.Body)
	if err != nil {
		return err
	}
	if s.result.HTTPBytes != f.size || [sha256.Size]byte(h.Sum(nil)) != f.sum {
		return fmt.Errorf("%d bytes came of %d, and their SHA-256 is wrong", s.result.HTTPBytes, f.size)
	}
	s.printf("(a) HTTP over %s: %s. SHA-256 is right.", family(from), rate(f.size, time.Since(start)))
	return nil
}

// echo sends bytes to the echo service and compares what comes back.
func (s *session) echo(ctx context.Context, to netip.Addr) error {
	c, err := s.dial(ctx, to, portEcho)
	if err != nil {
		return err
	}
	defer c.Close()
	size := s.sizes.echo
	start := time.Now()
	sent := make(chan error, 1)
	want := sha256.New()
	go func() {
		_, err := io.CopyN(io.MultiWriter(c, want), newSource("echo"), size)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	got := sha256.New()
	n, err := io.Copy(got, c)
	if err != nil {
		_ = c.SetDeadline(time.Unix(1, 0)) // ends the sender
	}
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	s.result.EchoBytes = n
	if n != size || string(got.Sum(nil)) != string(want.Sum(nil)) {
		return fmt.Errorf("%d bytes came back of %d, and they are not the same", n, size)
	}
	s.printf("(b) Echo over %s: %s, there and back. SHA-256 is right.", family(to), rate(size, time.Since(start)))
	return nil
}

// rate words a transfer.
func rate(bytes int64, took time.Duration) string {
	return fmt.Sprintf("%s in %.2f s (%.2f Gbit/s)", mib(bytes), took.Seconds(), float64(bytes)*8/1e9/took.Seconds())
}

func mib(bytes int64) string {
	return fmt.Sprintf("%.4g MiB", float64(bytes)/(1<<20))
}
