package repair

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// possible returns a connection in state s that can be.
func possible(s State) *Snapshot {
	snap := &Snapshot{Core: Core{
		Local: netip.MustParseAddrPort("[fd00::2]:80"), Remote: netip.MustParseAddrPort("[fd00::1]:40000"), State: s,
		SendSeq: 0xfffffff0, SendQueue: Bytes{[]byte("0123456789"), []byte("abcdefghij")}, Unsent: 4,
		RecvSeq: 0x80000000, RecvQueue: Bytes{[]byte("unread")},
		Options:   Options{MSS: 1440, Scaling: true, SendScale: 14, RecvScale: 7, SACK: true, Timestamps: true},
		Window:    Window{SndWl1: 0x80000000 + 60000, SndWnd: 1 << 20, MaxWindow: 1 << 20, RcvWnd: 65536, RcvWup: 0x80000000 - 2},
		Timestamp: 99, NoDelay: true,
	}, Extra: &Extra{
		ISS: 1, IRS: 2, Advertised: 0x80000000 + 65534,
		Congestion: Congestion{Name: "cubic", Window: 14480, State: map[string]int64{"k": -1, "wmax": 3}},
		RTT:        RTT{Smoothed: time.Millisecond, Variance: time.Microsecond},
	}}
	snap.FINQueued = s.in(finQueuedStates...)
	snap.FINAcked = s.in(finAckedStates...)
	snap.FINSent = snap.FINAcked
	snap.FINReceived = s.in(finReceivedStates...)
	switch {
	case snap.FINAcked:
		snap.SendQueue, snap.Unsent = nil, 0
	case s.Synchronized():
		snap.Extra.Sent = []SentSegment{
			{Seq: 0xfffffff0, Len: 10, Flags: SegmentLost | SegmentRetransmitted, Age: time.Second},
			{Seq: 0xfffffffa, Len: 6, Flags: SegmentSACKed | SegmentEverRetransmitted},
		}
	}
	if s == StateSynSent {
		snap.RecvSeq, snap.RecvQueue, snap.Window, snap.Unsent = 0, nil, Window{}, 20
	}
	if s.in(StateEstablished, StateFinWait1, StateFinWait2) {
		fin := uint32(0x80000000 + 30)
		snap.Extra.EarlyFIN = &fin
		snap.Extra.Held = []Span{
			{Seq: 0x80000000 + 1, Data: Bytes{[]byte("held")}},
			{Seq: 0x80000000 + 6, Data: Bytes{[]byte("more"), []byte("held")}},
			{Seq: 0x80000000 + 20, Data: Bytes{[]byte("last")}},
		}
	}
	return snap
}

// listener returns a listener with a half-open and a complete connection.
func listener() *Snapshot {
	snap := &Snapshot{Core: Core{Local: netip.MustParseAddrPort("[::]:80"), State: StateListen}, Extra: &Extra{Backlog: 5}}
	for i, s := range []State{StateSynReceived, StateEstablished, StateCloseWait} {
		child := possible(s)
		child.Remote = netip.AddrPortFrom(child.Remote.Addr(), uint16(i+1))
		snap.Children = append(snap.Children, child)
	}
	return snap
}

// states are those a connection can be in.
var states = []State{
	StateSynSent, StateSynReceived, StateEstablished, StateFinWait1, StateFinWait2,
	StateCloseWait, StateClosing, StateLastAck, StateTimeWait,
}

