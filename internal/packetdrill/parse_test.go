package packetdrill

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// one parses a script with a single event.
func one(t *testing.T, text string) *Event {
	t.Helper()
	s, err := Parse("x.pkt", text, nil)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if len(s.Events) != 1 {
		t.Fatalf("%s: %d events, want 1", text, len(s.Events))
	}
	return &s.Events[0]
}

func TestParseTimes(t *testing.T) {
	const ms = time.Millisecond
	for text, want := range map[string]When{
		"0":           {},
		"1.5":         {From: 1500 * ms, To: 1500 * ms},
		"+0":          {Relative: true},
		"+.25":        {Relative: true, From: 250 * ms, To: 250 * ms},
		"+2":          {Relative: true, From: 2000 * ms, To: 2000 * ms},
		"*":           {Relative: true, Any: true},
		".1~.2":       {From: 100 * ms, To: 200 * ms},
		"+.1~+.2":     {Relative: true, From: 100 * ms, To: 200 * ms},
		"+.1 ~ +0.20": {Relative: true, From: 100 * ms, To: 200 * ms},
		"0.000000001": {From: 1, To: 1},
		"+0.1234567891": {
			Relative: true, From: 123456789, To: 123456789,
		},
	} {
		if got := one(t, text+" > . 1:1(0) ack 1").When; got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

func TestParsePackets(t *testing.T) {
	noIP := IPInfo{TTL: -1, FlowLabel: -1}
	for text, want := range map[string]*Packet{
		"< S 0:0(0) win 32792 <mss 1000,sackOK,nop,nop,nop,wscale 7>": {IP: noIP, TCP: &TCPSpec{
			Flags: SYN, Win: 32792,
			Options: []TCPOption{
				{Kind: OptMSS, MSS: 1000}, {Kind: OptSACKOK}, {Kind: OptNOP}, {Kind: OptNOP}, {Kind: OptNOP},
				{Kind: OptWScale, WScale: 7},
			},
		}},
		"> FP. 1:11(10) ack 2 <...>": {Outbound: true, IP: noIP, TCP: &TCPSpec{
			Flags: FIN | PSH | ACK, Seq: 1, End: 11, Len: 10, Ack: 2, HasAck: true, Win: -1, AnyOptions: true,
		}},
		"> SEW 0:0(0) <TS val 100 ecr 0, eol>": {Outbound: true, IP: noIP, TCP: &TCPSpec{
			Flags: SYN | ECE | CWR, Win: -1,
			Options: []TCPOption{{Kind: OptTimestamp, Val: 100}, {Kind: OptEOL}},
		}},
		"< [ce] . 1:1(0) ack 1 win 5 <sack 2:3 4:5,nop,nop>": {
			IP: IPInfo{Check: TOSECN, TOS: 3, TTL: -1, FlowLabel: -1},
			TCP: &TCPSpec{Flags: ACK, Seq: 1, End: 1, Ack: 1, HasAck: true, Win: 5, Options: []TCPOption{
				{Kind: OptSACK, Blocks: [][2]uint32{{2, 3}, {4, 5}}}, {Kind: OptNOP}, {Kind: OptNOP},
			}},
		},
		"> [ect01] . 1:1(0) ack 1": {
			Outbound: true, IP: IPInfo{Check: TOSECT01, TTL: -1, FlowLabel: -1},
			TCP: &TCPSpec{Flags: ACK, Seq: 1, End: 1, Ack: 1, HasAck: true, Win: -1},
		},
		"> (tos 0x10) [noecn]": nil, // once is enough
		"> (tos 0x10) R 7:7(0)": {
			Outbound: true, IP: IPInfo{Check: TOSWhole, TOS: 0x10, TTL: -1, FlowLabel: -1},
			TCP: &TCPSpec{Flags: RST, Seq: 7, End: 7, Win: -1},
		},
		"> [ect0, flowlabel 0x7, ttl 64] R 7:7(0)": {
			Outbound: true, IP: IPInfo{Check: TOSECN, TOS: 2, TTL: 64, FlowLabel: 7},
			TCP: &TCPSpec{Flags: RST, Seq: 7, End: 7, Win: -1},
		},
		"< - 1:2(1) win 1": {IP: noIP, TCP: &TCPSpec{Seq: 1, End: 2, Len: 1, Win: 1}},
		"< 40000 > 8080 PU. 4294967295:4(5) ack 4294967295 win 1 urg 3": {
			IP: noIP, SrcPort: 40000, DstPort: 8080,
			TCP: &TCPSpec{Flags: PSH | URG | ACK, Seq: 1<<32 - 1, End: 4, Len: 5, Ack: 1<<32 - 1, HasAck: true, Win: 1, Urg: 3},
		},
		"< S 0:0(0) win 1 <FO,FO 00abaaabe8e954c2,FOEXP 0123>": {IP: noIP, TCP: &TCPSpec{
			Flags: SYN, Win: 1,
			Options: []TCPOption{
				{Kind: OptFastOpen},
				{Kind: OptFastOpen, Cookie: []byte{0, 0xab, 0xaa, 0xab, 0xe8, 0xe9, 0x54, 0xc2}},
				{Kind: OptExp, Cookie: []byte{1, 0x23}},
			},
		}},
		"< icmp unreachable frag_needed mtu 800 [1:1001(1000)]": {IP: noIP, ICMP: &ICMPSpec{
			Type: "unreachable", Code: "frag_needed", MTU: 800, HasEcho: true, Seq: 1, End: 1001, Len: 1000,
		}},
		"< icmp packet_too_big mtu 1400": {IP: noIP, ICMP: &ICMPSpec{Type: "packet_too_big", MTU: 1400}},
		"> R. 0:0(0)! ack 1": {
			Outbound: true, IP: noIP, TCP: &TCPSpec{Flags: RST | ACK, Absolute: true, Ack: 1, HasAck: true, Win: -1},
		},
		"> S. ...(0) ack 9": {
			Outbound: true, IP: noIP, TCP: &TCPSpec{Flags: SYN | ACK, AnySeq: true, Ack: 9, HasAck: true, Win: -1},
		},
		"> (class 0x28, hlim 3) R 7:7(0)": {
			Outbound: true, IP: IPInfo{Check: TOSWhole, TOS: 0x28, TTL: 3, FlowLabel: -1},
			TCP: &TCPSpec{Flags: RST, Seq: 7, End: 7, Win: -1},
		},
		"< icmp source_quench": {IP: noIP, ICMP: &ICMPSpec{Type: "source_quench", MTU: -1}},
	} {
		if want == nil {
			if _, err := Parse("x.pkt", "0 "+text, nil); err == nil {
				t.Errorf("%s: no error", text)
			}
			continue
		}
		got := one(t, "0 "+text).Action.(*Packet)
		want.Line = 1
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v %+v %+v, want\n%+v %+v %+v", text, got, got.TCP, got.ICMP, want, want.TCP, want.ICMP)
		}
	}
}

func TestParseSyscalls(t *testing.T) {
	for text, want := range map[string]*Syscall{
		`socket(..., SOCK_STREAM, IPPROTO_TCP) = 3`: {
			Name: "socket", Args: []Expr{Ellipsis{}, Word{"SOCK_STREAM"}, Word{"IPPROTO_TCP"}}, Result: Int{3},
		},
		`...0.200 connect(3, ..., ...) = -1 ETIMEDOUT (Connection timed out)`: {
			Name: "connect", Args: []Expr{Int{3}, Ellipsis{}, Ellipsis{}}, Result: Int{-1}, Errno: "ETIMEDOUT",
			Blocking: true, End: 200 * time.Millisecond,
		},
		`write(4, ..., 100) = -1 ECONNRESET(Connection, reset by "peer")`: {
			Name: "write", Args: []Expr{Int{4}, Ellipsis{}, Int{100}}, Result: Int{-1}, Errno: "ECONNRESET",
		},
		`fcntl(3, F_GETFL) = 0x2 (flags O_RDWR)`: {
			Name: "fcntl", Args: []Expr{Int{3}, Word{"F_GETFL"}}, Result: Int{2},
		},
		`fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0`: {
			Name: "fcntl", Args: []Expr{Int{3}, Word{"F_SETFL"}, Or{Word{"O_RDWR"}, Word{"O_NONBLOCK"}}}, Result: Int{0},
		},
		`setsockopt(4, SOL_SOCKET, SO_LINGER, {onoff=1, linger=0}, 8) = 0`: {
			Name: "setsockopt",
			Args: []Expr{
				Int{4}, Word{"SOL_SOCKET"}, Word{"SO_LINGER"},
				Struct{[]Field{{Name: "onoff", V: Int{1}}, {Name: "linger", V: Int{0}}}}, Int{8},
			},
			Result: Int{0},
		},
		`bind(3, {sa_family = AF_INET, sin_port = htons(80), sin_addr = inet_addr("1.2.3.4")}, [16]) = 0`: {
			Name: "bind",
			Args: []Expr{
				Int{3},
				Struct{[]Field{
					{Name: "sa_family", V: Word{"AF_INET"}}, {Name: "sin_port", V: Call{"htons", []Expr{Int{80}}}},
					{Name: "sin_addr", V: Call{"inet_addr", []Expr{Str{"1.2.3.4"}}}},
				}},
				Array{[]Expr{Int{16}}},
			},
			Result: Int{0},
		},
		`sendmsg(4, {msg_name(...)=..., msg_iov(1)=[{..., 5}], msg_flags=0}, 0) = 5`: {
			Name: "sendmsg",
			Args: []Expr{
				Int{4},
				Struct{[]Field{
					{Name: "msg_name", Arg: Ellipsis{}, V: Ellipsis{}},
					{Name: "msg_iov", Arg: Int{1}, V: Array{[]Expr{Struct{[]Field{{V: Ellipsis{}}, {V: Int{5}}}}}}},
					{Name: "msg_flags", V: Int{0}},
				}},
				Int{0},
			},
			Result: Int{5},
		},
		`getsockopt(4, SOL_TCP, TCP_X, "\x41\"b"..., []) = ...`: {
			Name: "getsockopt", Args: []Expr{Int{4}, Word{"SOL_TCP"}, Word{"TCP_X"}, Str{"A\"b"}, Array{}}, Result: Ellipsis{},
		},
	} {
		got := one(t, "0 "+text).Action.(*Syscall)
		want.Line = 1
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v, want\n%+v", text, got, want)
		}
	}
}

