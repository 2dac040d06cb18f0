// Package netsim is a network in virtual time: hosts, each a whole stack, on
// links that are slow, long, full, lossy, out of order or down. Everything
// that happens follows from one seed, so a run is the same every time, byte
// for byte, and a minute of traffic takes a fraction of a second.
//
// It does so for stacks that work only when they are called, as those with our
// TCP do. One with goroutines of its own can take part as well, if the caller
// says how to tell that they have come to rest; see Net.Rest.
package netsim
