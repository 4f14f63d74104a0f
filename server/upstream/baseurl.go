package upstream

import (
	"errors"
	"net/url"
	"strings"
)

// BaseURL returns the address in front of the paths of an API, without a slash at its end. The error says what is wrong with it.
func BaseURL(text string) (string, error) {
	base, err := url.Parse(text)
	switch {
	case err != nil || base.Hostname() == "" || base.Scheme != "https" && base.Scheme != "http":
		// Without the text, which may hold a password.
		return "", errors.New("it must be an absolute address such as https://api.example")
	case base.User != nil || base.RawQuery != "" || base.ForceQuery || base.Fragment != "":
		return "", errors.New("it must not have a user, a query or a fragment; remove them")
	}
	return strings.TrimRight(base.String(), "/"), nil
}
