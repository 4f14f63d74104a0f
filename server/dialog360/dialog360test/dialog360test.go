// Package dialog360test is a stand-in for the part of 360dialog's APIs that package dialog360 calls: the hub and the channels, on one address. It keeps the settings,
// takes each key in its own place only, and words its errors as 360dialog does: the hub with `meta`, the channels with `error`.
package dialog360test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"

	"eventrelay/server/upstream/upstreamtest"
)

// A Server is the stand-in. It is safe for concurrent use.
type Server struct {
	*upstreamtest.Front
	// URL is where it listens, empty for one made by New.
	URL      string
	listener *httptest.Server

	// mu guards the fields below it.
	mu       sync.Mutex
	partners map[string]*partner
	channels map[string]*channel // by key
	wabas    map[string]Setting
}

type partner struct{ key, webhookURL string }

type channel struct {
	waba string
	own  *Setting
}

// A Setting is where webhooks go, with the headers that go along.
type Setting struct {
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
}

// New returns a stand-in without a listener, to be used as an http.Handler.
func New() *Server {
	s := &Server{partners: map[string]*partner{}, channels: map[string]*channel{}, wabas: map[string]Setting{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v2/partners/{id}/webhook_url", s.partnerWebhook)
	mux.HandleFunc("/v1/configs/webhook", s.channelWebhook)
	mux.HandleFunc("POST /waba_webhook", s.wabaWebhook)
	s.Front = upstreamtest.NewFront(mux)
	return s
}

// NewServer returns a stand-in that listens on a loopback port until Close.
func NewServer() *Server {
	s := New()
	s.listener = httptest.NewServer(s)
	s.URL = s.listener.URL
	return s
}

// Close stops listening.
func (s *Server) Close() {
	if s.listener != nil {
		s.listener.Close()
	}
}

// AddPartner makes a partner account known.
func (s *Server) AddPartner(id, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partners[id] = &partner{key: key}
}

// AddChannel makes a number known by its key, as one of a WhatsApp Business account.
func (s *Server) AddChannel(key, waba string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels[key] = &channel{waba: waba}
}

// PartnerWebhook returns where the events of a partner go.
func (s *Server) PartnerWebhook(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.partners[id].webhookURL
}

// Effective returns where the webhooks of the number with that key go: its own setting before that of its account.
func (s *Server) Effective(key string) Setting {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own := s.channels[key].own; own != nil {
		return *own
	}
	return s.wabas[s.channels[key].waba]
}

func (s *Server) partnerWebhook(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.partners[r.PathValue("id")]
	switch {
	case r.Header.Get("X-Api-Key") == "":
		write(w, 401, meta(401, "Authentication required"))
		return
	case p == nil:
		write(w, 404, meta(404, "Partner not found"))
		return
	case p.key != r.Header.Get("X-Api-Key"):
		write(w, 403, meta(403, "Forbidden"))
		return
	}
	switch r.Method {
	case http.MethodGet:
		write(w, 200, map[string]any{"webhook_url": p.webhookURL})
	case http.MethodPost:
		var in struct {
			WebhookURL string `json:"webhook_url"`
		}
		if json.NewDecoder(r.Body).Decode(&in) != nil || in.WebhookURL == "" {
			write(w, 400, meta(400, "Wrong payload"))
			return
		}
		p.webhookURL = in.WebhookURL
		write(w, 200, map[string]any{"id": r.PathValue("id"), "brand_name": "Agency", "webhook_url": p.webhookURL, "payment_required": false})
	default:
		write(w, 405, meta(405, "Method not allowed"))
	}
}

// meta is an error of the hub.
func meta(status int, message string) any {
	return map[string]any{"meta": map[string]any{"success": false, "http_code": status, "developer_message": message, "details": []string{}}}
}

func (s *Server) channelWebhook(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channel(w, r)
	switch {
	case c == nil:
	case r.Method == http.MethodGet:
		if c.own == nil {
			write(w, 200, Setting{Headers: map[string]string{}})
			return
		}
		write(w, 200, c.own)
	case r.Method == http.MethodPost:
		var in Setting
		if !take(w, r, &in, &in) {
			return
		}
		c.own = &in
		write(w, 200, in)
	default:
		write(w, 405, map[string]any{"error": "Method not allowed"})
	}
}

func (s *Server) wabaWebhook(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channel(w, r)
	if c == nil {
		return
	}
	var in struct {
		Setting
		OverrideAll bool `json:"override_all"`
	}
	if !take(w, r, &in, &in.Setting) {
		return
	}
	s.wabas[c.waba] = in.Setting
	if in.OverrideAll {
		for _, other := range s.channels {
			if other.waba == c.waba {
				other.own = nil
			}
		}
	}
	write(w, 200, in)
}

// channel finds who asks, or refuses. The caller holds mu.
func (s *Server) channel(w http.ResponseWriter, r *http.Request) *channel {
	key := r.Header.Get("D360-Api-Key")
	c := s.channels[key]
	if c == nil {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte("Invalid API key " + key + "\n"))
	}
	return c
}

// take reads a setting and holds it to the documented rules.
func take(w http.ResponseWriter, r *http.Request, in any, setting *Setting) bool {
	if err := json.NewDecoder(r.Body).Decode(in); err != nil {
		write(w, 400, map[string]any{"error": "Wrong payload"})
		return false
	}
	address, err := url.Parse(setting.URL)
	if err != nil || address.Scheme != "https" || address.Port() != "" || strings.Contains(address.Host, "_") {
		write(w, 400, map[string]any{"error": "Invalid webhook url"})
		return false
	}
	return true
}

func write(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		panic(err) // a fault of this stand-in
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
