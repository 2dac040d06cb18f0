package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

type versionCmd struct{}

// Run prints what the program was built from and with.
func (versionCmd) Run(s streams) error {
	version, gvisor := "(unknown)", "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, d := range info.Deps {
			if d.Path == "gvisor.dev/gvisor" {
				gvisor = d.Version
			}
		}
	}
	_, err := fmt.Fprintf(s.out, "ustack %s %s %s/%s gvisor %s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH, gvisor)
	return err
}
