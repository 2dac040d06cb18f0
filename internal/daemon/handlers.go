package daemon

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
)

// echo sends everything back until the peer ends its side.
// https://www.rfc-editor.org/rfc/rfc862
func echo(_ context.Context, c duplex) error {
	_, err := copyStream(c, c)
	return err
}

// discard reads everything until the peer ends its side.
// https://www.rfc-editor.org/rfc/rfc863
func discard(_ context.Context, c duplex) error {
	_, err := copyStream(io.Discard, c)
	return err
}

// sink reads everything and, when the peer ends its side, answers with a line:
// how many bytes it read and their SHA-256 in hexadecimal.
func sink(_ context.Context, c duplex) error {
	h := sha256.New()
	n, err := copyStream(h, c)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c, "%d %x\n", n, h.Sum(nil))
	return err
}

const (
	firstPrintable = ' '
	printables     = 95
	chargenLine    = 72 // characters, then CR LF
)

// chargen sends lines of printable characters, each starting one character
// later than the last, until the peer is gone. What the peer sends is read and
// thrown away.
// https://www.rfc-editor.org/rfc/rfc864
func chargen(ctx context.Context, c duplex) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyStream(io.Discard, c)
	}()
	// The pattern repeats after as many lines as there are characters.
	period := chargenPeriod()
	var err error
	for err == nil && ctx.Err() == nil {
		_, err = c.Write(period)
	}
	if err != nil {
		c.Close() // ends the reader
	}
	<-done
	return err
}

func chargenPeriod() []byte {
	var b []byte
	for first := range printables {
		for i := range chargenLine {
			b = append(b, byte(firstPrintable+(first+i)%printables))
		}
		b = append(b, "\r\n"...)
	}
	return b
}

// streamBuffer is how much copyStream moves at once, in bytes.
const streamBuffer = 64 << 10

// copyStream copies until the end of the stream or, without an error, until
// reading is interrupted by a deadline. Unlike io.Copy it never hands over to
// a ReadFrom or WriteTo, which might not notice.
func copyStream(dst io.Writer, src io.Reader) (n int64, err error) {
	buf := make([]byte, streamBuffer)
	for {
		k, err := src.Read(buf)
		if k > 0 {
			if _, err := dst.Write(buf[:k]); err != nil {
				return n, err
			}
			n += int64(k)
		}
		switch {
		case err == io.EOF, errors.Is(err, os.ErrDeadlineExceeded):
			return n, nil
		case err != nil:
			return n, err
		}
	}
}
