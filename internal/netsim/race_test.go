//go:build race

package netsim_test

const raceEnabled = true
