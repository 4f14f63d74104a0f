//go:build !unix

package main

import "io"

// terminalWidth gives 0: without a portable way to ask for the width, lines are never cut.
func terminalWidth(io.Writer) int { return 0 }
