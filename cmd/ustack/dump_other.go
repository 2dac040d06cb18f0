//go:build !linux

package main

// dumpKernel dumps a socket of another process's.
func (*dumpCmd) dumpKernel(streams) error { return usage("--pid and --fd are for Linux") }
