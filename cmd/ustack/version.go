package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(s streams) error {
	_, err := fmt.Fprintln(s.out, version())
	return err
}

// version says what the program was built from and with.
func version() string {
	version, gvisor := "(unknown)", "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, d := range info.Deps {
			if d.Path == "gvisor.dev/gvisor" {
				gvisor = d.Version
			}
		}
	}
	return fmt.Sprintf("ustack %s %s %s/%s gvisor %s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH, gvisor)
}
