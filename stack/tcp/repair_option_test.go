package tcp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/tcp"
)

// words are 32-bit numbers as setsockopt takes them.
func words(v ...uint32) (b []byte) {
	for _, w := range v {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return b
}

// The options of TCP_REPAIR by number, with Linux's errors.
func TestRepairOptionNumbers(t *testing.T) {
	s := pair(t)
	client, server := connect(t, s, families[0], 80)
	e := endpointOf(t, s[0], client)
	set := func(want error, number int, value ...uint32) {
		t.Helper()
		if err := e.SetRepairOption(number, words(value...)); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("setting option %d to %v: %v, want %v", number, value, err, want)
		}
	}
	get := func(number int, want ...uint32) {
		t.Helper()
		if v, err := e.RepairOption(number); err != nil || !bytes.Equal(v, words(want...)) {
			t.Errorf("option %d is %v (%v), want %v", number, v, err, want)
		}
	}
	fails := func(number int, want error) {
		t.Helper()
		if v, err := e.RepairOption(number); !errors.Is(err, want) {
			t.Errorf("option %d is %v, %v; want %v", number, v, err, want)
		}
	}

	// Outside repair.
	get(tcp.OptionRepair, 0)
	set(syscall.EPERM, tcp.OptionRepairQueue, 1)
	fails(tcp.OptionRepairQueue, syscall.EINVAL)
	fails(tcp.OptionQueueSeq, syscall.EINVAL)
	set(syscall.EINVAL, tcp.OptionRepairOptions, 2, 1000)
	set(syscall.EPERM, tcp.OptionRepairWindow, 0, 0, 0, 0, 0)
	fails(tcp.OptionRepairWindow, syscall.EPERM)
	set(syscall.EPERM, tcp.OptionTimestamp, 1)
	if _, err := e.RepairOption(tcp.OptionTimestamp); err != nil {
		t.Errorf("reading the timestamp: %v", err)
	}
	set(syscall.EINVAL, tcp.OptionRepair, 2)
	set(syscall.EINVAL, tcp.OptionRepair)
	set(syscall.ENOPROTOOPT, 42, 1)
	fails(tcp.OptionRepairOptions, syscall.ENOPROTOOPT)

	server.Write([]byte("unread"))
	for e.ConnInfo().Unread < 6 {
		e.Readiness(waiter.ReadableEvents)
	}
	set(nil, tcp.OptionRepair, 1)
	get(tcp.OptionRepair, 1)
	get(tcp.OptionRepairQueue, 0)
	fails(tcp.OptionQueueSeq, syscall.EINVAL)
	set(syscall.EINVAL, tcp.OptionRepairQueue, 3)

	// The queues: a number is that of the end, reading takes nothing away.
	recv, _ := e.Repair().QueueSeq(repair.RecvQueue)
	send, _ := e.Repair().QueueSeq(repair.SendQueue)
	for q, seq := range map[uint32]uint32{1: recv, 2: send} {
		set(nil, tcp.OptionRepairQueue, q)
		get(tcp.OptionRepairQueue, q)
		get(tcp.OptionQueueSeq, seq)
		set(syscall.EPERM, tcp.OptionQueueSeq, 1) // only in CLOSED
	}
	set(nil, tcp.OptionRepairQueue, 2)
	if _, err := e.Write(bytes.NewReader([]byte("sent")), tcpip.WriteOptions{}); err != nil {
		t.Errorf("writing to the send queue: %s", err)
	}
	get(tcp.OptionQueueSeq, send+4)
	set(nil, tcp.OptionRepairQueue, 1)
	var b bytes.Buffer
	if _, err := e.Read(&b, tcpip.ReadOptions{}); err == nil {
		t.Error("reading without peeking")
	}
	if _, err := e.Read(&b, tcpip.ReadOptions{Peek: true}); err != nil || b.String() != "unread" {
		t.Errorf("the receive queue has %q (%v)", b.Bytes(), err)
	}

	// Options one by one: those before a wrong one stick.
	set(syscall.EFBIG, tcp.OptionRepairOptions, 2, 700, 3, 15)
	if o, _ := e.Repair().Options(); o.MSS != 700 {
		t.Errorf("MSS %d after a record of 700 and a wrong one", o.MSS)
	}
	set(syscall.EINVAL, tcp.OptionRepairOptions, 4, 1)
	set(syscall.EINVAL, tcp.OptionRepairOptions, 8, 1)
	set(nil, tcp.OptionRepairOptions, 77, 1, 3, 2<<16|1, 4, 0, 8, 0)
	o, _ := e.Repair().Options()
	if want := (repair.Options{MSS: 700, Scaling: true, SendScale: 1, RecvScale: 2, SACK: true, Timestamps: true}); o != want {
		t.Errorf("options %+v, want %+v", o, want)
	}

	// The window.
	set(syscall.EINVAL, tcp.OptionRepairWindow, 1, 2, 3)
	end, _ := e.Repair().QueueSeq(repair.RecvQueue)
	set(syscall.EINVAL, tcp.OptionRepairWindow, end, 2000, 1000, 100, end)
	set(nil, tcp.OptionRepairWindow, end-1, 2000, 3000, 5000, end)
	get(tcp.OptionRepairWindow, end-1, 2000, 3000, 5000, end)

	set(nil, tcp.OptionTimestamp, 1_000_001)
	if v, micros, _ := e.Repair().Timestamp(); !micros || v-1_000_001 > 5_000_000 {
		t.Errorf("timestamp %d, micros %t", v, micros)
	}
	// Switching repair on again forgets the selection.
	set(nil, tcp.OptionRepair, 1)
	get(tcp.OptionRepairQueue, 0)
	set(nil, tcp.OptionRepair, ^uint32(0))
	get(tcp.OptionRepair, 0)
}
