// Package interop holds the tests of ustack against the real kernel, over real
// TAP devices in network namespaces that the tests make themselves. It has no
// code of its own.
package interop
