package packetdrill

import (
	"context"
	"slices"
	"strings"
	"testing"

	gvisortcp "gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// opening is the beginning of most scripts: 13 lines, a connection on 4.
const opening = `    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
   +0 < S 0:0(0) win 32792 <mss 1000>
   +0 > S. 0:0(0) ack 1 <mss 1460>
 +.01 < . 1:1(0) ack 1 win 32792
   +0 accept(3, ..., ...) = 4
`

// play runs a script that follows the opening.
func play(t *testing.T, cfg Config, text string) Result {
	t.Helper()
	s, err := Parse("x.pkt", text, usualDefines(""))
	if err != nil {
		t.Fatal(err)
	}
	return Run(context.Background(), s, cfg)
}

// TestFailures plays scripts that are wrong about the stack: the runner must
// say where and how.
func TestFailures(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"flags": {opening + "+0 write(4, ..., 10) = 10\n+0 > F. 1:11(10) ack 1", `x.pkt:9: flags are P., not F.
  expected: 0.010000 > F. 1:11(10) ack 1
    actual: 0.010000 > P. 1:11(10) ack 1 win 65535`},
		"sequence": {opening + "+0 write(4, ..., 10) = 10\n+0 > P. 2:12(10) ack 1", `x.pkt:9: sequence number is 1, not 2
  expected: 0.010000 > P. 2:12(10) ack 1
    actual: 0.010000 > P. 1:11(10) ack 1 win 65535`},
		"acknowledgement": {opening + "+0 write(4, ..., 10) = 10\n+0 > P. 1:11(10) ack 2", "x.pkt:9: acknowledgement is 1, not 2"},
		"window":          {opening + "+0 write(4, ..., 10) = 10\n+0 > P. 1:11(10) ack 1 win 5", "x.pkt:9: window is 65535, not 5"},
		"urgent pointer":  {opening + "+0 write(4, ..., 10) = 10\n+0 > P. 1:11(10) ack 1 urg 5", "x.pkt:9: urgent pointer is 0, not 5"},
		"too short":       {opening + "+0 write(4, ..., 10) = 10\n+0 > P. 1:12(11) ack 1", "x.pkt:9: the segments do not follow each other"},
		"too long":        {opening + "+0 write(4, ..., 10) = 10\n+0 > P. 1:6(5) ack 1", "x.pkt:9: payload is 10 bytes, not 5"},
		"rest missing":    {opening + "+0 write(4, ..., 1000) = 1000\n+0 > P. 1:1501(1500) ack 1", "x.pkt:9: the segments do not follow each other"},
		"ECN":             {opening + "+0 write(4, ..., 10) = 10\n+0 > [ce] P. 1:11(10) ack 1", "x.pkt:9: ECN bits are 00\n  expected: 0.010000 > [ce] P. 1:11(10) ack 1\n    actual: 0.010000 > [noecn] P. 1:11(10) ack 1 win 65535"},
		"TTL":             {opening + "+0 write(4, ..., 10) = 10\n+0 > [ttl 5] P. 1:11(10) ack 1", "x.pkt:9: TTL is 64, not 5"},
		"TOS":             {opening + "+0 write(4, ..., 10) = 10\n+0 > (tos 0x5) P. 1:11(10) ack 1", "x.pkt:9: TOS is 0x00, not 0x05"},
		"options":         {opening + "+0 write(4, ..., 10) = 10\n+0 > P. 1:11(10) ack 1 <nop,nop,TS val 1 ecr 2>", "x.pkt:9: options differ"},
		"nothing comes": {opening + "+0 > P. 1:11(10) ack 1", `x.pkt:8: the packet has not come
  expected: 0.010000 > P. 1:11(10) ack 1
    actual: nothing`},
		"late":         {opening + "+0 write(4, ..., 10) = 10\n+.3 > P. 1:11(10) ack 1", "x.pkt:9: it came at 0.010000, not at 0.310000, give or take 37.5ms"},
		"out of range": {opening + "+0 write(4, ..., 10) = 10\n+.1~+.15 > P. 1:11(10) ack 1", "x.pkt:9: it came at 0.010000, not at 0.110000~0.160000, give or take 12.5ms"},
		"more sent":    {opening + "+0 write(4, ..., 10) = 10", "x.pkt:8: the stack sent more than the script expects\n  expected: nothing more\n    actual: 0.010000 > P. 1:11(10) ack 1 win 65535"},
		"result":       {opening + "+0 read(4, ..., 0) = 5", "x.pkt:8: read returned something else\n  expected: 5\n    actual: 0"},
		"errno":        {opening + "+0 read(9, ..., 1) = -1 EINVAL", "x.pkt:8: read returned something else\n  expected: -1 EINVAL\n    actual: -1 EBADF"},
		"blocks":       {opening + "+0 read(4, ..., 1) = 1", "x.pkt:8: read blocks\n  expected: 1\n    actual: it has not returned"},
		"returns late": {opening + "+0...0.1 read(4, ..., 1) = 1\n+.5 < P. 1:2(1) ack 1 win 1\n+0 > . 1:1(0) ack 2", "x.pkt:8: read returned at another time\n  expected: at 0.110000\n    actual: at 0.510000"},
		"ioctl":        {opening + "+0 ioctl(4, SIOCINQ, [7]) = 0", "x.pkt:8: ioctl: SIOCINQ is another\n  expected: 7\n    actual: 0"},
		"sockopt":      {opening + "+0 getsockopt(4, SOL_SOCKET, SO_KEEPALIVE, [1], [4]) = 0", "x.pkt:8: getsockopt: SO_KEEPALIVE is another\n  expected: 1\n    actual: 0"},
		"linger":       {opening + "+0 getsockopt(4, SOL_SOCKET, SO_LINGER, {onoff=1, linger=2}, [8]) = 0", "x.pkt:8: getsockopt: SO_LINGER is another\n  expected: {onoff=1, linger=2}\n    actual: {onoff=0, linger=0}"},
		"poll":         {opening + "+0 poll([{fd=4, events=POLLOUT, revents=POLLIN}], 1, 0) = 1", "x.pkt:8: poll: revents of descriptor [4] differ"},
		"epoll":        {opening + "+0 epoll_create(1) = 5\n+0 epoll_ctl(5, EPOLL_CTL_ADD, 4, {events=EPOLLOUT, fd=4}) = 0\n+0 epoll_wait(5, {events=EPOLLIN, fd=4}, 1, 0) = 1", "x.pkt:10: epoll_wait: the event is another\n  expected: {events=EPOLLIN, fd=4}\n    actual: {events=EPOLLOUT, fd=4}"},
		"peer":         {opening + "+0 getpeername(4, ..., ...) = 0\n+0 getpeername(4, {sa_family=AF_INET, sin_port=htons(1), sin_addr=inet_addr(\"1.2.3.4\")}, [16]) = 0", "x.pkt:9: getpeername: the address is another\n  expected: 1.2.3.4:1"},
		"assert":       {opening + "+0 %{ assert tcpi_snd_cwnd == 7, tcpi_snd_cwnd }%", "x.pkt:8: assertion failed: assert tcpi_snd_cwnd == 7, tcpi_snd_cwnd: 10"},
		"no field":     {opening + "+0 %{ assert tcpi_nonsense }%", `x.pkt:8: "assert tcpi_nonsense": tcpi_nonsense is not known`},
		"no socket":    {"0 %{ assert tcpi_state }%", `x.pkt:1: "assert tcpi_state": there is no socket whose tcp_info could be read`},
		"constant":     {opening + "+0 shutdown(4, SHUT_RDDWR) = 0", "x.pkt:8: shutdown: argument 2: there is no constant SHUT_RDDWR"},
		"argument":     {opening + "+0 listen(3) = 0", "x.pkt:8: listen: argument 2: an argument is missing"},
		"time passed":  {"0 socket(..., SOCK_STREAM, 0) = 3\n1 socket(..., SOCK_STREAM, 0) = 4\n.5 socket(..., SOCK_STREAM, 0) = 5", "x.pkt:3: the time 0.500000 has passed: it is 1.000000"},
		"no flow":      {"0 > . 1:1(0) ack 1", "x.pkt:1: there is no connection that the packet could belong to"},
		"ICMP":         {"0 < icmp unreachable host_unreachable", "x.pkt:1: there is no connection that the message could be about"},
		"echo":         {opening + "+0 < . 1:1(0) ack 1 win 5 <nop,nop,TS val 1 ecr 7>", "x.pkt:8: ecr 7 echoes a timestamp, but no timestamp of the stack's has been expected"},
		"timestamp": {"--tcp_ts_tick_usecs=1000\n" + `0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+0 < S 0:0(0) win 5 <mss 1000,nop,nop,TS val 1 ecr 0>
+0 > S. 0:0(0) ack 1 <mss 1460,nop,nop,TS val 100 ecr 1>
+1 > S. 0:0(0) ack 1 <mss 1460,nop,nop,TS val 100 ecr 1>`, "x.pkt:7: timestamp is 1100, not 100, give or take 125ms"},
		"option of the script": {"--bogus\n0 close(3) = 0", "x.pkt:1: there is no option --bogus"},
		"version":              {"--ip_version=ipv5\n0 close(3) = 0", `x.pkt:1: --ip_version: "ipv5" is none of ipv4, ipv6, ipv4-mapped-ipv6`},
		"addresses":            {"--ip_version=ipv6\n--local_ip=1.2.3.4\n0 close(3) = 0", "x.pkt:1: the addresses 1.2.3.4 and 2001:db8::1 do not go with --ip_version"},
		"sysctl":               {"`sysctl net.ipv4.tcp_retries2=x`\n0 close(3) = 0", "x.pkt:1: net.ipv4.tcp_retries2=x: strconv.ParseUint: parsing \"x\": invalid syntax"},
		"large":                {opening + "+0 write(4, ..., 100000000) = 1", "x.pkt:8: a buffer of 100000000 bytes is more than is good for a script"},
	} {
		cfg := Ours()
		cfg.Strict = true
		got := play(t, cfg, c.text)
		if got.Status != Failed || !strings.HasPrefix(got.String(), c.want) {
			t.Errorf("%s: %v:\n%s\nwant\n%s", name, got.Status, got, c.want)
		}
	}
}

