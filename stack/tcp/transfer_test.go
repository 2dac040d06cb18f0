package tcp_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Data goes both ways, over IPv4 and IPv6, between two stacks and within one.
func TestTransfer(t *testing.T) {
	worlds := []struct {
		name string
		make func(testing.TB) [2]*stack.Stack
	}{
		{"wire", func(t testing.TB) [2]*stack.Stack { return pair(t) }},
	}
	for _, w := range worlds {
		for _, f := range families {
			t.Run(w.name+"/"+f.name, func(t *testing.T) {
				client, server := connect(t, w.make(t), f, 7)
				transfer(t, client, server, 4<<20)
				transfer(t, server, client, 4<<20)
			})
		}
	}
}

// A stack may talk to itself: what it sends is received in the sender's own
// call, with both endpoints' turns nested.
func TestLoopback(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			s := alone(t)
			l := listen(t, s, f, 0, 7)
			client := dial(t, s, f, 0, 7)
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			transfer(t, client, server, 4<<20)
			transfer(t, server, client, 4<<20)
		})
	}
}

// After one side has said all it has to say, the other may go on.
func TestHalfClose(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			s := pair(t)
			l := listen(t, s[1], f, 1, 7)
			client := dial(t, s[0], f, 1, 7)
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			if err := client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			server.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := server.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Fatalf("Read after the peer's FIN = %d, %v, want 0, EOF", n, err)
			}
			transfer(t, server, client, 1<<20)
		})
	}
}
