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

// maskWord returns the word of an enum if it looks like one: as maskKey has it, and of one case, as in `in_orbit` or `IN_ORBIT`. A name that strayed there begins with
// a capital.
func maskWord(word string) string {
	if strings.ToLower(word) != word && strings.ToUpper(word) != word {
		return masked
	}
	return maskKey(word)
}

// maskKey returns a key if it looks like a provider's: letters, a few digits, `_`, `-`. Numbers, addresses and names of two words look different.
func maskKey(word string) string {
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
		segments[i] = maskKey(name) + segment[len(name):]
	}
	return strings.Join(segments, ".")
}
