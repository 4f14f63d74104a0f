package graph

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"time"

	"eventrelay/server/upstream"
)

const (
	// maxPages and maxItems bound a list, whatever the provider says is still to come.
	maxPages = 100
	maxItems = 10_000

	typeJSON = "application/json"
	typeForm = "application/x-www-form-urlencoded"
)

// A call is one request to the Graph API, for any credentials.
type call struct {
	baseURL string
	method  string
	// object is the id in front, edge what follows it or empty.
	object, edge string
	query        url.Values
	body         []byte
	contentType  string
	// handshake says that Meta calls a callback before it answers.
	handshake bool
	// area is which of Meta's limits the call counts for.
	area area
	// secrets are those that the call carries beside the credentials.
	secrets []upstream.Secret
}

// withJSON puts the value into the body.
func (c call) withJSON(value any) call {
	body, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("body of a call: %v", err)) // only maps and strings get here
	}
	c.body, c.contentType = body, typeJSON
	return c
}

func (c call) withForm(form url.Values) call {
	c.body, c.contentType = []byte(form.Encode()), typeForm
	return c
}

// send makes the call once and decodes the answer into out. Errors are *Error, or wrap ctx's own.
func (c *Client) send(ctx context.Context, cred Credentials, token upstream.Secret, call call, out any) error {
	scopes := scopesOf(cred, token, call)
	if err := c.usage.check(scopes); err != nil {
		return err
	}
	// An app access token is no more than app id and secret, of which the id may be shown.
	secrets := append([]upstream.Secret{cred.AppSecret, cred.AccessToken}, call.secrets...)
	query := url.Values{}
	maps.Copy(query, call.query)
	if !cred.AppSecret.Empty() {
		proof := upstream.NewSecret(appSecretProof(token, cred.AppSecret))
		secrets = append(secrets, proof)
		query.Set("appsecret_proof", proof.Reveal())
	}
	address := call.baseURL + "/" + c.version + "/" + call.object
	if call.edge != "" {
		address += "/" + call.edge
	}
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	header := http.Header{"Authorization": {"Bearer " + token.Reveal()}, "Accept": {typeJSON}}
	if call.contentType != "" {
		header.Set("Content-Type", call.contentType)
	}
	var timeout time.Duration
	if call.handshake {
		timeout = upstream.HandshakeTimeout
	}
	answer, err := c.caller.Once(ctx, upstream.Request{
		Method: call.method, URL: address, Header: header, Body: call.body, Timeout: timeout, Secrets: secrets,
	})
	if failure, ok := errors.AsType[*upstream.Error](err); ok {
		return &Error{Kind: failure.Kind, HTTPStatus: failure.Status, Message: failure.Message}
	}
	if err != nil {
		return err
	}
	pause, unread := c.usage.note(scopes, answer.Header)
	for _, name := range unread {
		c.logger.DebugContext(ctx, "usage header of the Graph API cannot be read", "header", name)
	}
	return decode(answer, out, pause, secrets)
}

// do is send, repeated where that may help.
func (c *Client) do(ctx context.Context, cred Credentials, token upstream.Secret, call call, out any) error {
	return c.caller.Retry(ctx, func(ctx context.Context) error { return c.send(ctx, cred, token, call, out) })
}

// sender is send or do.
type sender func(ctx context.Context, cred Credentials, token upstream.Secret, call call, out any) error

// change makes a call that is answered by whether it succeeded.
func change(ctx context.Context, send sender, cred Credentials, token upstream.Secret, call call) error {
	var done struct {
		Success *flag `json:"success"`
	}
	if err := send(ctx, cred, token, call, &done); err != nil {
		return err
	}
	if done.Success == nil {
		return &Error{Kind: upstream.Unknown, HTTPStatus: http.StatusOK, Message: "the answer does not say whether the call succeeded"}
	}
	if !*done.Success {
		return &Error{Kind: upstream.Unknown, HTTPStatus: http.StatusOK, Message: "the answer says that the call did not succeed, and not why"}
	}
	return nil
}

// page is one page of a list.
type page[T any] struct {
	Data   []T `json:"data"`
	Paging struct {
		Cursors struct {
			After word `json:"after"`
		} `json:"cursors"`
		Next string `json:"next"`
	} `json:"paging"`
}

// after returns the cursor of the page that follows, "" on the last. Of the provider's link only that is used.
func (p page[T]) after() (string, error) {
	if p.Paging.Next == "" {
		return "", nil
	}
	if p.Paging.Cursors.After != "" {
		return string(p.Paging.Cursors.After), nil
	}
	if next, err := url.Parse(p.Paging.Next); err == nil {
		if after := next.Query().Get("after"); after != "" {
			return after, nil
		}
	}
	return "", &Error{Kind: upstream.Unknown, HTTPStatus: http.StatusOK, Message: "the list goes on, but the answer has no cursor to go on from"}
}

// list makes the call for each page there is; a page may be empty and yet have another behind it.
func list[T any](ctx context.Context, send sender, cred Credentials, token upstream.Secret, call call) ([]T, error) {
	var items []T
	seen := map[string]bool{}
	first := call.query
	for range maxPages {
		var got page[T]
		if err := send(ctx, cred, token, call, &got); err != nil {
			return nil, err
		}
		items = append(items, got.Data...)
		after, err := got.after()
		switch {
		case err != nil:
			return nil, err
		case after == "":
			return items, nil
		case seen[after]:
			return nil, &Error{Kind: upstream.Unknown, HTTPStatus: http.StatusOK, Message: "the list goes round in a circle: a cursor came back"}
		case len(items) > maxItems:
			return nil, &Error{Kind: upstream.Unknown, HTTPStatus: http.StatusOK, Message: fmt.Sprintf("the list has more than %d entries", maxItems)}
		}
		seen[after] = true
		call.query = url.Values{"after": {after}}
		maps.Copy(call.query, first)
	}
	return nil, &Error{Kind: upstream.Unknown, HTTPStatus: http.StatusOK, Message: fmt.Sprintf("the list has more than %d pages", maxPages)}
}

// appSecretProof shows that who has the token also has the app secret.
func appSecretProof(token, appSecret upstream.Secret) string {
	mac := hmac.New(sha256.New, []byte(appSecret.Reveal()))
	mac.Write([]byte(token.Reveal()))
	return hex.EncodeToString(mac.Sum(nil))
}
