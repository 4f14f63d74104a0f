package graphtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

var (
	success = map[string]any{"success": true}
	// successWord is how one page of the documentation prints it.
	successWord = map[string]any{"success": "true"}
)

func missing(id, method string) *errorBody {
	return &errorBody{
		Message: fmt.Sprintf("Unsupported %s request. Object with ID '%s' does not exist, cannot be loaded due to missing permissions, or does not support this operation", strings.ToLower(method), id),
		Type:    "GraphMethodException", Code: 100, Subcode: 33,
	}
}

func required(name string) *errorBody {
	return &errorBody{Message: fmt.Sprintf("(#100) The parameter %s is required.", name), Type: "OAuthException", Code: 100}
}

// subscribedApps serves /<id>/subscribed_apps of a WhatsApp Business account, a page or an Instagram account.
func (s *Server) subscribedApps(ask asked) (any, *errorBody) {
	s.mu.Lock()
	waba, page := s.wabas[ask.id], s.pages[ask.id]
	s.mu.Unlock()
	switch {
	case waba != nil:
		if ask.token.kind != UserToken {
			return nil, &errorBody{Message: "(#200) You do not have the necessary permissions required to access this account.", Type: "OAuthException", Code: 200}
		}
		return s.wabaApps(ask, waba)
	case page != nil:
		if want := map[bool]string{true: InstagramToken, false: PageToken}[page.instagram]; ask.token.kind != want {
			return nil, &errorBody{Message: "(#210) A " + want + " access token is required to request this resource.", Type: "OAuthException", Code: 210}
		}
		return s.pageApps(ask, page)
	}
	return nil, missing(ask.id, ask.method)
}

