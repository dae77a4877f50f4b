//go:build !killpoints

// Package killpoint is the seam through which tests kill or hold a worker at a chosen line. In a normal build Reach does
// nothing and is inlined away; with the build tag killpoints it obeys the orders in the folder SWITCHBACK_KILLPOINTS.
package killpoint

// Reach marks a line at which a test may kill or hold the process, such as "Raise/middle".
func Reach(string) {}
