package interop

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tcprepair/ustack/internal/netlab/impair"
)

// carry sends size bytes one way and verifies their digest. The sender half
// closes, so the end is seen too.
func carry(from interface {
	net.Conn
	CloseWrite() error
}, to net.Conn, size int, seed uint64) error {
	data := noise(size, seed)
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(data)
		if err == nil {
			err = from.CloseWrite()
		}
		sent <- err
	}()
	h := sha256.New()
	n, err := io.Copy(h, to)
	if err != nil {
		return fmt.Errorf("received %d bytes of %d: %w", n, size, err)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if [32]byte(h.Sum(nil)) != sha256.Sum256(data) || n != int64(size) {
		return fmt.Errorf("received %d bytes of %d, or other ones", n, size)
	}
	return nil
}

// 64 MiB each way over a wire that loses 1% and delays by 5 ms; the two ways
// and the two families at the same time, because at that loss a stream is slow.
func TestWholeOverALossyWire(t *testing.T) {
	const (
		size    = 64 << 20
		patient = 4 * time.Minute
	)
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, &impair.Config{Loss: 0.01, Delay: 5 * time.Millisecond})
			inK, inU := s.dialled(fam.index)
			outK, outU := s.accepted(fam.index)
			for _, c := range []net.Conn{inK, inU, outK, outU} {
				c.SetDeadline(time.Now().Add(patient))
			}
			ways := make(chan error, 2)
			go func() { ways <- carry(inK, inU, size, 1) }()
			go func() { ways <- carry(outU, outK, size, 2) }()
			for range 2 {
				if err := <-ways; err != nil {
					t.Error(err)
				}
			}
			if out := outU.Info().Counters; out.Retransmits == 0 {
				t.Error("nothing was retransmitted: the wire lost nothing")
			}
		})
	}
}
