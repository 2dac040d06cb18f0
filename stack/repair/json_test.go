package repair

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestJSONRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genSnapshot(t, false)
		b, err := json.MarshalIndent(want, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		var got Snapshot
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		same(t, &got, want)
	})
}

// The words that people and scripts rely on.
func TestJSONWords(t *testing.T) {
	b, err := json.Marshal(possible(StateFinWait1))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"local":"[fd00::2]:80"`, `"remote":"[fd00::1]:40000"`, `"state":"FIN-WAIT-1"`,
		`"send_queue":"MDEyMzQ1Njc4OWFiY2RlZmdoaWo="`, `"unsent":4`, `"recv_queue":"dW5yZWFk"`,
		`"fin_queued":true`, `"fin_received":false`, `"no_delay":true`, `"timestamp_micros":false`,
		`"window":{"snd_wl1":2147543648,`, `"smoothed":"1ms"`, `"variance":"1µs"`, `"state":{"k":-1,"wmax":3}`,
		`"early_fin":2147483678`, `"age":"1s"`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in\n%s", want, b)
		}
	}
	for _, not := range []string{`"children"`, `"ts_recent"`} {
		if strings.Contains(string(b), not) {
			t.Errorf("%s in\n%s", not, b)
		}
	}
}

func TestJSONWithoutQueues(t *testing.T) {
	s := possible(StateEstablished)
	b, err := s.JSON(false)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"send_queue":{"bytes":20}`) || strings.Contains(string(b), "MDEy") {
		t.Errorf("%s", b)
	}
	var back Snapshot
	err = json.Unmarshal(b, &back)
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "send_queue: the 20 bytes were left out") {
		t.Error(err)
	}
	s = idle()
	if b, err = s.JSON(false); err != nil {
		t.Fatal(err)
	}
	back = Snapshot{}
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	same(t, &back, s)
}

func TestJSONRefuses(t *testing.T) {
	for in, want := range map[string]string{
		`[]`:                              ".: an object is expected",
		`null`:                            ".: an object is expected",
		`{"sendseq":1}`:                   ".sendseq: there is no such field",
		`{"extra":{"rtt":{"min":"x"}}}`:   `.extra.rtt.min: "x" is no duration`,
		`{"extra":{"rtt":{"min":5}}}`:     ".extra.rtt.min: 5 is no duration",
		`{"extra":[]}`:                    ".extra: an object is expected",
		`{"extra":{"sent":{}}}`:           ".extra.sent: an array is expected",
		`{"extra":{"sent":[{"seq":-1}]}}`: ".extra.sent[0].seq: -1 is no whole number of 32 bits",
		`{"send_seq":4294967296}`:         ".send_seq: 4294967296 is no whole number of 32 bits",
		`{"state":"OPEN"}`:                `.state: "OPEN" is no state`,
		`{"local":"nowhere"}`:             `.local: "nowhere" is no address and port`,
		`{"recv_queue":"*"}`:              ".recv_queue: a string in base64",
		`{"recv_queue":{"bits":3}}`:       ".recv_queue: a string in base64",
		`{"no_delay":1}`:                  ".no_delay: 1 is no true or false",
		`{"children":{}}`:                 ".children: an array is expected",
		`{"children":[{"x":1}]}`:          ".children[0].x: there is no such field",
		`{"extra":{"congestion":{"state":{"a":0.5}}}}`: ".extra.congestion.state",
		`{"extra":{"timers":[{"kind":"egg"}]}}`:        `.extra.timers[0].kind: "egg" is no timer`,
	} {
		var s Snapshot
		err := json.Unmarshal([]byte(in), &s)
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
}

func TestSnake(t *testing.T) {
	for name, want := range map[string]string{
		"Local": "local", "SendSeq": "send_seq", "FINQueued": "fin_queued", "MSS": "mss", "SndWl1": "snd_wl1",
		"TSRecentAge": "ts_recent_age", "DupACKs": "dup_acks", "SYNSends": "syn_sends", "QuickACKs": "quick_acks",
		"SACKsSent": "sacks_sent", "PathMSS": "path_mss", "RecvRTT": "recv_rtt",
	} {
		if got := snake(name); got != want {
			t.Errorf("%s becomes %s, not %s", name, got, want)
		}
	}
	// No two fields of a struct may have one name.
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ.PkgPath() != reflect.TypeFor[Extra]().PkgPath() {
			return
		}
		seen := map[string]bool{"extra": true, "children": true}
		for f := range fieldsOf(typ) {
			if seen[snake(f.Name)] {
				t.Errorf("%v.%s has the name of another", typ, f.Name)
			}
			seen[snake(f.Name)] = true
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[Core]())
	walk(reflect.TypeFor[Extra]())
}