func TestParseScript(t *testing.T) {
	s, err := Parse("x.pkt", `// a comment
--ip_version=ipv6 --mtu=1400
--define=COOKIE=0123
/* another
   comment */
`+"`sysctl -q a=b\n c`"+`
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3 // trailing
   +0 `+"`true`"+`
   +0 %{ assert 1 == 1 }%
   +0 < S 0:0(0)
          win 5 <FO COOKIE>
`+"`cleanup`\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := []Option{{2, "ip_version", "ipv6"}, {2, "mtu", "1400"}}; !reflect.DeepEqual(s.Options, want) {
		t.Errorf("options %v, want %v", s.Options, want)
	}
	if s.Init == nil || s.Init.Text != "sysctl -q a=b\n c" || s.Init.Line != 6 {
		t.Errorf("init %+v", s.Init)
	}
	if s.Cleanup == nil || s.Cleanup.Text != "cleanup" {
		t.Errorf("cleanup %+v", s.Cleanup)
	}
	if len(s.Events) != 4 {
		t.Fatalf("%d events, want 4", len(s.Events))
	}
	last := s.Events[3]
	if last.Line != 11 || last.Text != "+0 < S 0:0(0) win 5 <FO COOKIE>" {
		t.Errorf("last event at line %d: %q", last.Line, last.Text)
	}
	if c := last.Action.(*Packet).TCP.Options[0].Cookie; !reflect.DeepEqual(c, []byte{1, 0x23}) {
		t.Errorf("cookie %x", c)
	}
	if c, ok := s.Events[2].Action.(*Snippet); !ok || c.Text != " assert 1 == 1 " {
		t.Errorf("snippet %+v", s.Events[2].Action)
	}
}

func TestSyntaxErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                               "x.pkt:1: no events",
		"// nothing\n":                                   "x.pkt:2: no events",
		"0 < S 0:0(0) win":                               "x.pkt:1: end of file where win should stand",
		"\n0 < Q 0:0(0)":                                 "x.pkt:2: \"Q\" is no set of TCP flags",
		"0 < SS 0:0(0)":                                  "x.pkt:1: \"SS\" is no set of TCP flags",
		"0 < . 1:5(3) ack 1":                             "x.pkt:1: 1:5 does not hold 3 bytes",
		"0 < . 1:1(0) ack 4294967296":                    "x.pkt:1: ack 4294967296 is out of range",
		"0 < . 1:1(0) ack 1 <...>":                       "x.pkt:1: <...> is for packets from the stack only",
		"0 < [ect01] . 1:1(0) ack 1":                     "x.pkt:1: ect01 is for packets from the stack only",
		"0~1 < . 1:1(0) ack 1":                           "x.pkt:1: only a packet from the stack may come at any time or within a range",
		"* read(3, ..., 1) = 1":                          "x.pkt:1: only a packet from the stack may come at any time or within a range",
		"2~1 > . 1:1(0) ack 1":                           "x.pkt:1: the range ends before it begins",
		"1~+2 > . 1:1(0) ack 1":                          "x.pkt:1: a range must be absolute or relative at both ends",
		"-1 > . 1:1(0) ack 1":                            "x.pkt:1: bad time \"-1\"",
		"0 read(3, ..., 1)":                              "x.pkt:1: end of file where \"=\" should stand",
		"0 read(3, ..., 1 = 1":                           "x.pkt:1: \"=\" where \",\" should stand",
		"0 read(3, ?) = 1":                               "x.pkt:1: \"?\" where a value should stand",
		"0 read(3, {1=2}) = 1":                           "x.pkt:1: a member needs a name before =",
		"0 read() = -1 EINTR (oops":                      "x.pkt:1: the note is not closed",
		"0 %{ assert 1":                                  "x.pkt:1: %{ without }%",
		"0 `true":                                        "x.pkt:1: ` without its counterpart",
		"0 read(3, \"x) = 1":                             "x.pkt:1: \" without its counterpart",
		"/* 0 read(3) = 1":                               "x.pkt:1: comment without end",
		"0 > . 1:1(0) ack 1 <mss 70000>":                 "x.pkt:1: mss 70000 is out of range",
		"0 < S ...(0)":                                   "x.pkt:1: any sequence number is for packets from the stack only",
		"#ifdef A\n0 read(3) = 1":                        "x.pkt:1: #ifdef without #endif",
		"0 read(3) = 1\n#ifdef A\n#endif\n#endif":        "x.pkt:4: #endif without #ifdef",
		"0 > . 1:1(0) ack 1 <what 1>":                    "x.pkt:1: \"what\" is no TCP option",
		"0 > . 1:1(0) ack 1 <sack>":                      "x.pkt:1: sack without blocks",
		"0 > . 1:1(0) ack 1 <FO abc>":                    "x.pkt:1: \"abc\" is no Fast Open cookie",
		"0 > . 1:1(0) ack 1 <sack 1:2 3:4 5:6 7:8 9:10>": "x.pkt:1: the options take 42 bytes, of 40 that there is room for",
		"`a`\n`b`\n0 read(3) = 1":                        "x.pkt:3: \"0\" after the last command: a command with events after it needs a time",
		"--define=x\n0 read(3) = 1":                      "x.pkt:1: --define needs NAME=VALUE",
		"0 > icmp 5":                                     "x.pkt:1: \"5\" where a type of ICMP message should stand",
		"0 = 1":                                          "x.pkt:1: \"=\" where a packet, a system call, a command or a snippet should stand",
	} {
		_, err := Parse("x.pkt", text, nil)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestRefusedByTheReader(t *testing.T) {
	for text, want := range map[string]string{
		"0 > udp (100)":                                      "UDP packets",
		"0 > gre: . 1:1(0) ack 1":                            "GRE encapsulation",
		"0 > ipv4 1.2.3.4 > 5.6.7.8: . 1:1(0)":               "IP in IP encapsulation",
		"0 > ipv6 fd::1 > fd::2: . 1:1(0)":                   "IP in IP encapsulation",
		"0 > mpls (label 0, tc 0, [S], ttl 0): .":            "MPLS encapsulation",
		"0 > encap psp spi 23 . 1:1(0) ack 1":                "PSP encapsulation",
		"0 > S.5 0:0(0) ack 1":                               "AccECN (RFC 9768)",
		"0 > . 1:1(0) ack 1 <md5 00,nop>":                    "TCP MD5 signatures (RFC 2385)",
		"0 > . 1:1(0) ack 1 <ECN e0b 1>":                     "AccECN (RFC 9768)",
		"0 > S 0:0(0) <mss 1452>/udp(9811 > 1)":              "TCP in UDP",
		"0 < R. 0:0(0) ack 1 win 0/udp(1 > 2)":               "TCP in UDP",
		"0 < icmp echo_request id 7":                         "ICMP echo",
		"0 < icmp unreachable port_unreachable [udp (1)]":    "ICMP messages about udp packets",
		"0 recvmsg(3, {(label 0, tc 0, [S], ttl 0)}, 0) = 0": "MPLS encapsulation",
	} {
		_, err := Parse("x.pkt", "\n"+text, nil)
		var no *NotSupportedError
		if !errors.As(err, &no) || no.What != want || err.Error() != "x.pkt:2: not supported: "+want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestRefusedBeforeTheRun(t *testing.T) {
	for text, want := range map[string]string{
		"send(3, ..., 1, MSG_DONTWAIT|MSG_ZEROCOPY) = 1":                    "MSG_ZEROCOPY",
		"setsockopt(3, SOL_SOCKET, SO_ZEROCOPY, [1], 4) = 0":                "SO_ZEROCOPY",
		"setsockopt(3, SOL_SOCKET, SO_TIMESTAMPING, [1], 4) = 0":            "SO_TIMESTAMPING",
		"recvmsg(3, {msg_iov(1)=[{...,0}], msg_flags=MSG_ERRQUEUE}, 0) = 0": "MSG_ERRQUEUE",
		"setsockopt(3, SOL_TCP, TCP_MD5SIG, [1], 4) = 0":                    "TCP_MD5SIG",
		"sendfile(3, 5, [0], 5) = 5":                                        "sendfile",
		"splice(3, NULL, 5, NULL, 5, 0) = 5":                                "splice",
		"pipe([5, 6]) = 0":                                                  "pipe",
		"psp_rx_assoc(4, [7]) = 0":                                          "PSP",
	} {
		s, err := Parse("x.pkt", "0 "+text, nil)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var no *NotSupportedError
		if err := refused(s); !errors.As(err, &no) || no.What != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// What the C preprocessor would leave out is not there, and lines keep their
// numbers.
func TestConditional(t *testing.T) {
	const text = `0 f1() = 0
#ifdef A
0 f2() = 0
#ifndef B
0 f3() = 0
#else
0 f4() = 0
#endif
#else
0 f5() = 0
#endif
0 f6() = 0`
	for defined, want := range map[string]string{"": "f1 f5 f6", "A": "f1 f2 f3 f6", "B": "f1 f5 f6", "A B": "f1 f2 f4 f6"} {
		defines := make(map[string]string)
		for _, d := range strings.Fields(defined) {
			defines[d] = "1"
		}
		s, err := Parse("x.pkt", text, defines)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range s.Events {
			got = append(got, e.Action.(*Syscall).Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("with %q: %v, want %s", defined, got, want)
		}
		if last := s.Events[len(s.Events)-1]; last.Line != 12 {
			t.Errorf("with %q: the last line is %d, want 12", defined, last.Line)
		}
	}
}

// FuzzParse reads anything: it must come to an end, and a script that it takes
// must be one whose events can be told apart.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"#ifdef A\n#else\n0 > R. 0:0(0)! ack 1\n#endif\n0 > S. ...(0) ack 1", "0 > . 1:1(0)/udp(1 > 2)",
		"0 < S 0:0(0) win 1 <mss 1000,sackOK,TS val 1 ecr 2,nop,wscale 7>", "+0...1 read(3, ..., 1) = -1 EINTR (x)",
		"`a`\n* > [ect0] FP. 1:2(1) ack 1 <...>\n`b`", "--x=y\n0 %{ assert 1 }%", "0 < 1 > 2 icmp x y mtu 1 [1:2(1)]",
		"0 f({a=1,b(2)=[{...,3}|4]}, \"\\x41\"...) = 0x5", "0~1 > - 1:1(0) urg 4 <sack 1:2 3:4,FO 00>",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse("x.pkt", text, nil)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is more than a line", err)
			}
			return
		}
		for _, e := range s.Events {
			if e.Action == nil || e.Line < 1 || strings.Contains(e.Text, "\n") {
				t.Errorf("%q: %+v", text, e)
			}
		}
	})
}
