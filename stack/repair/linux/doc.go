// Package linux makes a TCP socket of the Linux kernel a repair.Socket, by way
// of TCP_REPAIR, so that connections move between kernels, and between a kernel
// and a user-space stack, by the same steps.
//
// A kernel goes on taking and acknowledging what arrives at a socket in repair
// mode, and bytes acknowledged after they could have been read out are lost. So
// a socket is given a filter that drops everything before it is frozen, and
// loses it when it is thawed; no firewall rule is needed.
//
// Freezing takes CAP_NET_ADMIN in the user namespace that owns the socket's
// network namespace, or a helper that has it (Factory.Helper). Restoring a
// connection that the peer has half closed takes CAP_NET_RAW there as well.
//
// Everything but this comment is for Linux only.
package linux