func TestValidateAccepts(t *testing.T) {
	for _, s := range states {
		snap := possible(s)
		if err := snap.Validate(); err != nil {
			t.Errorf("%v: %v", s, err)
		}
		snap.Extra = nil
		if err := snap.Validate(); err != nil {
			t.Errorf("%v without extra: %v", s, err)
		}
	}
	if err := listener().Validate(); err != nil {
		t.Error(err)
	}
	old := possible(StateEstablished)
	old.Window = Window{}
	if err := old.Validate(); err != nil {
		t.Errorf("without a window: %v", err)
	}
	bare := possible(StateEstablished)
	bare.Local, bare.Remote = netip.AddrPort{}, netip.AddrPort{}
	if err := bare.ValidateConnection(); err != nil {
		t.Errorf("without the two ends: %v", err)
	}
	mapped := possible(StateEstablished)
	mapped.Local, mapped.Remote = netip.MustParseAddrPort("[::ffff:10.0.0.2]:80"), netip.MustParseAddrPort("10.0.0.1:7")
	if err := mapped.Validate(); err != nil {
		t.Error(err)
	}
}

// Of the 16 combinations of FIN flags each state has the few that can be.
func TestValidateFINs(t *testing.T) {
	allowed := map[State][]string{
		StateSynSent: {""}, StateSynReceived: {"", "q"}, StateEstablished: {""}, StateFinWait1: {"q", "qs"},
		StateFinWait2: {"qsa"}, StateCloseWait: {"r"}, StateClosing: {"qr", "qsr"}, StateLastAck: {"qr", "qsr"}, StateTimeWait: {"qsar"},
	}
	for s, want := range allowed {
		for i := range 16 {
			snap := possible(s)
			snap.Extra, snap.SendQueue, snap.Unsent = nil, nil, 0
			snap.FINQueued, snap.FINSent, snap.FINAcked, snap.FINReceived = i&1 != 0, i&2 != 0, i&4 != 0, i&8 != 0
			name := ""
			for bit, letter := range "qsar" {
				if i>>bit&1 != 0 {
					name += string(letter)
				}
			}
			ok := false
			for _, w := range want {
				ok = ok || w == name
			}
			if err := snap.Validate(); (err == nil) != ok {
				t.Errorf("%v with %q: %v", s, name, err)
			}
		}
	}
}

