package repair

import (
	"fmt"
	"net/netip"
)

// Flow returns the two ends. A listener's Remote is invalid.
func (c *Core) Flow() Flow { return Flow{Local: c.Local, Remote: c.Remote} }

// String is "local -> remote".
func (f Flow) String() string { return fmt.Sprintf("%v -> %v", f.Local, f.Remote) }

// Validate refuses what cannot be the two ends of a connection; the error
// wraps ErrInvalid.
func (f Flow) Validate() error {
	if err := validateLocal(f.Local); err != nil {
		return err
	}
	switch addr := f.Remote.Addr(); {
	case !addr.IsValid():
		return invalid("there is no remote address")
	case addr.IsUnspecified() || addr.IsMulticast():
		return invalid("%v is not a host that a connection can be with", addr)
	case f.Local.Addr().IsUnspecified():
		return invalid("the local address %v is no host's", f.Local.Addr())
	case f.Remote.Port() == 0:
		return invalid("the remote port is 0")
	case f.Local.Addr().Unmap().Is4() != addr.Unmap().Is4():
		return invalid("%v and %v are not of one family", f.Local.Addr(), addr)
	}
	return nil
}

// validateLocal refuses what no socket can be bound to.
func validateLocal(local netip.AddrPort) error {
	switch {
	case !local.Addr().IsValid():
		return invalid("there is no local address")
	case local.Addr().IsMulticast():
		return invalid("the local address %v is a multicast address", local.Addr())
	case local.Port() == 0:
		return invalid("the local port is 0")
	}
	return nil
}

// invalid is an error that wraps ErrInvalid and says what is wrong.
func invalid(format string, args ...any) error {
	return &invalidError{fmt.Sprintf(format, args...)}
}

// invalidError keeps ErrInvalid's own words out of the message.
type invalidError struct{ what string }

func (e *invalidError) Error() string        { return e.what }
func (e *invalidError) Is(target error) bool { return target == ErrInvalid }
