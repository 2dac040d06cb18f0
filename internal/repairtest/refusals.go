package repairtest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"strings"
	"testing"

	"github.com/tcprepair/ustack/stack/repair"
)

// Target is where a connection is to be restored from a file.
type Target struct {
	// Snapshot is of a connection that is where Restore would set it down, and
	// that its peer did not open. It is of IPv4.
	Snapshot *repair.Snapshot
	// Restore reads a file of snapshots and sets the connection down. It may
	// return errors by their text only.
	Restore func(file []byte) error
	// Foreign is an address that is not the host's, Nowhere one to which it has
	// no route, and Listening a port of its that has a listener.
	Foreign, Nowhere netip.Addr
	Listening        uint16
	// Unchanged fails unless all is as it was before the first refusal.
	Unchanged func(t *testing.T, after string)
}

// Refusals tries what must be refused: each with one line that says why, and
// without any change.
func Refusals(t *testing.T, at *Target) {
	sound := encode(t, at.Snapshot)
	refuse := func(name string, file []byte, why string) {
		t.Helper()
		err := at.Restore(file)
		if err == nil {
			t.Fatalf("%s: restored", name)
		}
		if line := strings.TrimSuffix(err.Error(), "\n"); strings.Contains(line, "\n") || !strings.Contains(line, why) {
			t.Errorf("%s: %q, want a line with %q", name, line, why)
		}
		at.Unchanged(t, name)
	}
	changed := func(change func(*repair.Snapshot)) []byte {
		s := *at.Snapshot
		change(&s)
		return encode(t, &s)
	}
	local, remote := at.Snapshot.Local, at.Snapshot.Remote
	fresh := netip.AddrPortFrom(remote.Addr(), remote.Port()^1)

	refuse("existing connection", sound, repair.ErrAddrInUse.Error())
	refuse("wrong local address", changed(func(s *repair.Snapshot) {
		s.Local, s.Remote = netip.AddrPortFrom(at.Foreign, local.Port()), fresh
	}), repair.ErrAddress.Error())
	refuse("no route", changed(func(s *repair.Snapshot) {
		s.Remote = netip.AddrPortFrom(at.Nowhere, remote.Port())
	}), repair.ErrNoRoute.Error())
	refuse("port held by a listener", changed(func(s *repair.Snapshot) {
		s.Local, s.Remote = netip.AddrPortFrom(local.Addr(), at.Listening), fresh
	}), repair.ErrAddrInUse.Error())
	refuse("queue over the limit", changed(func(s *repair.Snapshot) {
		piece := make([]byte, 1<<20)
		for s.Unsent = 0; s.Unsent <= repair.DefaultQueueLimit; s.Unsent += len(piece) {
			s.SendQueue = append(s.SendQueue, piece)
		}
		s.Unsent = 0
		s.Extra = nil
	}), "limit")
	for n := range len(sound) {
		refuse("truncated", sound[:n], "")
	}
	later := bytes.Clone(sound)
	binary.BigEndian.PutUint16(later[versionAt:], 2)
	refuse("version from the future", seal(later), "version")
	for name, lie := range lies(sound) {
		refuse("a lie about the length of "+name, seal(lie), "")
	}
}

// Where things are in the binary form (stack/repair/encode.go): a magic, the
// version, the length of the core, that of the extra part, the core.
const (
	versionAt   = 6
	coreLenAt   = versionAt + 2
	extraLenAt  = coreLenAt + 2
	coreAt      = extraLenAt + 4
	sendQueueAt = coreAt + 2 + 1 + 2*(1+4+2) + 4 + 4 // of a connection of IPv4
)

// lies are files in which one length says other than what is.
func lies(sound []byte) map[string][]byte {
	with := func(change func(b []byte)) []byte {
		b := bytes.Clone(sound)
		change(b)
		return b
	}
	return map[string][]byte{
		"the core":           with(func(b []byte) { b[coreLenAt+1]++ }),
		"the core, shorter":  with(func(b []byte) { b[coreLenAt+1]-- }),
		"the extra part":     with(func(b []byte) { binary.BigEndian.PutUint32(b[extraLenAt:], 1<<32-1) }),
		"the extra, shorter": with(func(b []byte) { b[extraLenAt+3]-- }),
		"the send queue":     with(func(b []byte) { b[sendQueueAt] = 0x7f }),
		"the receive queue":  with(func(b []byte) { b[sendQueueAt+2] = 0x7f }),
		"the held data":      with(func(b []byte) { b[sendQueueAt+3] = 0x7f }),
		"the children":       with(func(b []byte) { b[sendQueueAt+4] = 0x7f }),
	}
}

// seal puts the right checksum at the end, so that it is not what is wrong.
func seal(b []byte) []byte {
	n := len(b) - 4
	binary.BigEndian.PutUint32(b[n:], crc32.Checksum(b[:n], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func encode(t *testing.T, s *repair.Snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