func TestSkips(t *testing.T) {
	for text, want := range map[string]string{
		opening + "+0 dup(3) = 9":                                       "x.pkt: skipped: not supported: system call dup",
		"0 socket(..., SOCK_DGRAM, IPPROTO_UDP) = 3":                    "x.pkt: skipped: not supported: SOCK_DGRAM sockets",
		opening + "+0 setsockopt(4, SOL_TCP, TCP_NONSENSE, [1], 4) = 0": "x.pkt: skipped: not supported: socket option TCP_NONSENSE",
		opening + "+0 ioctl(4, SIOCATMARK, [0]) = 0":                    "x.pkt: skipped: not supported: ioctl SIOCATMARK",
		opening + "+0 send(4, ..., 1, MSG_OOB) = 1":                     "x.pkt: skipped: not supported: MSG_OOB",
		opening + "+0 send(4, ..., 1, MSG_ZEROCOPY) = 1":                "x.pkt: skipped: not supported: MSG_ZEROCOPY",
		"--wire_client\n0 close(3) = 0":                                 "x.pkt: skipped: not supported: --wire_client",
		opening + "+0 > icmp unreachable port_unreachable":              "x.pkt: skipped: not supported: ICMP messages from the stack",
	} {
		if got := play(t, Ours(), text); got.Status != Skipped || got.String() != want {
			t.Errorf("%s\n%v: %s, want %s", text, got.Status, got, want)
		}
	}
}

