package tcp_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/refs"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// leakless runs f with gVisor's reference checking on, and fails if a
// reference is left, or a goroutine.
func leakless(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	before := runtime.NumGoroutine()
	was := refs.GetLeakMode()
	refs.SetLeakMode(refs.LeaksPanic)
	defer refs.SetLeakMode(was)
	t.Run("run", f)
	defer func() {
		if r := recover(); r != nil {
			s := fmt.Sprint(r)
			if len(s) > 600 {
				s = s[:600]
			}
			t.Error(s)
		}
	}()
	var n int
	for range 100 {
		if n = runtime.NumGoroutine(); n <= before {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n > before {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines left\n%s", n-before, buf[:runtime.Stack(buf, true)])
	}
	refs.DoRepeatedLeakCheck()
}