func TestValidateRefuses(t *testing.T) {
	addr := netip.MustParseAddrPort
	var none netip.AddrPort
	for name, tt := range map[string]struct {
		state State
		spoil func(*Snapshot)
	}{
		"no state":              {StateEstablished, func(s *Snapshot) { s.State = 0 }},
		"unknown state":         {StateEstablished, func(s *Snapshot) { s.State = 12 }},
		"closed":                {StateEstablished, func(s *Snapshot) { s.State = StateClosed }},
		"no local address":      {StateEstablished, func(s *Snapshot) { s.Local = none }},
		"no remote address":     {StateEstablished, func(s *Snapshot) { s.Remote = none }},
		"any local address":     {StateEstablished, func(s *Snapshot) { s.Local = addr("[::]:80") }},
		"any remote address":    {StateEstablished, func(s *Snapshot) { s.Remote = addr("[::]:80") }},
		"multicast local":       {StateEstablished, func(s *Snapshot) { s.Local = addr("[ff02::1]:80") }},
		"multicast remote":      {StateEstablished, func(s *Snapshot) { s.Remote = addr("[ff02::1]:80") }},
		"two families":          {StateEstablished, func(s *Snapshot) { s.Remote = addr("10.0.0.1:80") }},
		"no local port":         {StateEstablished, func(s *Snapshot) { s.Local = addr("[fd00::2]:0") }},
		"no remote port":        {StateEstablished, func(s *Snapshot) { s.Remote = addr("[fd00::1]:0") }},
		"negative unsent":       {StateEstablished, func(s *Snapshot) { s.Unsent = -1 }},
		"more unsent than is":   {StateEstablished, func(s *Snapshot) { s.Unsent = 21 }},
		"FIN before data":       {StateFinWait1, func(s *Snapshot) { s.FINSent = true }},
		"data after FIN":        {StateFinWait2, func(s *Snapshot) { s.SendQueue = Bytes{{1}} }},
		"data before SYN":       {StateSynSent, func(s *Snapshot) { s.RecvQueue = Bytes{{1}} }},
		"send scale":            {StateEstablished, func(s *Snapshot) { s.Options.SendScale = 15 }},
		"receive scale":         {StateEstablished, func(s *Snapshot) { s.Options.RecvScale = 15 }},
		"scale without scaling": {StateEstablished, func(s *Snapshot) { s.Options.Scaling = false }},
		"no segment size":       {StateEstablished, func(s *Snapshot) { s.Options.MSS = 0 }},
		"window above largest":  {StateEstablished, func(s *Snapshot) { s.Window.SndWnd++ }},
		"update beyond window":  {StateEstablished, func(s *Snapshot) { s.Window.SndWl1 += 5537 }},
		"update not received":   {StateEstablished, func(s *Snapshot) { s.Window.RcvWup += 3 }},
		"huge window":           {StateEstablished, func(s *Snapshot) { s.Window.RcvWnd = 1 << 30 }},
		"huge largest window":   {StateSynReceived, func(s *Snapshot) { s.Window.MaxWindow = 1 << 30 }},
		"huge send queue":       {StateEstablished, func(s *Snapshot) { s.SendQueue = repeat(make([]byte, 1<<20), 1025) }},
		"huge receive queue":    {StateEstablished, func(s *Snapshot) { s.RecvQueue = repeat(make([]byte, 1<<20), 1025) }},
		"children":              {StateEstablished, func(s *Snapshot) { s.Children = []*Snapshot{possible(StateEstablished)} }},
		"negative round trip":   {StateEstablished, func(s *Snapshot) { s.Extra.RTT.Variance = -1 }},
		"negative cwnd":         {StateEstablished, func(s *Snapshot) { s.Extra.Congestion.Window = -1 }},
		"segment never sent":    {StateEstablished, func(s *Snapshot) { s.Extra.Sent[1].Len++ }},
		"segment of nothing":    {StateEstablished, func(s *Snapshot) { s.Extra.Sent[0].Len = 0 }},
		"segment of everything": {StateEstablished, func(s *Snapshot) { s.Extra.Sent[0].Len = 1<<32 - 1 }},
		"segment acknowledged":  {StateEstablished, func(s *Snapshot) { s.Extra.Sent[0].Seq-- }},
		"segments overlap":      {StateEstablished, func(s *Snapshot) { s.Extra.Sent[0].Len++ }},
		"segment missing":       {StateEstablished, func(s *Snapshot) { s.Extra.Sent = s.Extra.Sent[1:] }},
		"last segment missing":  {StateEstablished, func(s *Snapshot) { s.Extra.Sent = s.Extra.Sent[:1] }},
		"SACKed and lost":       {StateEstablished, func(s *Snapshot) { s.Extra.Sent[1].Flags |= SegmentLost }},
		"resent and not lost":   {StateEstablished, func(s *Snapshot) { s.Extra.Sent[0].Flags = SegmentRetransmitted }},
		"unknown flag":          {StateEstablished, func(s *Snapshot) { s.Extra.Sent[0].Flags |= 0x10 }},
		"scoreboard of a SYN":   {StateSynReceived, func(s *Snapshot) { s.Extra.Sent = []SentSegment{{Seq: 0xffffffef, Len: 1}} }},
		"FIN of no connection":  {StateSynSent, func(s *Snapshot) { s.FINQueued = true }},
		"unknown phase":         {StateEstablished, func(s *Snapshot) { s.Extra.Congestion.Phase = 5 }},
		"edge far away":         {StateEstablished, func(s *Snapshot) { s.Extra.Advertised = 0x80000000 + 0x7fffffff }},
		"old window":            {StateEstablished, func(s *Snapshot) { s.Window.SndWl1 -= 0x7fffffff - 60000 }},
		"old acknowledgement":   {StateEstablished, func(s *Snapshot) { s.Window.RcvWup -= 0x7fffffff }},
		"held runs touch":       {StateEstablished, func(s *Snapshot) { s.Extra.Held[1].Seq-- }},
		"held beyond window":    {StateEstablished, func(s *Snapshot) { s.Extra.Held[2].Seq = s.Extra.Advertised - 3 }},
		"held in many runs":     {StateEstablished, func(s *Snapshot) { s.Extra.Held = runs(1<<16 + 1) }},
		"held in a handshake":   {StateSynReceived, func(s *Snapshot) { s.Extra.Held = runs(1) }},
		"FIN in its turn":       {StateEstablished, func(s *Snapshot) { s.Extra.Held, *s.Extra.EarlyFIN = nil, 0x80000000 }},
		"nothing held":          {StateEstablished, func(s *Snapshot) { s.Extra.Held[0].Data = nil }},
		"held in its turn":      {StateEstablished, func(s *Snapshot) { s.Extra.Held[0].Seq-- }},
		"held data overlap":     {StateEstablished, func(s *Snapshot) { s.Extra.Held[1].Seq -= 2 }},
		"held data far away":    {StateEstablished, func(s *Snapshot) { s.Extra.Held[2].Seq += maxWindow - 23 }},
		"early FIN too early":   {StateEstablished, func(s *Snapshot) { *s.Extra.EarlyFIN = 0x80000000 + 23 }},
		"early FIN far away":    {StateEstablished, func(s *Snapshot) { *s.Extra.EarlyFIN = 0x80000000 + maxWindow + 1 }},
		"early FIN after FIN":   {StateCloseWait, func(s *Snapshot) { s.Extra.EarlyFIN = new(uint32) }},
		"held data after FIN":   {StateCloseWait, func(s *Snapshot) { s.Extra.Held = []Span{{Seq: 0x80000000 + 9, Data: Bytes{{1}}}} }},
	} {
		snap := possible(tt.state)
		tt.spoil(snap)
		refused(t, name, snap)
	}
}

