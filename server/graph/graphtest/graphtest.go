// Package graphtest is a stand-in for the part of Meta's Graph API that package graph calls. It behaves as the real one is documented to: it keeps
// subscriptions by app, calls callbacks back before it takes them, clears an override on an empty POST, wants the right kind of token in each place, and words its
// errors as Meta does.
package graphtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"eventrelay/server/upstream/upstreamtest"
)

// What an access token belongs to.
const (
	UserToken      = "user" // of a system user
	PageToken      = "page"
	InstagramToken = "instagram"
	AppToken       = "app" // app id and secret; needs no AddToken
)

// Options of a Server. The zero value works.
type Options struct {
	// Callbacks makes the handshake; by default a client with a timeout of five seconds.
	Callbacks *http.Client
	// PlainLoopback has callbacks on a loopback address called by http, whatever their scheme. Meta takes https only, and a test has no certificate.
	PlainLoopback bool
	// PageSize is how many entries a page of a list has, 25 if 0.
	PageSize int
	// EmptyPages puts an empty page before each page of a list, as Meta does when it filters late.
	EmptyPages bool
}

// A Server is the stand-in, with a listener on a loopback port unless it is used as a handler alone. It is safe for concurrent use.
type Server struct {
	*upstreamtest.Front
	// URL is where it listens, empty for one made by New.
	URL string

	opts     Options
	listener *httptest.Server

	// mu guards the fields below it. It is not held during a handshake.
	mu     sync.Mutex
	apps   map[string]*app
	tokens map[string]token
	wabas  map[string]*account
	phones map[string]*phone
	pages  map[string]*account
	traces int
}

type app struct {
	id, secret, name string
	subscriptions    map[string]*subscription // by object
}

type subscription struct {
	callbackURL string
	values      bool
	fields      []string
}

type token struct{ app, kind string }

// account is a WhatsApp Business account, a page or an Instagram account.
type account struct {
	instagram bool
	// apps are the subscribed ones in the order in which they came.
	apps []*subscriber
}

type subscriber struct {
	app      string
	override string
	fields   []string
}

type phone struct {
	waba      string
	overrides map[string]string // by app
}

// New returns a stand-in without a listener, to be used as an http.Handler.
func New(opts Options) *Server {
	if opts.Callbacks == nil {
		opts.Callbacks = &http.Client{Timeout: 5 * time.Second}
	}
	if opts.PageSize == 0 {
		opts.PageSize = 25
	}
	s := &Server{
		opts: opts, apps: map[string]*app{}, tokens: map[string]token{}, wabas: map[string]*account{}, phones: map[string]*phone{}, pages: map[string]*account{},
	}
	s.Front = upstreamtest.NewFront(http.HandlerFunc(s.serve))
	return s
}

// NewServer returns a stand-in that listens on a loopback port until Close.
func NewServer(opts Options) *Server {
	s := New(opts)
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

// AddApp makes an app known.
func (s *Server) AddApp(id, secret, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps[id] = &app{id: id, secret: secret, name: name, subscriptions: map[string]*subscription{}}
}

// AddToken makes an access token of an app known.
func (s *Server) AddToken(text, appID, kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[text] = token{app: appID, kind: kind}
}

// AddWABA makes a WhatsApp Business account known, with its phone numbers.
func (s *Server) AddWABA(id string, phoneNumbers ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wabas[id] = &account{}
	for _, number := range phoneNumbers {
		s.phones[number] = &phone{waba: id, overrides: map[string]string{}}
	}
}

// AddPage makes a page known.
func (s *Server) AddPage(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages[id] = &account{}
}

// AddInstagramAccount makes an Instagram account known.
func (s *Server) AddInstagramAccount(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages[id] = &account{instagram: true}
}

// TokenKind returns the kind of token that a request came with: one of the constants, "none" or "unknown".
func (s *Server) TokenKind(r upstreamtest.Request) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := bearer(r.Header, r.Query)
	if text == "" {
		return "none"
	}
	t, _ := s.lookup(text)
	if t.kind == "" {
		return "unknown"
	}
	return t.kind
}

func bearer(header http.Header, query url.Values) string {
	if text, ok := strings.CutPrefix(header.Get("Authorization"), "Bearer "); ok {
		return text
	}
	return query.Get("access_token")
}

// lookup returns what a token belongs to. The caller holds mu.
func (s *Server) lookup(text string) (token, *app) {
	if id, secret, ok := strings.Cut(text, "|"); ok {
		if a := s.apps[id]; a != nil && a.secret == secret {
			return token{app: id, kind: AppToken}, a
		}
		return token{}, nil
	}
	t := s.tokens[text]
	return t, s.apps[t.app]
}

// An asked is a request as the edges see it.
type asked struct {
	token token
	app   *app
	// text is the token itself, which the real one puts into the links of pages.
	text string
	id   string
	// method and values are what is asked: query, form and JSON alike, for Meta takes parameters in any of them.
	method string
	values url.Values
	object map[string]any
}

