// Package packetdrill reads and runs scripts of the packetdrill language
// (https://github.com/google/packetdrill/blob/master/syntax.md) against a full
// network stack in virtual time.
//
// A script is a conversation written down: what a program asks of its socket,
// what the peer sends, what the stack must send and when. Parse turns a script
// into an AST; Run plays it against a stack that is made for it alone, with a
// clock of its own, so that a script is over in no time, comes out the same
// every time, and any number of them run side by side.
//
// Packets are built and decoded with gopacket, not with the code that is being
// tested. Nothing in a script is given to a shell: commands in backquotes are
// recognised from a table (see command.go), and code snippets are evaluated by
// a small evaluator of the expressions that scripts use (see snippet.go).
//
// What differs from the original is listed in README.md.
package packetdrill
