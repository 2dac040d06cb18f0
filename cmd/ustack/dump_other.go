//go:build !linux

package main

import "context"

// dumpKernel dumps a socket of another process's.
func (*dumpCmd) dumpKernel(context.Context, streams) error {
	return usage("--pid and --fd are for Linux")
}
