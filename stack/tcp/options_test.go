package tcp_test

import (
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/tcp"
)

// The options that are numbers can be set and are answered; what is out of
// range is refused.
func TestIntOptions(t *testing.T) {
	s := alone(t)
	ep := newEndpoint(t, s, families[0], new(waiter.Queue))
	defer ep.Close()
	tests := []struct {
		opt       tcpip.SockOptInt
		set, want int
		ok        bool
	}{
		{tcpip.KeepaliveCountOption, 3, 3, true},
		{tcpip.KeepaliveCountOption, 0, 3, false},
		{tcpip.KeepaliveCountOption, 200, 3, false},
		{tcpip.IPv4TOSOption, 0x1f, 0x1c, true}, // the ECN bits are TCP's own
		{tcpip.IPv6TrafficClassOption, 0x23, 0x20, true},
		{tcpip.MaxSegOption, 1000, 1000, true},
		{tcpip.MaxSegOption, 10, 1000, false},
		{tcpip.MaxSegOption, 40000, 1000, false},
		{tcpip.MTUDiscoverOption, int(tcpip.PMTUDiscoveryDo), int(tcpip.PMTUDiscoveryDo), true},
		{tcpip.MTUDiscoverOption, 99, int(tcpip.PMTUDiscoveryDo), false},
		{tcpip.IPv4TTLOption, 33, 33, true},
		{tcpip.IPv6HopLimitOption, -1, -1, true},
		{tcpip.IPv6HopLimitOption, 44, 44, true},
		{tcpip.TCPSynCountOption, 2, 2, true},
		{tcpip.TCPSynCountOption, 256, 2, false},
		{tcpip.TCPWindowClampOption, 100000, 100000, true},
	}
	for _, tt := range tests {
		err := ep.SetSockOptInt(tt.opt, tt.set)
		if (err == nil) != tt.ok {
			t.Errorf("SetSockOptInt(%d, %d) = %s", tt.opt, tt.set, tcpipErr(err))
		}
		if got, err := ep.GetSockOptInt(tt.opt); err != nil || got != tt.want {
			t.Errorf("after setting option %d to %d it is %d (%s), want %d", tt.opt, tt.set, got, tcpipErr(err), tt.want)
		}
	}
	if _, err := ep.GetSockOptInt(tcpip.PacketMMapVersionOption); err == nil {
		t.Error("an option that TCP does not have is answered")
	}
}

// The others likewise.
func TestOptions(t *testing.T) {
	s := alone(t)
	ep := newEndpoint(t, s, families[0], new(waiter.Queue))
	defer ep.Close()

	idle, interval := tcpip.KeepaliveIdleOption(time.Minute), tcpip.KeepaliveIntervalOption(time.Second)
	user, deferred := tcpip.TCPUserTimeoutOption(time.Hour), tcpip.TCPDeferAcceptOption(5*time.Second)
	linger, reno := tcpip.TCPLingerTimeoutOption(time.Second), tcpip.CongestionControlOption("cubic")
	for _, opt := range []tcpip.SettableSocketOption{&idle, &interval, &user, &deferred, &linger, &reno} {
		if err := ep.SetSockOpt(opt); err != nil {
			t.Errorf("SetSockOpt(%T) = %s", opt, err)
		}
	}
	get := func(opt tcpip.GettableSocketOption) {
		t.Helper()
		if err := ep.GetSockOpt(opt); err != nil {
			t.Errorf("GetSockOpt(%T) = %s", opt, err)
		}
	}
	gotIdle, gotInterval := tcpip.KeepaliveIdleOption(0), tcpip.KeepaliveIntervalOption(0)
	gotUser, gotDeferred := tcpip.TCPUserTimeoutOption(0), tcpip.TCPDeferAcceptOption(0)
	gotLinger, gotCC := tcpip.TCPLingerTimeoutOption(0), tcpip.CongestionControlOption("")
	get(&gotIdle)
	get(&gotInterval)
	get(&gotUser)
	get(&gotDeferred)
	get(&gotLinger)
	get(&gotCC)
	if gotIdle != idle || gotInterval != interval || gotUser != user || gotDeferred != deferred || gotLinger != linger || gotCC != reno {
		t.Errorf("options read back as %v %v %v %v %v %v", gotIdle, gotInterval, gotUser, gotDeferred, gotLinger, gotCC)
	}
	unknown := tcpip.CongestionControlOption("vegas")
	if _, ok := ep.SetSockOpt(&unknown).(*tcpip.ErrNoSuchFile); !ok {
		t.Error("an unknown congestion control was taken")
	}
	var info tcpip.TCPInfoOption
	get(&info)
	if got := tcp.EndpointState(info.State); got != tcp.StateInitial {
		t.Errorf("TCPInfo state %s, want INITIAL", got)
	}
}

