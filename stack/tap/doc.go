// Package tap is a link endpoint for gVisor's netstack on a Linux TAP device,
// with the device's virtio-net header offloads in both directions.
//
// With the offloads granted, one TCP packet of up to 64 KiB crosses the device
// in one system call and nobody computes a checksum over its payload: the
// endpoint tells the kernel where the checksum belongs and into what pieces
// the packet may be cut (stack.GSOEndpoint, host GSO), and takes the kernel's
// word for packets that never left the machine. Where the kernel grants none
// of this the endpoint carries plain frames, and the stack computes and
// verifies every checksum itself. [Endpoint.Offload] says which it is.
//
// The endpoint frames Ethernet itself, so it is attached to a stack as it is,
// without gVisor's ethernet wrapper. Frames go out from views to writev
// without being flattened, and come in through pooled views without being
// copied, tiny ones excepted.
//
// The package exists on Linux only.
package tap
