//go:build !race

package journal

// byteStride: the tests of damage take every byte.
const byteStride = 1