// A connection's info says what it negotiated.
func TestInfo(t *testing.T) {
	s := pair(t)
	client, server := connect(t, s, families[0], 7)
	transfer(t, client, server, 100<<10)
	ep := conns(s[0])[0]
	var info tcpip.TCPInfoOption
	if err := ep.GetSockOpt(&info); err != nil {
		t.Fatal(err)
	}
	if tcp.EndpointState(info.State) != tcp.StateEstablished || info.RTT == 0 || info.RTO == 0 || info.SndCwnd < tcp.InitialCwnd {
		t.Errorf("TCPInfo = %+v", info)
	}
	if i := ep.ConnInfo(); !i.SACK || !i.Timestamps || !i.WindowScaling || i.SndMSS != 1500-20-20-12 {
		t.Errorf("ConnInfo = %+v", i)
	}
}

// An overflowing listener's cookies carry what the SYN offered, if there are
// timestamps to carry it.
func TestCookieKeepsOptions(t *testing.T) {
	for _, timestamps := range []bool{true, false} {
		s := pair(t)
		if !timestamps {
			if err := tcp.SetTuning(s[0], tcp.Tuning{NoTimestamps: true}); err != nil {
				t.Fatal(err)
			}
		}
		ep, _ := listenEndpoint(t, s[1], families[0], 1, 7, 1)
		c := dial(t, s[0], families[0], 1, 7)
		eventually(t, "the connection does not become acceptable", func() bool {
			return ep.Readiness(waiter.ReadableEvents) != 0
		})
		if n := s[1].Stats().TCP.ListenOverflowSynCookieRcvd.Value(); n != 1 {
			t.Fatalf("cookies received = %d, want 1", n)
		}
		for i, st := range s {
			info := conns(st)[0].ConnInfo()
			if info.SACK != timestamps || info.WindowScaling != timestamps || info.Timestamps != timestamps {
				t.Errorf("timestamps %t, host %d: SACK %t, scaling %t, timestamps %t", timestamps, i, info.SACK, info.WindowScaling, info.Timestamps)
			}
		}
		if a, b := conns(s[0])[0].ConnInfo(), conns(s[1])[0].ConnInfo(); a.SndWScale != b.RcvWScale || b.SndWScale != a.RcvWScale {
			t.Errorf("the ends disagree on the scales: %d/%d and %d/%d", a.SndWScale, a.RcvWScale, b.SndWScale, b.RcvWScale)
		}
		c.Close()
	}
}

// While a port's last connection is in TIME-WAIT, a new one to the same peer
// may take it over only if the stack says so.
func TestTimeWaitReuse(t *testing.T) {
	for _, reuse := range []tcpip.TCPTimeWaitReuseOption{tcpip.TCPTimeWaitReuseDisabled, tcpip.TCPTimeWaitReuseGlobal, tcpip.TCPTimeWaitReuseLoopbackOnly} {
		s := pair(t)
		if err := s[0].SetTransportProtocolOption(tcp.ProtocolNumber, &reuse); err != nil {
			t.Fatal(err)
		}
		if err := s[0].SetPortRange(40000, 40000); err != nil {
			t.Fatal(err)
		}
		client, server := connect(t, s, families[0], 7)
		client.Close()
		server.SetReadDeadline(time.Now().Add(10 * time.Second))
		server.Read(make([]byte, 1))
		server.Close()
		eventually(t, "the client does not reach TIME-WAIT", func() bool {
			list := conns(s[0])
			return len(list) == 1 && list[0].EndpointState() == tcp.StateTimeWait
		})
		c, err := tryDial(s[0], families[0], 7, 10*time.Second)
		if want := reuse == tcpip.TCPTimeWaitReuseGlobal; (err == nil) != want {
			t.Errorf("reuse %d: dial = %v", reuse, err)
		}
		if err == nil {
			c.Close()
		}
	}
}

