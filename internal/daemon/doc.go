// Package daemon is what `ustack run` runs: a stack on a TAP device, the
// services on it, and a control socket by which its connections can be listed
// and frozen; and the client of that socket.
package daemon
