package graph

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"eventrelay/server/upstream"
)

// An AppSubscription is what an app hears of one kind of object, and where.
type AppSubscription struct {
	// Object is a word such as page, user or whatsapp_business_account.
	Object      string
	CallbackURL string
	Active      bool
	Fields      []AppField
}

// An AppField is a subscribed field. Version is that of its payloads, empty where Meta does not say.
type AppField struct {
	Name, Version string
}

// UnmarshalJSON takes a field as an object, and as the bare name of old answers.
func (f *AppField) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &f.Name)
	}
	var fields struct {
		Name    string `json:"name"`
		Version word   `json:"version"`
	}
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	f.Name, f.Version = fields.Name, string(fields.Version)
	return nil
}

// ListAppSubscriptions returns the subscriptions of the app. It is called with an app access token, made of AppID and AppSecret, as are all calls about them.
func (c *Client) ListAppSubscriptions(ctx context.Context, cred Credentials) ([]AppSubscription, error) {
	subscriptions, err := c.listApp(ctx, cred)
	if err != nil {
		return nil, fmt.Errorf("list subscriptions of app %.80s: %w", cred.AppID, err)
	}
	return subscriptions, nil
}

func (c *Client) listApp(ctx context.Context, cred Credentials) ([]AppSubscription, error) {
	call, token, err := c.app(cred, http.MethodGet)
	if err != nil {
		return nil, err
	}
	type entry struct {
		Object      string     `json:"object"`
		CallbackURL string     `json:"callback_url"`
		Active      flag       `json:"active"`
		Fields      []AppField `json:"fields"`
	}
	entries, err := list[entry](ctx, c.do, cred, token, call)
	if err != nil {
		return nil, err
	}
	subscriptions := make([]AppSubscription, len(entries))
	for i, e := range entries {
		subscriptions[i] = AppSubscription{Object: e.Object, CallbackURL: e.CallbackURL, Active: bool(e.Active), Fields: e.Fields}
	}
	return subscriptions, nil
}

// CreateAppSubscription has Meta report the fields of an object to callbackURL, an https address that it calls with verifyToken before it answers. There is one
// subscription for each object: where there is one already its callback is replaced and the fields are added to its own. With includeValues
// notifications hold the new values, and not only what has changed.
func (c *Client) CreateAppSubscription(ctx context.Context, cred Credentials, object, callbackURL, verifyToken string, fields []string, includeValues bool) error {
	call, token, err := c.app(cred, http.MethodPost)
	if err == nil {
		err = checkObject(object)
	}
	if err == nil {
		err = checkCallback("callback_url", callbackURL, verifyToken, 0)
	}
	if err == nil {
		err = checkFields("fields", fields)
	}
	if err == nil {
		form := url.Values{
			"object": {object}, "callback_url": {callbackURL}, "verify_token": {verifyToken}, "include_values": {strconv.FormatBool(includeValues)},
		}
		if len(fields) > 0 {
			form.Set("fields", strings.Join(fields, ","))
		}
		call = call.withForm(form)
		call.handshake = true
		call.secrets = []upstream.Secret{upstream.NewSecret(verifyToken)}
		err = change(ctx, c.do, cred, token, call)
	}
	if err != nil {
		return fmt.Errorf("subscribe app %.80s to %.80q: %w", cred.AppID, object, err)
	}
	return nil
}

// DeleteAppSubscription ends the subscription to an object, or takes only the fields out of it where there are any. Without an object Meta would end them all,
// so that is refused.
func (c *Client) DeleteAppSubscription(ctx context.Context, cred Credentials, object string, fields []string) error {
	call, token, err := c.app(cred, http.MethodDelete)
	if err == nil {
		err = checkObject(object)
	}
	if err == nil {
		err = checkFields("fields", fields)
	}
	if err == nil {
		call.query = url.Values{"object": {object}}
		if len(fields) > 0 {
			call.query.Set("fields", strings.Join(fields, ","))
		}
		err = change(ctx, c.do, cred, token, call)
	}
	if err != nil {
		return fmt.Errorf("end subscription of app %.80s to %.80q: %w", cred.AppID, object, err)
	}
	return nil
}

// checkObject takes any word, for the list that Meta documents is short of some.
func checkObject(object string) error {
	if strings.TrimSpace(object) != object || object == "" {
		return &upstream.InvalidError{Field: "object", Problem: fmt.Sprintf("%.80q is not a kind of object; name one such as page, user or whatsapp_business_account", object)}
	}
	return nil
}

func (c *Client) app(cred Credentials, method string) (call, upstream.Secret, error) {
	token, err := cred.appToken()
	if err != nil {
		return call{}, upstream.Secret{}, err
	}
	if err := checkID("app_id", cred.AppID); err != nil {
		return call{}, upstream.Secret{}, err
	}
	return call{baseURL: c.baseURL, method: method, object: cred.AppID, edge: "subscriptions", area: areaApp}, token, nil
}
