// Package stack is ustack for embedders: a whole user-space network stack with
// Go's own interfaces. New joins gVisor's IP layers, the TCP of stack/tcp and a
// link; Dial and Listen give net.Conn and net.Listener; Conns, SetRepair, Drops
// and Stats look inside.
//
//	s, err := stack.New(stack.Config{
//		Link:      link, // a stack/tap endpoint, or any of gVisor's
//		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")},
//	})
//	defer s.Close()
//	l, err := s.Listen("tcp", ":80")
//
// What the facade does not cover is one call away: NetStack returns gVisor's
// stack, and everything built for it works.
package stack
