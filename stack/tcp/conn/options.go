package conn

import (
	"encoding/binary"
	"fmt"
	"strings"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
)

// MaxOptionsLen is the most option bytes a TCP header can carry.
const MaxOptionsLen = 40

// maxWindowScale is the largest shift that may be used; a larger one in an
// option counts as this one.
// https://www.rfc-editor.org/rfc/rfc7323#section-2.3
const maxWindowScale = 14

// Options are the TCP options of one segment.
type Options struct {
	MSS           uint16 // 0: absent
	HasWScale     bool
	WScale        uint8 // 0..14
	SACKPermitted bool
	HasTS         bool
	TSVal, TSEcr  uint32
	FastOpen      *FastOpen // nil: absent
	NumSACK       uint8     // how many of SACK are set
	SACK          [4]header.SACKBlock
}

// Blocks returns the SACK blocks that are set.
func (o *Options) Blocks() []header.SACKBlock { return o.SACK[:o.NumSACK] }

// Option kinds, https://www.iana.org/assignments/tcp-parameters
const (
	optEOL        = 0
	optNOP        = 1
	optMSS        = 2
	optWScale     = 3
	optSACKPerm   = 4
	optSACK       = 5
	optTimestamp  = 8
	optFastOpen   = 34
	optExperiment = 254 // RFC 6994
)

// timestampWord is a header whose only option is a timestamp, padded in front
// as RFC 7323 appendix A recommends: what nearly every segment carries.
const timestampWord = optNOP<<24 | optNOP<<16 | optTimestamp<<8 | 10

// ParseOptions reads the options of a header. Unknown options are skipped; one
// that lies about its length ends the parse, and what came before it counts.
// Options that belong on a SYN only are ignored elsewhere.
// https://www.rfc-editor.org/rfc/rfc9293#section-3.1-5 (MUST-5, MUST-6, MUST-7)
func ParseOptions(b []byte, syn bool, o *Options) {
	*o = Options{}
	if len(b) == 12 && binary.BigEndian.Uint32(b) == timestampWord {
		o.HasTS = true
		o.TSVal = binary.BigEndian.Uint32(b[4:])
		o.TSEcr = binary.BigEndian.Uint32(b[8:])
		return
	}
	for len(b) > 0 {
		kind := b[0]
		switch kind {
		case optEOL:
			return
		case optNOP:
			b = b[1:]
			continue
		}
		if len(b) < 2 {
			return
		}
		n := int(b[1])
		if n < 2 || n > len(b) {
			return
		}
		o.parseOne(kind, b[2:n], syn)
		b = b[n:]
	}
}

// parseOne reads one option's value. A length that does not fit the kind makes
// it an unknown option.
func (o *Options) parseOne(kind byte, v []byte, syn bool) {
	switch {
	case kind == optTimestamp && len(v) == 8:
		o.HasTS = true
		o.TSVal = binary.BigEndian.Uint32(v)
		o.TSEcr = binary.BigEndian.Uint32(v[4:])
	case kind == optSACK && !syn && len(v) > 0 && len(v)%8 == 0 && len(v) <= 32:
		o.NumSACK = uint8(len(v) / 8)
		for i := range int(o.NumSACK) {
			o.SACK[i] = header.SACKBlock{
				Start: seqnum.Value(binary.BigEndian.Uint32(v[8*i:])),
				End:   seqnum.Value(binary.BigEndian.Uint32(v[8*i+4:])),
			}
		}
	case !syn:
	case kind == optMSS && len(v) == 2:
		o.MSS = binary.BigEndian.Uint16(v)
	case kind == optWScale && len(v) == 1:
		o.HasWScale = true
		o.WScale = min(v[0], maxWindowScale)
	case kind == optSACKPerm && len(v) == 0:
		o.SACKPermitted = true
	case kind == optFastOpen:
		o.parseFastOpen(v, false)
	case kind == optExperiment && len(v) >= 2 && binary.BigEndian.Uint16(v) == fastOpenMagic:
		o.parseFastOpen(v[2:], true)
	}
}

// Encode writes the options to b and returns how many bytes it used, a
// multiple of four. b must have room for MaxOptionsLen. SACK blocks that do
// not fit are left out. The order is Linux's (net/ipv4/tcp_output.c,
// tcp_options_write): MSS, SACK permitted beside the timestamp, window scale,
// SACK blocks, Fast Open.
func (o *Options) Encode(b []byte) int {
	n := 0
	put := func(v ...byte) { n += copy(b[n:], v) }
	if o.MSS != 0 {
		put(optMSS, 4, byte(o.MSS>>8), byte(o.MSS))
	}
	if o.HasTS {
		if o.SACKPermitted {
			put(optSACKPerm, 2, optTimestamp, 10)
		} else {
			put(optNOP, optNOP, optTimestamp, 10)
		}
		binary.BigEndian.PutUint32(b[n:], o.TSVal)
		binary.BigEndian.PutUint32(b[n+4:], o.TSEcr)
		n += 8
	} else if o.SACKPermitted {
		put(optNOP, optNOP, optSACKPerm, 2)
	}
	if o.HasWScale {
		put(optNOP, optWScale, 3, o.WScale)
	}
	if blocks := min(int(o.NumSACK), (MaxOptionsLen-n-4)/8); blocks > 0 {
		put(optNOP, optNOP, optSACK, byte(2+8*blocks))
		for _, s := range o.SACK[:blocks] {
			binary.BigEndian.PutUint32(b[n:], uint32(s.Start))
			binary.BigEndian.PutUint32(b[n+4:], uint32(s.End))
			n += 8
		}
	}
	if f := o.FastOpen; f != nil && n+f.size() <= MaxOptionsLen {
		n += f.encode(b[n:])
	}
	return n
}

// Len returns how many bytes Encode will use.
func (o *Options) Len() int {
	n := 0
	if o.MSS != 0 {
		n += 4
	}
	if o.HasTS {
		n += 12
	} else if o.SACKPermitted {
		n += 4
	}
	if o.HasWScale {
		n += 4
	}
	if blocks := min(int(o.NumSACK), (MaxOptionsLen-n-4)/8); blocks > 0 {
		n += 4 + 8*blocks
	}
	if f := o.FastOpen; f != nil && n+f.size() <= MaxOptionsLen {
		n += f.size()
	}
	return n
}

// String lists the options in the words of a packet trace, with a space before
// each; it is empty when there are none.
func (o *Options) String() string {
	var b strings.Builder
	if o.MSS != 0 {
		fmt.Fprintf(&b, " mss %d", o.MSS)
	}
	if o.SACKPermitted {
		b.WriteString(" sackOK")
	}
	if o.HasTS {
		fmt.Fprintf(&b, " TS val %d ecr %d", o.TSVal, o.TSEcr)
	}
	if o.HasWScale {
		fmt.Fprintf(&b, " wscale %d", o.WScale)
	}
	if o.FastOpen != nil {
		fmt.Fprintf(&b, " FO %x", o.FastOpen.Cookie)
	}
	for _, s := range o.Blocks() {
		fmt.Fprintf(&b, " sack %d:%d", uint32(s.Start), uint32(s.End))
	}
	return b.String()
}
