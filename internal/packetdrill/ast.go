package packetdrill

import "time"

// Script is a script that has been read.
type Script struct {
	Path    string
	Options []Option
	Events  []Event
	// Init and Cleanup are the commands before and after the events, which
	// have no time. Nil if there is none.
	Init, Cleanup *Command
}

// Option is one --name=value line at the head of a script. The value is empty
// if there is none.
type Option struct {
	Line        int
	Name, Value string
}

// Event is something that happens at a time.
type Event struct {
	Line   int
	Text   string // as written, on one line
	When   When
	Action Action
}

// When says when an event happens.
type When struct {
	// Relative times count from the event before.
	Relative bool
	// Any accepts every time. It is for packets from the stack only.
	Any bool
	// From and To are the same unless a range was given.
	From, To time.Duration
}

// Action is a *Packet, *Syscall, *Command or *Snippet.
type Action interface{ isAction() }

func (*Packet) isAction()  {}
func (*Syscall) isAction() {}
func (*Command) isAction() {}
func (*Snippet) isAction() {}

// Command is a text in backquotes.
type Command struct {
	Line int
	Text string
}

// Snippet is a text between %{ and }%.
type Snippet struct {
	Line int
	Text string
}

// Packet is a packet to or from the stack. One of TCP and ICMP is set.
type Packet struct {
	Line     int
	Outbound bool // from the stack
	IP       IPInfo
	// SrcPort and DstPort are zero unless the script names them.
	SrcPort, DstPort uint16
	TCP              *TCPSpec
	ICMP             *ICMPSpec
}

// ECNCheck says what of the TOS byte a packet must have.
type ECNCheck int

// What a script may say about the TOS byte.
const (
	TOSAny   ECNCheck = iota // nothing
	TOSECN                   // the two ECN bits are TOS
	TOSECT01                 // the two ECN bits are ECT(0) or ECT(1)
	TOSWhole                 // the byte is TOS
)

// IPInfo is what a script says about the IP header.
type IPInfo struct {
	Check     ECNCheck
	TOS       uint8
	TTL       int // -1: not said
	FlowLabel int // -1: not said
}

// Flags are TCP's flags, as in the header.
type Flags uint16

// The flags, with the letter that stands for each in a script.
const (
	FIN Flags = 1 << iota // F
	SYN                   // S
	RST                   // R
	PSH                   // P
	ACK                   // .
	URG                   // U
	ECE                   // E
	CWR                   // W
	AE                    // A (RFC 9768)
)

// TCPSpec is a TCP segment as a script writes it. On a packet to the stack
// everything is meant to be sent so; on one from the stack it is expected.
type TCPSpec struct {
	Flags      Flags
	Seq, End   uint32
	Len        int  // payload
	AnySeq     bool // ...: Seq is not said
	Absolute   bool // !: Seq is the number on the wire, whatever came before
	Ack        uint32
	HasAck     bool
	Win        int // the header's field, unscaled; -1: not said
	Urg        uint16
	Options    []TCPOption
	AnyOptions bool // <...>
}

// OptionKind is the kind byte of a TCP option.
type OptionKind uint8

// The options that scripts know.
const (
	OptEOL       OptionKind = 0
	OptNOP       OptionKind = 1
	OptMSS       OptionKind = 2
	OptWScale    OptionKind = 3
	OptSACKOK    OptionKind = 4
	OptSACK      OptionKind = 5
	OptTimestamp OptionKind = 8
	OptFastOpen  OptionKind = 34
	OptExp       OptionKind = 254 // Fast Open before it had a number of its own
)

// TCPOption is one TCP option.
type TCPOption struct {
	Kind   OptionKind
	MSS    uint16
	WScale uint8
	Val    uint32
	Ecr    uint32
	Blocks [][2]uint32 // SACK
	Cookie []byte      // Fast Open
	Raw    []byte      // what an option of another kind holds
}

// ICMPSpec is an ICMP message as a script writes it.
type ICMPSpec struct {
	Type, Code string
	MTU        int // -1: not said
	// The segment that the message is about. Len is the payload that its IP
	// header claims.
	HasEcho  bool
	Seq, End uint32
	Len      int
}

// Syscall is a system call and what must come of it.
type Syscall struct {
	Line int
	Name string
	Args []Expr
	// Blocking says that the call returns at End, which is counted as the
	// event's time is.
	Blocking bool
	End      time.Duration
	Result   Expr
	Errno    string // empty: not said
}

// Expr is an argument or a result of a system call: Ellipsis, Int, Word, Str,
// Or, Array, Struct or Call.
type Expr interface{ isExpr() }

type (
	// Ellipsis is "...": whatever is usual.
	Ellipsis struct{}
	// Int is a number.
	Int struct{ V int64 }
	// Word is a name of a constant.
	Word struct{ Name string }
	// Str is a string in quotes, unquoted.
	Str struct{ V string }
	// Or is L | R.
	Or struct{ L, R Expr }
	// Array is [a, b].
	Array struct{ Elems []Expr }
	// Struct is {a=x, b(n)=y, z}.
	Struct struct{ Fields []Field }
	// Call is htons(1) or inet_addr("...").
	Call struct {
		Fn   string
		Args []Expr
	}
)

// Field is one member of a Struct. The name is empty if there is none, the
// argument nil.
type Field struct {
	Name string
	Arg  Expr
	V    Expr
}

func (Ellipsis) isExpr() {}
func (Int) isExpr()      {}
func (Word) isExpr()     {}
func (Str) isExpr()      {}
func (Or) isExpr()       {}
func (Array) isExpr()    {}
func (Struct) isExpr()   {}
func (Call) isExpr()     {}

// Field returns the value of the named member, or nil.
func (s Struct) Field(name string) Expr {
	for _, f := range s.Fields {
		if f.Name == name {
			return f.V
		}
	}
	return nil
}