var validPath = regexp.MustCompile(`^/(v[1-9][0-9]?\.[0-9])/([A-Za-z0-9_-]+)(/[a-z_]+)?$`)

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	path := validPath.FindStringSubmatch(r.URL.Path)
	if path == nil {
		s.refuse(w, 400, errorBody{Message: "Unknown path components: " + r.URL.Path, Type: "OAuthException", Code: 2500})
		return
	}
	ask, failed := s.authenticate(r)
	if failed != nil {
		s.refuse(w, 400, *failed)
		return
	}
	ask.id, ask.method = path[2], r.Method
	ask.values = r.URL.Query()
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		_ = json.NewDecoder(r.Body).Decode(&ask.object)
		for name, value := range ask.object {
			if text, ok := value.(string); ok {
				ask.values.Set(name, text)
			}
		}
	} else if r.Method == http.MethodPost {
		_ = r.ParseForm()
		maps.Copy(ask.values, r.PostForm)
	}
	var answer any
	switch path[3] {
	case "/subscribed_apps":
		answer, failed = s.subscribedApps(ask)
	case "/subscriptions":
		answer, failed = s.subscriptions(ask)
	case "":
		answer, failed = s.phoneNumber(ask)
	default:
		failed = &errorBody{Message: "(#100) Tried accessing nonexisting field (" + path[3][1:] + ")", Type: "OAuthException", Code: 100}
	}
	if failed != nil {
		s.refuse(w, 400, *failed)
		return
	}
	if list, ok := answer.([]any); ok {
		answer = s.page(r, ask, path[0], list)
	}
	write(w, 200, answer)
}

// authenticate finds out who asks.
func (s *Server) authenticate(r *http.Request) (asked, *errorBody) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := bearer(r.Header, r.URL.Query())
	if text == "" {
		return asked{}, &errorBody{Message: "An access token is required to request this resource.", Type: "OAuthException", Code: 104}
	}
	t, a := s.lookup(text)
	if a == nil {
		// The real one quotes the token in some of its errors.
		return asked{}, &errorBody{Message: "Invalid OAuth access token - Cannot parse access token " + text, Type: "OAuthException", Code: 190, Subcode: 467}
	}
	if proof := r.URL.Query().Get("appsecret_proof"); proof != "" {
		mac := hmac.New(sha256.New, []byte(a.secret))
		mac.Write([]byte(text))
		if proof != hex.EncodeToString(mac.Sum(nil)) {
			return asked{}, &errorBody{Message: "Invalid appsecret_proof provided in the API argument", Type: "GraphMethodException", Code: 100}
		}
	}
	return asked{token: t, app: a, text: text}, nil
}

// page is the part of a list that was asked for, with a link to the next as Meta makes it: the token is in it.
func (s *Server) page(r *http.Request, ask asked, path string, list []any) any {
	start, limit := 0, s.opts.PageSize
	skip := s.opts.EmptyPages
	if after := ask.values.Get("after"); after != "" {
		number, _ := strconv.Atoi(strings.TrimSuffix(after, "e"))
		start, skip = min(max(number, 0), len(list)), s.opts.EmptyPages && !strings.HasSuffix(after, "e")
	}
	end := min(start+limit, len(list))
	after := strconv.Itoa(end)
	if skip {
		end, after = start, strconv.Itoa(start)+"e"
	}
	paging := map[string]any{"cursors": map[string]any{"before": strconv.Itoa(start), "after": after}}
	if end < len(list) {
		next := url.Values{"access_token": {ask.text}, "limit": {strconv.Itoa(limit)}, "after": {after}}
		paging["next"] = "http://" + r.Host + path + "?" + next.Encode()
	}
	return map[string]any{"data": list[start:end], "paging": paging}
}

// An errorBody is an error as Meta writes it.
type errorBody struct {
	Message   string `json:"message"`
	Type      string `json:"type"`
	Code      int    `json:"code"`
	Subcode   int    `json:"error_subcode,omitempty"`
	UserTitle string `json:"error_user_title,omitempty"`
	UserMsg   string `json:"error_user_msg,omitempty"`
	Transient bool   `json:"is_transient,omitempty"`
	TraceID   string `json:"fbtrace_id"`
}

func (s *Server) refuse(w http.ResponseWriter, status int, body errorBody) {
	s.mu.Lock()
	s.traces++
	body.TraceID = fmt.Sprintf("Atrace%06d", s.traces)
	s.mu.Unlock()
	write(w, status, map[string]any{"error": body})
}

func write(w http.ResponseWriter, status int, value any) {
	body := encode(value)
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func encode(value any) []byte {
	body, err := json.Marshal(value)
	if err != nil {
		panic(err) // a fault of this stand-in
	}
	return body
}

// Failed is a Failure in Meta's words, to be given to Fail. Message, type and what else is wanted are up to the test.
func Failed(status, code, subcode int, transient bool, message string) upstreamtest.Failure {
	body := encode(map[string]any{"error": errorBody{
		Message: message, Type: "OAuthException", Code: code, Subcode: subcode, Transient: transient, TraceID: "Afailed",
		UserTitle: "Title for people", UserMsg: "Message for people",
	}})
	return upstreamtest.Failure{Status: status, Body: string(body)}
}
