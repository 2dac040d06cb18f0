package linux_test

import (
	"cmp"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/linux"
)

// What the user wants of IP goes with a connection, and so does the device that
// it is bound to, where there is one of that name.
func TestIPSettings(t *testing.T) {
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			w := newWorld(t)
			level, ttl, tos, discover := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_TOS, unix.IP_MTU_DISCOVER
			if fam.name == "ipv6" {
				level, ttl, tos, discover = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_TCLASS, unix.IPV6_MTU_DISCOVER
			}
			want := map[int]int{ttl: 17, tos: 0x48, discover: unix.IP_PMTUDISC_PROBE}
			peer, host := w.connect(fam.index)
			s := w.freeze(0, host)
			defer s.Close()
			for option, v := range want {
				must(t, unix.SetsockoptInt(s.FD(), level, option, v))
			}
			device := w.Hosts[1].Device.Name
			must(t, unix.BindToDevice(s.FD(), w.Hosts[0].Device.Name))
			for _, bound := range []string{"", device} {
				snap, err := s.Snapshot()
				must(t, err)
				if got := snap.Extra.IP.Device; got != w.Hosts[0].Device.Name {
					t.Errorf("read out as bound to %q", got)
				}
				snap.Extra.IP.Device = cmp.Or(bound, "elsewhere0")
				restored, err := w.factory(1).Restore(snap)
				must(t, err)
				fd := restored.(*linux.Socket).FD()
				for option, v := range want {
					if got, err := unix.GetsockoptInt(fd, level, option); err != nil || got != v {
						t.Errorf("option %d is %d, %v, want %d", option, got, err, v)
					}
				}
				if got, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE); err != nil || got != bound {
					t.Errorf("bound to %q, %v, want %q", got, err, bound)
				}
				if bound == "" {
					must(t, restored.Close())
					continue
				}
				w.Switch.Move(1)
				must(t, repair.Resume(restored, repair.Off))
				c := user(t, restored.(*linux.Socket))
				defer c.Close()
				defer restored.Close()
				exchange(t, peer, c)
			}
		})
	}
}
