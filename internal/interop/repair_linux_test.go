package interop

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/internal/netlab"
	"github.com/tcprepair/ustack/stack"
	"github.com/tcprepair/ustack/stack/repair"
)

// noise returns n bytes that do not repeat.
func noise(n int, seed uint64) []byte {
	var key [32]byte
	key[0] = byte(seed)
	p := make([]byte, n)
	rand.NewChaCha8(key).Read(p)
	return p
}

// acked is how many bytes the kernel knows the peer has acknowledged.
func acked(t *testing.T, c *net.TCPConn) uint64 {
	t.Helper()
	i, err := netlab.TCPInfo(c)
	must(t, err)
	return i.Bytes_acked
}

func queueSeq(t *testing.T, c *stack.Conn, q repair.Queue) uint32 {
	t.Helper()
	seq, err := c.Endpoint().QueueSeq(q)
	must(t, err)
	return seq
}

func repairDrops(c *stack.Conn) uint64 { return c.Info().Drops["SOCKET_REPAIR"] }

// The kernel's own self-test for the patch, with ustack as the receiver: with
// repair on, neither the receive sequence nor the sender's count of
// acknowledged bytes may move; a single byte goes down the slow path, a
// warmed-up stream of 50 x 1000 down the fast one. Beyond it: after the thaw
// nothing is missing.
func TestFrozenReceiverAcknowledgesNothing(t *testing.T) {
	for _, fam := range families {
		for _, tc := range []struct {
			name  string
			warm  int // segments before the freeze
			size  int
			count int
		}{
			{"1 byte", 0, 1, 1},
			{"50 x 1000 after a warm-up of as many", 50, 1000, 50},
		} {
			t.Run(fam.name+"/"+tc.name, func(t *testing.T) {
				s := newSite(t, nil)
				// All of it must fit the kernel's queue, or the writes block.
				s.tune = append(s.tune, netlab.SetInt(unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20))
				k, u := s.dialled(fam.index)
				must(t, k.SetNoDelay(true))
				stream := noise((tc.warm+tc.count)*tc.size, 1)
				got := make([]byte, len(stream))
				warm := tc.warm * tc.size
				for i := range tc.warm {
					_, err := k.Write(stream[i*tc.size : (i+1)*tc.size])
					must(t, err)
				}
				_, err := io.ReadFull(u, got[:warm])
				must(t, err)
				eventually(t, "the warm-up acknowledged", func() bool { n, err := netlab.OutQueue(k); return err == nil && n == 0 })

				must(t, u.SetRepair(repair.On))
				seq, bytesAcked := queueSeq(t, u, repair.RecvQueue), acked(t, k)
				for i := range tc.count {
					_, err := k.Write(stream[warm+i*tc.size : warm+(i+1)*tc.size])
					must(t, err)
				}
				eventually(t, "a segment refused", func() bool { return repairDrops(u) > 0 })
				pause(600 * time.Millisecond) // delayed ACKs, retransmissions: all would be over
				if now := queueSeq(t, u, repair.RecvQueue); now != seq {
					t.Errorf("receive sequence moved by %d", now-seq)
				}
				if now := acked(t, k); now != bytesAcked {
					t.Errorf("tcpi_bytes_acked grew by %d", now-bytesAcked)
				}
				must(t, u.SetRepair(repair.Off))
				_, err = io.ReadFull(u, got[warm:])
				must(t, err)
				if !bytes.Equal(got, stream) {
					t.Error("the stream is not what was sent")
				}
				eventually(t, "all acknowledged", func() bool { n, err := netlab.OutQueue(k); return err == nil && n == 0 })
			})
		}
	}
}

