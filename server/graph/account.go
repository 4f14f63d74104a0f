package graph

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"eventrelay/server/upstream"
)

// An Account is a page or an Instagram account, to which apps subscribe in the same way. Page and InstagramAccount make one.
type Account struct {
	id        string
	instagram bool
}

// Page is the Facebook page with that id. Calls about it go to BaseURL with a page access token that has pages_manage_metadata.
func Page(id string) Account { return Account{id: id} }

// InstagramAccount is an Instagram professional account that logged in to Instagram. Calls about it go to InstagramURL, with the token of an Instagram user; that of
// a page does not work there, which is why the kind of account decides and not the id, which looks the same.
func InstagramAccount(id string) Account { return Account{id: id, instagram: true} }

// String returns the account as errors name it.
func (a Account) String() string {
	if a.instagram {
		return fmt.Sprintf("Instagram account %.80s", a.id)
	}
	return fmt.Sprintf("page %.80s", a.id)
}

// ListSubscribedApps returns the apps subscribed to a page or an Instagram account, with their fields.
func (c *Client) ListSubscribedApps(ctx context.Context, cred Credentials, account Account) ([]SubscribedApp, error) {
	type entry struct {
		ID     word     `json:"id"`
		Name   string   `json:"name"`
		Link   string   `json:"link"`
		Fields []string `json:"subscribed_fields"`
	}
	call, token, err := c.account(cred, account, http.MethodGet)
	var entries []entry
	if err == nil {
		entries, err = list[entry](ctx, c.do, cred, token, call)
	}
	if err != nil {
		return nil, fmt.Errorf("list apps subscribed to %s: %w", account, err)
	}
	apps := make([]SubscribedApp, len(entries))
	for i, e := range entries {
		apps[i] = SubscribedApp{ID: string(e.ID), Name: e.Name, Link: e.Link, Fields: e.Fields}
	}
	return apps, nil
}

// Subscribe subscribes the app of the token to the fields of a page or an Instagram account. There must be one at least.
func (c *Client) Subscribe(ctx context.Context, cred Credentials, account Account, fields []string) error {
	call, token, err := c.account(cred, account, http.MethodPost)
	if err == nil && len(fields) == 0 {
		err = &upstream.InvalidError{Field: "subscribed_fields", Problem: "it is empty; name the fields that the app is to hear of"}
	}
	if err == nil {
		err = checkFields("subscribed_fields", fields)
	}
	if err == nil {
		err = change(ctx, c.do, cred, token, call.withForm(url.Values{"subscribed_fields": {strings.Join(fields, ",")}}))
	}
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", account, err)
	}
	return nil
}

// Unsubscribe ends the subscription of the app of the token to a page or an Instagram account.
func (c *Client) Unsubscribe(ctx context.Context, cred Credentials, account Account) error {
	call, token, err := c.account(cred, account, http.MethodDelete)
	if err == nil {
		err = change(ctx, c.do, cred, token, call)
	}
	if err != nil {
		return fmt.Errorf("unsubscribe from %s: %w", account, err)
	}
	return nil
}

func (c *Client) account(cred Credentials, account Account, method string) (call, upstream.Secret, error) {
	base, field, area := c.baseURL, "page", areaPage
	if account.instagram {
		base, field, area = c.instagramURL, "instagram_account", areaInstagram
	}
	if err := checkID(field, account.id); err != nil {
		return call{}, upstream.Secret{}, err
	}
	token, err := cred.userToken()
	return call{baseURL: base, method: method, object: account.id, edge: "subscribed_apps", area: area}, token, err
}
