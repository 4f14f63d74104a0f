package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"

	"eventrelay/client"
)

// connection is the flags of every command that speaks to the server.
type connection struct {
	Server    string `default:"127.0.0.1:9090" help:"Address of the server's gRPC port."`
	Token     string `placeholder:"TOKEN" help:"Bearer token to show. Better given as EVENTRELAY_TOKEN: the command line is visible to others on this machine."`
	TokenFile string `type:"existingfile" placeholder:"FILE" help:"Show the token that stands in this file."`
	TLS       bool   `name:"tls" help:"Speak TLS and trust the system's certificate authorities."`
	CAFile    string `name:"ca-file" type:"existingfile" placeholder:"FILE" help:"Speak TLS and trust the certificate authorities of this PEM file instead."`
	Insecure  bool   `help:"Allow plain text to a server that is not on this machine; everything is readable on the way, the token too."`
}

// dial prepares a client as the flags say.
func (c *connection) dial() (*client.Client, error) {
	var options []client.Option
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	if token != "" {
		options = append(options, client.WithToken(token))
	}
	if c.TLS || c.CAFile != "" {
		if c.Insecure {
			return nil, usagef("--insecure contradicts --tls and --ca-file: give one or the other")
		}
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if c.CAFile != "" {
			pem, err := os.ReadFile(c.CAFile)
			if err != nil {
				return nil, usagef("--ca-file: %w", err)
			}
			if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(pem) {
				return nil, usagef("--ca-file %s: no certificate in it; give a PEM file", c.CAFile)
			}
		}
		options = append(options, client.WithTLS(config))
	}
	if c.Insecure {
		options = append(options, client.WithInsecure())
	}
	dialed, err := client.Dial(c.Server, options...)
	switch {
	case errors.Is(err, client.ErrPlaintext):
		return nil, usagef("--server %s is not on this machine: add --tls (or --ca-file FILE), or --insecure to send everything in plain text", c.Server)
	case err != nil:
		return nil, usagef("--server, --token, --token-file: %w", err)
	}
	return dialed, nil
}

// token is the token to show, if any.
func (c *connection) token() (string, error) {
	if c.TokenFile == "" {
		return c.Token, nil
	}
	if c.Token != "" {
		return "", usagef("--token (or EVENTRELAY_TOKEN) and --token-file are both given: give one")
	}
	content, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return "", usagef("--token-file: %w", err)
	}
	token := strings.TrimSpace(string(content))
	if token == "" {
		return "", usagef("--token-file %s: there is nothing in it", c.TokenFile)
	}
	return token, nil
}
