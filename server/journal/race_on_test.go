//go:build race

package journal

// byteStride: under the race detector, which makes an Open five times as slow and finds the
// same whichever byte is damaged, the tests of damage take every seventh byte.
const byteStride = 7