// A port in TIME-WAIT is taken over also if its connection is busy for the
// moment, with its last acknowledgement for instance.
func TestTimeWaitReuseWaitsForABusyEndpoint(t *testing.T) {
	s := alone(t)
	reuse := tcpip.TCPTimeWaitReuseOption(tcpip.TCPTimeWaitReuseGlobal)
	if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, &reuse); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPortRange(40000, 40000); err != nil {
		t.Fatal(err)
	}
	l := listen(t, s, families[0], 0, 7)
	client := dial(t, s, families[0], 0, 7)
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	server.Close()
	var old *tcp.Endpoint
	eventually(t, "the client does not reach TIME-WAIT", func() bool {
		list := conns(s)
		if len(list) != 1 || list[0].EndpointState() != tcp.StateTimeWait {
			return false
		}
		old = list[0]
		return true
	})
	old.StopWork()
	done := make(chan tcpip.Error, 1)
	ep := newEndpoint(t, s, families[0], new(waiter.Queue))
	defer ep.Close()
	go func() { done <- ep.Connect(tcpip.FullAddress{Addr: addr4[0], Port: 7}) }()
	select {
	case err := <-done:
		old.ResumeWork()
		t.Fatalf("did not wait: %s", tcpipErr(err))
	case <-time.After(50 * time.Millisecond): // long enough for one that does not
	}
	old.ResumeWork()
	if err := <-done; tcpipErr(err) != tcpipErr(&tcpip.ErrConnectStarted{}) {
		t.Errorf("Connect: %s", tcpipErr(err))
	}
}

// MSG_MORE holds a small segment back even where TCP_NODELAY is on, until more
// is written or 200 ms have passed.
func TestMore(t *testing.T) {
	w := newWire(t)
	ep, iss := w.open()
	ep.SocketOptions().SetDelayOption(false)
	write := func(s string, more bool) {
		t.Helper()
		if _, err := ep.Write(strings.NewReader(s), tcpip.WriteOptions{More: more}); err != nil {
			t.Fatal(tcpipErr(err))
		}
	}
	write("first ", true)
	w.quiet("after a write with More")
	write("second", false)
	if s := w.want(header.TCPFlagAck); s.payload != "first second" {
		t.Errorf("%q was sent, want both writes as one", s.payload)
	}
	w.inject(segment{seq: peerISN + 1, ack: iss + 12, flags: header.TCPFlagAck, window: 65535}, nil)
	write("third", true)
	w.quiet("after another write with More")
	w.clock.Advance(250 * time.Millisecond)
	if s := w.want(header.TCPFlagAck); s.payload != "third" {
		t.Errorf("%q was sent after a while, want the write", s.payload)
	}
}

// Pacing is off, unless the stack or the endpoint says otherwise, and a listener
// hands on what it has.
func TestPacingOption(t *testing.T) {
	for _, tc := range []struct{ stack, listener, dialler bool }{{}, {stack: true}, {listener: true}, {dialler: true}} {
		s := pair(t)
		for _, st := range s {
			tune := tcp.TuningOf(st)
			tune.Pacing = tc.stack
			if err := tcp.SetTuning(st, tune); err != nil {
				t.Fatal(err)
			}
		}
		l, _ := listenEndpoint(t, s[1], families[0], 1, 7, 4)
		if got := l.Pacing(); got != tc.stack {
			t.Errorf("%+v: the listener's pacing is %v at first", tc, got)
		}
		if tc.listener {
			l.SetPacing(true)
		}
		c := dial(t, s[0], families[0], 1, 7)
		client := conns(s[0])[0]
		if tc.dialler {
			client.SetPacing(true)
		}
		eventually(t, "the connection is not accepted", func() bool { return len(conns(s[1])) == 1 })
		for _, e := range []struct {
			name      string
			got, want bool
		}{
			{"client", client.Pacing(), tc.stack || tc.dialler},
			{"server", conns(s[1])[0].Pacing(), tc.stack || tc.listener},
		} {
			if e.got != e.want {
				t.Errorf("%+v: the %s's pacing is %v, want %v", tc, e.name, e.got, e.want)
			}
		}
		c.Close()
	}
}
