//go:build linux

package main

import "strconv"

// number writes a figure with three digits, or all of a larger one's before
// the point.
func number(v float64) string {
	prec := 0
	switch {
	case v < 10:
		prec = 2
	case v < 100:
		prec = 1
	}
	return strconv.FormatFloat(v, 'f', prec, 64)
}