// Every kind of segment is without effect on a frozen connection.
func TestFrozenIgnoresEverySegment(t *testing.T) {
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			t.Run("pure ACK", func(t *testing.T) {
				s := newSite(t, nil)
				k, u := s.dialled(fam.index)
				exchange(t, k, u)
				capture, err := s.kernel.Capture(s.device, netlab.CaptureConfig{})
				must(t, err)
				// What we send now is out, and its acknowledgement comes when
				// we are frozen already.
				must(t, u.SetRepair(repair.On))
				before := u.Info()
				must(t, k.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 5}))
				eventually(t, "a keepalive probe refused", func() bool { return repairDrops(u) > 0 })
				still(t, u, before)
				silent(t, capture)
				must(t, u.SetRepair(repair.Off))
				exchange(t, k, u)
			})
			t.Run("FIN", func(t *testing.T) {
				s := newSite(t, nil)
				k, u := s.dialled(fam.index)
				exchange(t, k, u)
				must(t, u.SetRepair(repair.On))
				before := u.Info()
				must(t, k.CloseWrite())
				eventually(t, "the FIN refused", func() bool { return repairDrops(u) > 0 })
				still(t, u, before)
				must(t, u.SetRepair(repair.Off))
				if n, err := u.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("after the thaw: %d, %v; want the FIN", n, err)
				}
			})
			t.Run("RST", func(t *testing.T) {
				s := newSite(t, nil)
				k, u := s.dialled(fam.index)
				exchange(t, k, u)
				must(t, u.SetRepair(repair.On))
				before := u.Info()
				must(t, k.SetLinger(0))
				must(t, k.Close())
				eventually(t, "the RST refused", func() bool { return repairDrops(u) > 0 })
				still(t, u, before)
				must(t, u.SetRepair(repair.Off)) // the probe draws another RST
				if _, err := u.Read(make([]byte, 1)); err == nil || err == io.EOF {
					t.Errorf("after the thaw: %v, want a reset", err)
				}
			})
			t.Run("ICMP", func(t *testing.T) {
				s := newSite(t, nil)
				k, u := s.dialled(fam.index)
				exchange(t, k, u)
				must(t, u.SetRepair(repair.On))
				before := u.Info()
				s.tooBig(fam.index, k, u, []uint16{600, 1280}[fam.index])
				eventually(t, "the ICMP error refused", func() bool { return s.ustack.Drops()["SOCKET_REPAIR"] > 0 })
				still(t, u, before)
				must(t, u.SetRepair(repair.Off))
				exchange(t, k, u)
			})
		})
	}
}

// exchange sends a few bytes both ways.
func exchange(t *testing.T, k *net.TCPConn, u *stack.Conn) {
	t.Helper()
	for _, way := range []struct{ from, to net.Conn }{{k, u}, {u, k}} {
		msg := noise(100, 3)
		_, err := way.from.Write(msg)
		must(t, err)
		got := make([]byte, len(msg))
		_, err = io.ReadFull(way.to, got)
		must(t, err)
		if !bytes.Equal(got, msg) {
			t.Fatal("the message is not what was sent")
		}
	}
	eventually(t, "both idle", func() bool {
		n, err := netlab.OutQueue(k)
		i := u.Info()
		return err == nil && n == 0 && i.InFlight == 0
	})
}

// still verifies that nothing of a frozen connection changed.
func still(t *testing.T, u *stack.Conn, before stack.ConnInfo) {
	t.Helper()
	now := u.Info()
	now.Drops, before.Drops = nil, nil
	now.Counters.SegsIn, before.Counters.SegsIn = 0, 0
	if now.Info != before.Info {
		t.Errorf("changed while frozen:\n%+v\n%+v", before.Info, now.Info)
	}
}

// silent verifies that no TCP segment of ours was captured.
func silent(t *testing.T, c *netlab.Capture) {
	t.Helper()
	if n := c.Count(func(p netlab.Captured) bool { return !p.Out && p.TCP() != nil }); n != 0 {
		t.Errorf("%d segments sent while frozen", n)
	}
}