func TestValidateRefusesListener(t *testing.T) {
	addr := netip.MustParseAddrPort
	for name, spoil := range map[string]func(*Snapshot){
		"peer":             func(s *Snapshot) { s.Remote = addr("[fd00::1]:80") },
		"no port":          func(s *Snapshot) { s.Local = addr("[::]:0") },
		"data":             func(s *Snapshot) { s.RecvQueue = Bytes{{1}} },
		"FIN":              func(s *Snapshot) { s.FINReceived = true },
		"scale":            func(s *Snapshot) { s.Options.RecvScale = 15 },
		"no child":         func(s *Snapshot) { s.Children[0] = nil },
		"closing child":    func(s *Snapshot) { s.Children[0] = possible(StateLastAck) },
		"listening child":  func(s *Snapshot) { s.Children[0] = listener() },
		"other port":       func(s *Snapshot) { s.Children[0].Local = addr("[fd00::2]:81") },
		"other address":    func(s *Snapshot) { s.Local = addr("[fd00::3]:80") },
		"twins":            func(s *Snapshot) { s.Children[0].Remote = s.Children[1].Remote },
		"impossible child": func(s *Snapshot) { s.Children[2].Unsent = 99 },
	} {
		snap := listener()
		spoil(snap)
		refused(t, name, snap)
	}
}

// refused checks that a Snapshot is refused, in one line.
func refused(t *testing.T, name string, s *Snapshot) {
	t.Helper()
	err := s.Validate()
	if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooBig) {
		t.Errorf("%s: error %v", name, err)
		return
	}
	if line := err.Error(); strings.Contains(line, "\n") || len(line) < 10 {
		t.Errorf("%s: %q", name, line)
	}
}

// runs returns n bytes that came each before its turn.
func runs(n int) (held []Span) {
	for i := range n {
		held = append(held, Span{Seq: 0x80000000 + 2*uint32(i) + 1, Data: Bytes{{1}}})
	}
	return held
}

func repeat(p []byte, n int) (b Bytes) {
	for range n {
		b = append(b, p)
	}
	return b
}