// TestRelax leaves out one comparison at a time.
func TestRelax(t *testing.T) {
	for list, packet := range map[string]string{
		"psh":      "S. 0:0(0) ack 1 <mss 1460>\n+.01 < . 1:1(0) ack 1 win 5000\n+0 accept(3, ..., ...) = 4\n+0 write(4, ..., 5) = 5\n+0 > . 1:6(5) ack 1",
		"win":      "S. 0:0(0) ack 1 win 77 <mss 1460>",
		"optorder": "S. 0:0(0) ack 1 <nop,mss 1460,eol>",
	} {
		text := "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 bind(3, ..., ...) = 0\n+0 listen(3, 1) = 0\n" +
			"+0 < S 0:0(0) win 32792 <mss 1000>\n+0 > " + packet
		cfg := Ours()
		if got := play(t, cfg, text); got.Status != Failed {
			t.Errorf("%s: passes without --relax", list)
		}
		var err error
		if cfg.Relax, err = ParseRelax("," + list); err != nil {
			t.Fatal(err)
		}
		if got := play(t, cfg, text); got.Status != Passed {
			t.Errorf("%s: %s", list, got)
		}
	}
	if _, err := ParseRelax("psh,all"); err == nil {
		t.Error(`ParseRelax("psh,all") succeeds`)
	}
}

