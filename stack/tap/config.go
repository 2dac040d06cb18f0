//go:build linux

package tap

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	// minMTU is what every IPv4 link must carry.
	// https://www.rfc-editor.org/rfc/rfc791#section-3.2
	minMTU = 68
	// maxMTU is the kernel's own limit for a TAP device.
	maxMTU = 65535 - header.EthernetMinimumSize
	// maxQueues is the kernel's own limit.
	maxQueues = 256
	// defaultMTU is used when the device's cannot be read.
	defaultMTU = 1500
)

// Config says which device to use and how. Its zero value opens a new device
// with a name of the kernel's choice.
type Config struct {
	// Name is the device to attach to, or to create if there is none; at most
	// 15 bytes. Empty, or with a %d in it, the kernel completes the name.
	Name string
	// MTU is the largest network packet, in bytes, that either side sends
	// uncut. 0 takes the device's. A device that Open creates is given this
	// MTU as well; an existing device is left alone.
	MTU uint32
	// Address is the endpoint's own MAC address, on the far side of the device
	// from the kernel's. Empty: a random, locally administered one.
	Address tcpip.LinkAddress
	// NoOffload asks for plain frames even where the kernel offers more.
	NoOffload bool
	// Queues is how many queues the device is read and written by, each with a
	// goroutine of its own; a flow keeps to one. 0 is 1, at most 256. Open makes
	// a device with so many; an existing one must have been made for several
	// (IFF_MULTI_QUEUE). A descriptor given to Adopt is one queue.
	Queues int
	// Spin is how long the reader keeps looking for the next frame before it
	// sleeps, while frames follow each other as closely as that. 0:
	// DefaultSpin; negative: it sleeps at once.
	Spin time.Duration
	// Logger hears of what happens to the device after it was opened; nil
	// keeps silent.
	Logger *slog.Logger
}

// validate checks what can be checked without a device.
func (c *Config) validate() error {
	if err := checkName(c.Name); err != nil {
		return err
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		return fmt.Errorf("tap %s: %w: %d", c.label(), ErrMTU, c.MTU)
	}
	if c.Queues < 0 || c.Queues > maxQueues {
		return fmt.Errorf("tap %s: %w: %d, want 1 to %d", c.label(), ErrQueues, c.Queues, maxQueues)
	}
	if c.Address != "" && (len(c.Address) != header.EthernetAddressSize ||
		!header.IsValidUnicastEthernetAddress(c.Address)) {
		return fmt.Errorf("tap %s: %w: %q is not a unicast MAC address", c.label(), ErrAddress, c.Address.String())
	}
	return nil
}

// label names the device in errors.
func (c *Config) label() string {
	if c.Name == "" {
		return "(unnamed)"
	}
	return c.Name
}

// checkName applies the kernel's rules for device names, so that a bad one is
// reported as such and not as EINVAL.
func checkName(name string) error {
	if name == "" {
		return nil
	}
	if len(name) >= unix.IFNAMSIZ {
		return fmt.Errorf("tap %q: %w: %d bytes", name, ErrName, len(name))
	}
	bad := name == "." || name == ".."
	for i := range len(name) {
		// 0xa0 is a space to the kernel, which reads names as Latin-1.
		bad = bad || strings.IndexByte("/: \t\n\v\f\r\x00", name[i]) >= 0 || name[i] == 0xa0
	}
	if bad {
		return fmt.Errorf("tap %q: %w", name, ErrName)
	}
	return nil
}

// address picks the endpoint's MAC, which must differ from that of the device:
// the two are neighbours on one link.
func (c *Config) address(device tcpip.LinkAddress) (tcpip.LinkAddress, error) {
	if c.Address != "" {
		if c.Address == device {
			return "", fmt.Errorf("tap %s: %w: %s is the device's own", c.label(), ErrAddress, c.Address)
		}
		return c.Address, nil
	}
	for {
		a := randomAddress()
		if a != device {
			return a, nil
		}
	}
}

// randomAddress is a random unicast MAC with the locally administered bit set.
func randomAddress() tcpip.LinkAddress {
	var b [header.EthernetAddressSize]byte
	rand.Read(b[:])
	b[0] = b[0]&^0x01 | 0x02
	return tcpip.LinkAddress(b[:])
}
