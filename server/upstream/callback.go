package upstream

import (
	"net"
	"net/url"
)

// Callable reports whether an address is one that a provider calls back: an absolute one by https. On this machine http will do, for there it is a stand-in that calls, in a
// test, and has no certificate to ask for.
func Callable(address *url.URL) bool {
	return address.Hostname() != "" && (address.Scheme == "https" || address.Scheme == "http" && Loopback(address))
}

// Loopback reports whether an address is on this machine.
func Loopback(address *url.URL) bool {
	host := address.Hostname()
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
