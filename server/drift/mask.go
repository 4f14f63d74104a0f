package drift

import "strings"

const (
	// masked stands for what does not look like a word of a provider's vocabulary.
	masked = "*"
	// maxWord is how long a word may be to be shown.
	maxWord = 64
	// maxDigits is how many digits a word may have in a row: years and versions have four, phone numbers and ids more.
	maxDigits = 4
)

// maskWord returns a word if it looks like one of a vocabulary: letters, a few digits, `_`, `-`. Providers name things so; people, numbers and addresses look different.
func maskWord(word string) string {
	if word == "" || len(word) > maxWord {
		return masked
	}
	digits := 0
	for _, r := range word {
		switch {
		case r >= '0' && r <= '9':
			if digits++; digits > maxDigits {
				return masked
			}
			continue
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '_', r == '-':
		default:
			return masked
		}
		digits = 0
	}
	return word
}

// maskPath masks the segments of a path, or the words of a type, one by one. `...`, which stands for more paths than an event lists, stays.
func maskPath(path string) string {
	if path == "" || path == "..." {
		return path
	}
	segments := strings.Split(path, ".")
	for i, segment := range segments {
		name := strings.TrimRight(segment, "[]")
		segments[i] = maskWord(name) + segment[len(name):]
	}
	return strings.Join(segments, ".")
}
