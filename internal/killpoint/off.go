//go:build !killpoints

// Package killpoint is the seam through which tests kill a worker at a chosen line. In a normal build Reach does
// nothing and is inlined away; with the build tag killpoints it obeys SWITCHBACK_KILL_AT and SWITCHBACK_KILL_ONCE.
package killpoint

// Reach marks a line at which a test may kill the process, such as "fence/middle".
func Reach(string) {}
