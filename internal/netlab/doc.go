// Package netlab makes real networks to test against: anonymous network
// namespaces, TAP and veth devices, and a wire between two devices that loses,
// delays and damages what passes. It needs root, or a kernel that lets anyone
// make a user namespace (Main and Enter take care of that), and leaves nothing
// behind: everything it makes lives by file descriptors and goes with them.
//
// It works on Linux only; on other systems the package is empty.
package netlab
