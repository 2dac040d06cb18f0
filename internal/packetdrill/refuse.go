package packetdrill

import "strings"

// refused looks for what a script uses that is left out on purpose, and names
// it.
func refused(s *Script) error {
	for i := range s.Events {
		e := &s.Events[i]
		a, ok := e.Action.(*Syscall)
		if !ok {
			continue
		}
		if what := refusedCall(a); what != "" {
			return &NotSupportedError{s.Path, e.Line, what}
		}
	}
	return nil
}

// refusedCalls are the system calls that are left out.
var refusedCalls = []string{"sendfile", "splice", "tee", "vmsplice", "pipe", "open", "cap_set"}

// refusedWords are the constants that only what is left out has a use for, or
// their beginnings.
var refusedWords = []string{
	"MSG_ZEROCOPY", "SO_ZEROCOPY", "TCP_ZEROCOPY_RECEIVE", "SO_EE_CODE_ZEROCOPY", "SO_EE_ORIGIN_ZEROCOPY",
	"SO_TIMESTAMPING", "SOF_TIMESTAMPING", "SCM_TIMESTAMPING", "SCM_TSTAMP", "MSG_ERRQUEUE",
	"TCP_MD5SIG", "TCP_AO_", "TCP_ULP",
}

func refusedCall(c *Syscall) string {
	for _, name := range refusedCalls {
		if c.Name == name {
			return c.Name
		}
	}
	if strings.HasPrefix(c.Name, "psp_") {
		return "PSP"
	}
	for _, a := range append([]Expr{c.Result}, c.Args...) {
		if w := refusedWord(a); w != "" {
			return w
		}
	}
	return ""
}

// refusedWord looks for a refused word in an expression.
func refusedWord(e Expr) string {
	list := []Expr{}
	switch e := e.(type) {
	case Word:
		for _, w := range refusedWords {
			if strings.HasPrefix(e.Name, w) {
				return e.Name
			}
		}
	case Or:
		list = []Expr{e.L, e.R}
	case Array:
		list = e.Elems
	case Call:
		list = e.Args
	case Struct:
		for _, f := range e.Fields {
			list = append(list, f.V)
		}
	}
	for _, e := range list {
		if w := refusedWord(e); w != "" {
			return w
		}
	}
	return ""
}
