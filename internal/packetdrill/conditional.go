package packetdrill

import "strings"

// conditional blanks the lines that #ifdef NAME and #ifndef NAME leave out, up
// to #else and #endif, and those lines themselves. BSD's scripts are run through
// the C preprocessor, and say so what holds on which system only. Lines keep
// their numbers. The fault, if there is one, is at a line.
func conditional(text string, defines map[string]string) (out string, line int, fault string) {
	if !strings.Contains(text, "#if") {
		return text, 0, "" // of Python's comments none begins so
	}
	type branch struct {
		line      int
		on, outer bool
	}
	var open []branch
	on := true
	lines := strings.SplitAfter(text, "\n")
	for i, l := range lines {
		word, name, _ := strings.Cut(strings.TrimSpace(l), " ")
		_, defined := defines[strings.TrimSpace(name)]
		switch word {
		case "#ifdef", "#ifndef":
			open = append(open, branch{i + 1, defined == (word == "#ifdef"), on})
		case "#else", "#endif":
			if len(open) == 0 {
				return text, i + 1, word + " without #ifdef"
			}
			if last := &open[len(open)-1]; word == "#else" {
				last.on = !last.on
			} else {
				on = last.outer
				open = open[:len(open)-1]
			}
		default:
			if !on {
				lines[i] = blank(l)
			}
			continue
		}
		if n := len(open); n > 0 {
			on = open[n-1].outer && open[n-1].on
		}
		lines[i] = blank(l)
	}
	if n := len(open); n > 0 {
		return text, open[n-1].line, "#ifdef without #endif"
	}
	return strings.Join(lines, ""), 0, ""
}

// blank is a line with nothing on it, if it was one.
func blank(l string) string {
	if strings.HasSuffix(l, "\n") {
		return "\n"
	}
	return ""
}