func TestStepsAreBounded(t *testing.T) {
	cfg := Ours()
	cfg.MaxSteps = 5
	got := play(t, cfg, opening+"+0 write(4, ..., 1) = 1\n+0 > P. 1:2(1) ack 1\n+1000 close(4) = 0")
	if got.Status != Failed || got.Reason != "gave up after 5 timers" {
		t.Errorf("%v", got)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s, err := Parse("x.pkt", opening, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := Run(ctx, s, Ours()); got.Status != Failed || got.Reason != "cancelled" {
		t.Errorf("%v", got)
	}
}

// TestSameEveryTime plays a script twice; what the stack chooses at random is
// the same both times, and another with another seed.
func TestSameEveryTime(t *testing.T) {
	text := "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 fcntl(3, F_SETFL, O_NONBLOCK) = 0\n" +
		"+0 connect(3, ..., ...) = -1 EINPROGRESS\n+0 getsockname(3, {sa_family=AF_INET, sin_port=htons(1), sin_addr=inet_addr(\"1.2.3.4\")}, [16]) = 0"
	ports := make([]string, 3)
	for i, seed := range []uint64{1, 1, 2} {
		cfg := Ours()
		cfg.Seed = seed
		ports[i] = play(t, cfg, text).Actual
	}
	if ports[0] == "" || ports[0] != ports[1] || ports[1] == ports[2] {
		t.Errorf("local addresses %q", ports)
	}
}

func TestNotes(t *testing.T) {
	got := play(t, Ours(), "`../x/defaults.sh; nstat | grep a > /dev/null\nsysctl -q net.ipv4.tcp_nonsense=1`\n"+
		"0 socket(..., SOCK_STREAM, 0) = 3\n+0 %{ print('hello', tcpi_state) }%\n`/tmp/sysctl_restore_${PPID}.sh`")
	want := []string{
		"x.pkt:1: without effect: nstat", "x.pkt:1: without effect: grep a",
		"x.pkt:1: without effect: net.ipv4.tcp_nonsense=1", "x.pkt:4: hello 7",
	}
	if got.Status != Passed || !slices.Equal(got.Notes, want) {
		t.Errorf("%v\n%q, want\n%q", got, got.Notes, want)
	}
}

// TestAnotherTCP plays a script against gVisor's own TCP, as far as that works
// without its goroutines.
func TestAnotherTCP(t *testing.T) {
	settled := 0
	cfg := Config{Protocol: gvisortcp.NewProtocol, Settle: func() { settled++ }}
	got := play(t, cfg, `0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0
   +0 connect(3, ..., ...) = -1 EINPROGRESS
   +0 > S 0:0(0) <mss 1460,sackOK,TS val 100 ecr 0,nop,wscale 7>
   +0 %{ assert tcpi_state == TCP_SYN_SENT; assert tcpi_ca_state == TCP_CA_Open and tcpi_reord_seen == 0 }%
   +0 setsockopt(3, SOL_TCP, TCP_REPAIR, [1], 4) = 0`)
	if want := "x.pkt: skipped: not supported: TCP_REPAIR with this TCP"; got.String() != want {
		t.Errorf("%s, want %s", got, want)
	}
	if settled < 5 {
		t.Errorf("Settle was called %d times", settled)
	}
}

// TestChokedLink has the interface refuse packets and take them again.
func TestChokedLink(t *testing.T) {
	got := play(t, Ours(), opening+"+0 `tc qdisc replace dev tun0 root pfifo limit 0`\n+0 write(4, ..., 10) = 10\n"+
		"+.1 `tc qdisc replace dev tun0 root pfifo limit 100`\n+0 %{ assert tcpi_unacked == 1 }%\n* > P. 1:11(10) ack 1")
	if got.Status != Passed {
		t.Error(got)
	}
}

func TestMTUOfTheLink(t *testing.T) {
	text := "`ip link set dev tun0 mtu 1000`\n0 socket(..., SOCK_STREAM, 0) = 3\n+0 fcntl(3, F_SETFL, O_NONBLOCK) = 0\n" +
		"+0 connect(3, ..., ...) = -1 EINPROGRESS\n+0 > S 0:0(0) <mss 960,sackOK,TS val 1 ecr 0,nop,wscale 7>"
	if got := play(t, Ours(), text); got.Status != Passed {
		t.Error(got)
	}
}
