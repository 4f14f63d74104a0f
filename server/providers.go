package main

import (
	"fmt"
	"log/slog"

	"eventrelay/server/connection"
	"eventrelay/server/dialog360"
	"eventrelay/server/graph"
)

// openProviders makes the clients of the providers' APIs. Nothing is called before somebody asks for it.
func openProviders(c config, logger *slog.Logger) (connection.Providers, error) {
	options := graph.Options{BaseURL: c.GraphURL, Version: c.GraphVersion, Logger: logger.With("room", "graph")}
	if c.GraphURL == graph.DefaultBaseURL {
		options.BaseURL = "" // so that accounts of Instagram are found where they are
	}
	meta, err := graph.New(options)
	if err != nil {
		return connection.Providers{}, fmt.Errorf("--graph-url, --graph-version: %w", err)
	}
	partner, err := dialog360.New(dialog360.Options{HubURL: c.Dialog360HubURL, WABAURL: c.Dialog360WABAURL, Logger: logger.With("room", "dialog360")})
	if err != nil {
		return connection.Providers{}, fmt.Errorf("--dialog360-hub-url, --dialog360-waba-url: %w", err)
	}
	return connection.Providers{Graph: meta, Dialog360: partner}, nil
}
