package upstream

import (
	"net/url"
	"testing"
)

func TestOnlyHTTPSIsCalledBackButForThisMachine(t *testing.T) {
	for address, want := range map[string]bool{
		"https://hooks.example.com/x": true, "https://127.0.0.1:8080": true, "http://127.0.0.1:8080/x": true, "http://localhost": true, "http://[::1]:1/": true,
		"http://hooks.example.com": false, "http://127.0.0.1.example.com": false, "http://localhost.example.com": false, "http://10.0.0.1": false,
		"ftp://127.0.0.1": false, "https://": false, "https:///x": false, "/x": false, "127.0.0.1:8080": false, "": false,
	} {
		parsed, err := url.Parse(address)
		if got := err == nil && Callable(parsed); got != want {
			t.Errorf("%q: %t, want %t", address, got, want)
		}
	}
}