// Timers that were pending when it froze do not fire: the delayed
// acknowledgement, retransmission, keepalive, and the window probe.
func TestFrozenTimersDoNotFire(t *testing.T) {
	for _, fam := range families {
		for _, tc := range []struct {
			name    string
			arrange func(t *testing.T, k *net.TCPConn, u *stack.Conn)
			pending func(k *net.TCPConn, u *stack.Conn) bool
		}{
			{"delayed ACK", func(t *testing.T, k *net.TCPConn, u *stack.Conn) {
				for range 30 { // until the exchange counts as interactive
					exchange(t, k, u)
				}
				_, err := k.Write([]byte("?"))
				must(t, err)
				_, err = u.Read(make([]byte, 1))
				must(t, err)
			}, func(k *net.TCPConn, u *stack.Conn) bool {
				n, err := netlab.OutQueue(k)
				return err == nil && n == 1
			}},
			{"retransmission", func(t *testing.T, k *net.TCPConn, u *stack.Conn) {
				must(t, deafen(k))
				_, err := u.Write([]byte("into the void"))
				must(t, err)
			}, func(k *net.TCPConn, u *stack.Conn) bool { return u.Info().InFlight > 0 }},
			{"keepalive", func(t *testing.T, k *net.TCPConn, u *stack.Conn) {
				must(t, u.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 300 * time.Millisecond, Interval: 100 * time.Millisecond, Count: 3}))
			}, func(k *net.TCPConn, u *stack.Conn) bool { return true }},
			{"window probe", func(t *testing.T, k *net.TCPConn, u *stack.Conn) {
				go u.Write(noise(16<<20, 1)) // until the test ends: the kernel's user reads nothing
				eventually(t, "the window closed", func() bool { return u.Info().SndWnd == 0 })
			}, func(k *net.TCPConn, u *stack.Conn) bool { return u.Info().Unsent > 0 }},
		} {
			t.Run(fam.name+"/"+tc.name, func(t *testing.T) {
				s := newSite(t, nil)
				k, u := s.dialled(fam.index)
				exchange(t, k, u)
				tc.arrange(t, k, u)
				must(t, u.SetRepair(repair.On))
				if !tc.pending(k, u) {
					t.Fatal("there is nothing for the timer to do")
				}
				before := u.Info()
				capture, err := s.kernel.Capture(s.device, netlab.CaptureConfig{})
				must(t, err)
				pause(1500 * time.Millisecond)
				silent(t, capture)
				still(t, u, before)
				if !tc.pending(k, u) {
					t.Error("what the timer was for has been done")
				}
			})
		}
	}
}

// Under load in both directions a freeze of a second costs nothing but the
// second: both streams are whole after it.
func TestThawedStreamsAreWhole(t *testing.T) {
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			s := newSite(t, nil)
			k, u := s.dialled(fam.index)
			const size = 48 << 20
			type sum struct {
				who string
				sum [32]byte
				err error
			}
			sums := make(chan sum, 2)
			receive := func(who string, c net.Conn) {
				h := sha256.New()
				_, err := io.CopyN(h, c, size)
				sums <- sum{who, [32]byte(h.Sum(nil)), err}
			}
			send := func(c net.Conn, data []byte) {
				for len(data) > 0 {
					n := min(len(data), 64<<10)
					if _, err := c.Write(data[:n]); err != nil {
						return // the receiver's deadline tells
					}
					data = data[n:]
				}
			}
			toU, toK := noise(size, 1), noise(size, 2)
			go receive("ustack", u)
			go receive("kernel", k)
			go send(k, toU)
			go send(u, toK)
			eventually(t, "the streams flow", func() bool {
				i := u.Info()
				return i.Counters.BytesReceived > 4<<20 && i.Counters.BytesAcked > 4<<20
			})
			must(t, u.SetRepair(repair.On))
			seq := queueSeq(t, u, repair.RecvQueue)
			pause(time.Second)
			if now := queueSeq(t, u, repair.RecvQueue); now != seq {
				t.Errorf("receive sequence moved by %d", now-seq)
			}
			if repairDrops(u) == 0 {
				t.Error("no segment was refused: the peer pushed nothing")
			}
			must(t, u.SetRepair(repair.Off))
			want := map[string][32]byte{"ustack": sha256.Sum256(toU), "kernel": sha256.Sum256(toK)}
			for range 2 {
				got := <-sums
				if got.err != nil || got.sum != want[got.who] {
					t.Errorf("%s received something else: %v", got.who, got.err)
				}
			}
		})
	}
}
