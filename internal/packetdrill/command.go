package packetdrill

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Commands are shell commands in the original. Here they are looked up: what
// has a meaning for the stack under test is applied, the rest is noted.

// command carries out a command.
func (r *runner) command(c *Command) {
	for _, argv := range simpleCommands(c.Text) {
		r.simpleCommand(argv)
	}
}

// simpleCommands cuts a text into commands and their words. Redirections are
// left out, and so is what a pipe feeds.
func simpleCommands(text string) (list [][]string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	var argv []string
	var word strings.Builder
	inWord := false
	endWord := func() {
		if inWord {
			argv = append(argv, word.String())
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		endWord()
		if argv = withoutRedirections(argv); len(argv) > 0 {
			list = append(list, argv)
		}
		argv = nil
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"' || c == '\'':
			inWord = true
			for i++; i < len(text) && text[i] != c; i++ {
				word.WriteByte(text[i])
			}
		case c == '#' && !inWord:
			for i < len(text) && text[i] != '\n' {
				i++
			}
			endCommand()
		case c == '&' && i+1 < len(text) && text[i+1] == '>', c == '&' && i > 0 && text[i-1] == '>':
			inWord = true
			word.WriteByte(c)
		case c == '\n' || c == ';' || c == '&' || c == '|':
			endCommand()
		case c == ' ' || c == '\t' || c == '\r':
			endWord()
		default:
			inWord = true
			word.WriteByte(c)
		}
	}
	endCommand()
	return list
}

// withoutRedirections leaves out >file, 2>&1 and their like.
func withoutRedirections(argv []string) (out []string) {
	for i := 0; i < len(argv); i++ {
		switch w := argv[i]; {
		case w == ">" || w == ">>" || w == "2>" || w == "<" || w == "&>":
			i++
		case strings.HasPrefix(strings.TrimLeft(w, "0123456789&"), ">"):
		default:
			out = append(out, w)
		}
	}
	return out
}

// simpleCommand carries out one command.
func (r *runner) simpleCommand(argv []string) {
	switch name := path.Base(argv[0]); name {
	case "defaults.sh":
		for _, d := range defaultSysctls {
			r.sysctl(d[0], d[1])
		}
	case "sysctl":
		r.sysctls(argv[1:], "net.")
	case "set_sysctls.py":
		r.sysctls(argv[1:], "/proc/sys/")
	case "ip":
		r.ipCommand(argv)
	case "tc":
		// "pfifo limit 0" is a queue that takes nothing.
		if i := slices.Index(argv, "limit"); i >= 0 && i+1 < len(argv) {
			r.link.choke(argv[i+1] == "0")
		} else if slices.Contains(argv, "fq") {
			r.note("no pacing: %s", strings.Join(argv, " "))
		}
	case "ethtool":
		// Linux's TCP makes large segments whatever the card says, and cuts them
		// itself if it must. That is what the link does here.
	case "sleep":
		if len(argv) == 2 {
			if d, err := seconds(argv[1]); err == nil {
				r.runTo(r.now() + d)
				return
			}
		}
		r.note("without effect: %s", strings.Join(argv, " "))
	default:
		if !strings.HasPrefix(name, "sysctl_restore_") { // the stack goes, and its settings with it
			r.note("without effect: %s", strings.Join(argv, " "))
		}
	}
}

// sysctls applies name=value pairs.
func (r *runner) sysctls(args []string, prefix string) {
	for _, a := range args {
		name, v, ok := strings.Cut(a, "=")
		if strings.HasPrefix(a, "-") && !ok {
			continue // an option
		}
		name = strings.ReplaceAll(strings.TrimPrefix(name, "/proc/sys/"), "/", ".")
		if !ok || !strings.HasPrefix(name, "net.") {
			r.note("no setting: %s (want %sNAME=VALUE)", a, prefix)
			continue
		}
		r.sysctl(name, strings.TrimSpace(v))
	}
}

// ipCommand knows the MTU of links and routes.
func (r *runner) ipCommand(argv []string) {
	i := slices.Index(argv, "mtu")
	if i >= 0 && i+1 < len(argv) && argv[i+1] == "lock" {
		i++
	}
	if i < 0 || i+1 >= len(argv) || !slices.Contains(argv, "link") && !slices.Contains(argv, "route") {
		switch {
		case slices.Contains(argv, "tcp_metrics"):
			if r.cfg.Flush != nil {
				r.cfg.Flush(r.stack)
			}
		default:
			r.note("without effect: %s", strings.Join(argv, " "))
		}
		return
	}
	mtu, err := parseBounded(argv[i+1], 68, 65535)
	if err != nil {
		r.fail("ip: mtu: %v", err)
	}
	r.link.SetMTU(uint32(mtu))
	r.stack.SetNICMTU(nicID, uint32(mtu))
	if i := slices.Index(argv, "advmss"); i >= 0 {
		r.note("without effect: advmss, initcwnd: %s", strings.Join(argv, " "))
	}
}

// tunables are settings that the runner applies itself.
type tunables struct {
	keepIdle, keepInterval time.Duration
	keepCount              int
}

// newSocket gives a socket what the settings say.
func (r *runner) newSocket(s *sock) {
	if r.keepIdle > 0 {
		o := tcpip.KeepaliveIdleOption(r.keepIdle)
		s.ep.SetSockOpt(&o)
	}
	if r.keepInterval > 0 {
		o := tcpip.KeepaliveIntervalOption(r.keepInterval)
		s.ep.SetSockOpt(&o)
	}
	if r.keepCount > 0 {
		s.ep.SetSockOptInt(tcpip.KeepaliveCountOption, r.keepCount)
	}
}

// sysctl applies a setting.
func (r *runner) sysctl(name, value string) {
	if r.cfg.Sysctl != nil {
		known, err := r.cfg.Sysctl(r.stack, name, value)
		if err != nil {
			r.fail("%s=%s: %v", name, value, err)
		}
		if known {
			return
		}
	}
	if slices.Contains(fixedSysctls, name) {
		return
	}
	apply, ok := sysctls[name]
	if !ok {
		r.note("without effect: %s=%s", name, value)
		return
	}
	if err := apply(r, value); err != nil {
		r.fail("%s=%s: %v", name, value, err)
	}
}

// setProtocol sets an option of the protocol's.
func (r *runner) setProtocol(o tcpip.SettableTransportProtocolOption) error {
	if err := r.stack.SetTransportProtocolOption(header.TCPProtocolNumber, o); err != nil {
		return tcpipError{err}
	}
	return nil
}

// tcpipError is an error of the stack's as Go has it.
type tcpipError struct{ e tcpip.Error }

func (e tcpipError) Error() string { return e.e.String() }

// triple reads "min default max".
func triple(v string) (a [3]int, err error) {
	f := strings.Fields(v)
	for i := range a {
		if i < len(f) {
			if a[i], err = strconv.Atoi(f[i]); err != nil {
				return a, err
			}
		}
	}
	return a, nil
}
