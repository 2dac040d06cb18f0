package repair

import (
	"slices"
	"strconv"
)

var timerNames = [...]string{
	TimerRetransmit: "retransmit",
	TimerPersist:    "persist",
	TimerDelayedACK: "delayed-ack",
	TimerKeepalive:  "keepalive",
	TimerFinWait2:   "fin-wait-2",
	TimerTimeWait:   "time-wait",
	TimerTailLoss:   "tail-loss",
	TimerReordering: "reordering",
	TimerCork:       "cork",
}

// String returns what the timer is for, in a word.
func (k TimerKind) String() string { return nameOrNumber(timerNames[:], uint8(k)) }

// MarshalText implements encoding.TextMarshaler.
func (k TimerKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *TimerKind) UnmarshalText(text []byte) error {
	n, err := parseName(timerNames[:], string(text), "timer")
	*k = TimerKind(n)
	return err
}

// MarshalText implements encoding.TextMarshaler with the name that RFC 9293
// uses.
func (s State) MarshalText() ([]byte, error) {
	return []byte(nameOrNumber(stateNames[:], uint8(s))), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *State) UnmarshalText(text []byte) error {
	n, err := parseName(stateNames[:], string(text), "state")
	*s = State(n)
	return err
}

// nameOrNumber returns a value's name, or its digits if it has none.
func nameOrNumber(names []string, v uint8) string {
	if int(v) < len(names) && names[v] != "" {
		return names[v]
	}
	return strconv.Itoa(int(v))
}

// parseName undoes nameOrNumber.
func parseName(names []string, text, what string) (uint8, error) {
	if i := slices.Index(names, text); i > 0 {
		return uint8(i), nil
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, invalid("there is no %s %q", what, text)
	}
	return uint8(n), nil
}
