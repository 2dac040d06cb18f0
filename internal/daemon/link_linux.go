package daemon

import (
	"errors"
	"fmt"

	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack/tap"
)

// openLink opens the link that the configuration names.
func openLink(c Config) (gstack.LinkEndpoint, string, error) {
	if c.Link != nil {
		return c.Link, "given", nil
	}
	tc := tap.Config{Name: c.TAP, MTU: uint32(c.MTU), Queues: c.Queues, Logger: c.Logger}
	var ep *tap.Endpoint
	var err error
	if c.TAPFD != 0 {
		ep, err = tap.Adopt(c.TAPFD, tc)
	} else {
		ep, err = tap.Open(tc)
	}
	if errors.Is(err, tap.ErrName) || errors.Is(err, tap.ErrMTU) || errors.Is(err, tap.ErrQueues) {
		return nil, "", &UsageError{err}
	}
	if err != nil {
		return nil, "", err
	}
	return ep, fmt.Sprintf("tap %s (%v)", ep.Name(), ep.Offload()), nil
}