func (s *Server) wabaApps(ask asked, waba *account) (any, *errorBody) {
	uri, verifyToken := ask.values.Get("override_callback_uri"), ask.values.Get("verify_token")
	if ask.method == http.MethodPost && (uri != "" || verifyToken != "") {
		if failed := s.checkOverride(uri, verifyToken); failed != nil {
			return nil, failed
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch ask.method {
	case http.MethodGet:
		list := []any{}
		for _, sub := range waba.apps {
			entry := map[string]any{"whatsapp_business_api_data": s.describe(sub.app)}
			if sub.override != "" {
				entry["override_callback_uri"] = sub.override
			}
			list = append(list, entry)
		}
		return list, nil
	case http.MethodPost:
		waba.subscribe(ask.app.id).override = uri // without one: cleared
		return success, nil
	}
	waba.unsubscribe(ask.app.id)
	return success, nil
}

func (s *Server) pageApps(ask asked, page *account) (any, *errorBody) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch ask.method {
	case http.MethodGet:
		list := []any{}
		for _, sub := range page.apps {
			entry := s.describe(sub.app)
			entry["category"], entry["subscribed_fields"] = "Business", sub.fields
			list = append(list, entry)
		}
		return list, nil
	case http.MethodPost:
		fields := splitFields(ask.values.Get("subscribed_fields"))
		if len(fields) == 0 {
			return nil, required("subscribed_fields")
		}
		page.subscribe(ask.app.id).fields = fields
		return success, nil
	}
	page.unsubscribe(ask.app.id)
	return success, nil
}

// describe is an app as lists show it. The caller holds mu.
func (s *Server) describe(id string) map[string]any {
	return map[string]any{"link": "https://www.facebook.com/games/?app_id=" + id, "name": s.apps[id].name, "id": id}
}

func (a *account) subscribe(app string) *subscriber {
	for _, sub := range a.apps {
		if sub.app == app {
			return sub
		}
	}
	sub := &subscriber{app: app}
	a.apps = append(a.apps, sub)
	return sub
}

func (a *account) unsubscribe(app string) {
	a.apps = slices.DeleteFunc(a.apps, func(sub *subscriber) bool { return sub.app == app })
}

// phoneNumber serves /<phone number id>.
func (s *Server) phoneNumber(ask asked) (any, *errorBody) {
	s.mu.Lock()
	number := s.phones[ask.id]
	s.mu.Unlock()
	if number == nil {
		return nil, missing(ask.id, ask.method)
	}
	if ask.token.kind != UserToken {
		return nil, &errorBody{Message: "(#200) You do not have the necessary permissions required to access this account.", Type: "OAuthException", Code: 200}
	}
	switch ask.method {
	case http.MethodGet:
		return s.phoneConfiguration(ask, number), nil
	case http.MethodPost:
		configuration, ok := ask.object["webhook_configuration"].(map[string]any)
		if !ok {
			return nil, required("webhook_configuration")
		}
		uri, _ := configuration["override_callback_uri"].(string)
		verifyToken, _ := configuration["verify_token"].(string)
		if uri != "" {
			if failed := s.checkOverride(uri, verifyToken); failed != nil {
				return nil, failed
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		number.overrides[ask.app.id] = uri
		return success, nil
	}
	return nil, missing(ask.id, ask.method)
}

func (s *Server) phoneConfiguration(ask asked, number *phone) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := map[string]any{"id": ask.id}
	if ask.values.Get("fields") != "webhook_configuration" {
		return answer
	}
	configuration := map[string]any{}
	if uri := number.overrides[ask.app.id]; uri != "" {
		configuration["phone_number"] = uri
	}
	for _, sub := range s.wabas[number.waba].apps {
		if sub.app == ask.app.id && sub.override != "" {
			configuration["whatsapp_business_account"] = sub.override
		}
	}
	if sub := ask.app.subscriptions["whatsapp_business_account"]; sub != nil {
		configuration["application"] = sub.callbackURL
	}
	answer["webhook_configuration"] = configuration
	return answer
}

// subscriptions serves /<app id>/subscriptions.
func (s *Server) subscriptions(ask asked) (any, *errorBody) {
	if ask.token.kind != AppToken {
		return nil, &errorBody{Message: "(#15) This method must be called with an app access_token.", Type: "OAuthException", Code: 15}
	}
	if ask.id != ask.app.id {
		return nil, missing(ask.id, ask.method)
	}
	object, fields := ask.values.Get("object"), splitFields(ask.values.Get("fields"))
	callbackURL, verifyToken := ask.values.Get("callback_url"), ask.values.Get("verify_token")
	if ask.method == http.MethodPost {
		for _, p := range [][2]string{{"object", object}, {"callback_url", callbackURL}, {"verify_token", verifyToken}} {
			if p[1] == "" {
				return nil, required(p[0])
			}
		}
		if failed := s.handshake(callbackURL, verifyToken); failed != nil {
			return nil, failed
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch ask.method {
	case http.MethodGet:
		return listSubscriptions(ask.app), nil
	case http.MethodPost:
		sub := ask.app.subscriptions[object]
		if sub == nil {
			sub = &subscription{}
			ask.app.subscriptions[object] = sub
		}
		sub.callbackURL, sub.values = callbackURL, ask.values.Get("include_values") == "true"
		for _, field := range fields {
			if !slices.Contains(sub.fields, field) {
				sub.fields = append(sub.fields, field)
			}
		}
		return successWord, nil
	}
	switch {
	case object == "":
		clear(ask.app.subscriptions)
	case len(fields) == 0:
		delete(ask.app.subscriptions, object)
	case ask.app.subscriptions[object] != nil:
		sub := ask.app.subscriptions[object]
		sub.fields = slices.DeleteFunc(sub.fields, func(field string) bool { return slices.Contains(fields, field) })
	}
	return successWord, nil
}

func listSubscriptions(a *app) []any {
	objects := make([]string, 0, len(a.subscriptions))
	for object := range a.subscriptions {
		objects = append(objects, object)
	}
	slices.Sort(objects)
	list := []any{}
	for _, object := range objects {
		sub := a.subscriptions[object]
		fields := []any{}
		for i, field := range sub.fields {
			if i%2 == 1 { // as very old answers have it
				fields = append(fields, field)
				continue
			}
			fields = append(fields, map[string]any{"name": field, "version": "v24.0"})
		}
		list = append(list, map[string]any{"object": object, "callback_url": sub.callbackURL, "active": true, "fields": fields})
	}
	return list
}

func splitFields(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

func (s *Server) checkOverride(uri, verifyToken string) *errorBody {
	switch {
	case uri == "":
		return required("override_callback_uri")
	case verifyToken == "":
		return required("verify_token")
	case len(uri) > 200:
		return &errorBody{Message: "(#100) Param override_callback_uri must be at most 200 characters long.", Type: "OAuthException", Code: 100}
	}
	return s.handshake(uri, verifyToken)
}

// handshake calls the callback as Meta does before it takes one: it must give the challenge back.
func (s *Server) handshake(callback, verifyToken string) *errorBody {
	failed := func(reason string) *errorBody {
		return &errorBody{Message: "(#2200) Callback verification failed with the following errors: " + reason, Type: "OAuthException", Code: 2200}
	}
	address, err := url.Parse(callback)
	if err != nil || address.Host == "" {
		return failed("The URL is malformed")
	}
	if ip := net.ParseIP(address.Hostname()); s.opts.PlainLoopback && (address.Hostname() == "localhost" || ip.IsLoopback()) {
		address.Scheme = "http"
	} else if address.Scheme != "https" {
		return failed("The callback must be https")
	}
	number, err := rand.Int(rand.Reader, big.NewInt(1_000_000_000))
	if err != nil {
		return failed(err.Error())
	}
	challenge := number.String()
	query := address.Query()
	query.Set("hub.mode", "subscribe")
	query.Set("hub.challenge", challenge)
	query.Set("hub.verify_token", verifyToken)
	address.RawQuery = query.Encode()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return failed("The URL is malformed")
	}
	resp, err := s.opts.Callbacks.Do(r)
	if err != nil {
		return failed("The URL couldn't be reached: " + err.Error()) // with the verify token in it
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if resp.StatusCode != http.StatusOK {
		return failed(fmt.Sprintf("HTTP Status Code = %d; HTTP Message = %s", resp.StatusCode, http.StatusText(resp.StatusCode)))
	}
	if string(body) != challenge {
		return failed("The challenge was not given back")
	}
	return nil
}
