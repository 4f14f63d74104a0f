package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"eventrelay/client"
)

const (
	// callTimeout is how long a call may take that the server answers by itself.
	callTimeout = 30 * time.Second
	// longTimeout is how long a call may take that streams, or has the server speak to a provider step by step: a thousand accounts at a third of a second each.
	longTimeout = 5 * time.Minute
)

// call does something with a server, and turns the error it ends with into one that says what to do. A timeout of 0 is none.
func (c *connection) call(ctx context.Context, timeout time.Duration, do func(context.Context, *client.Client) error) error {
	dialed, err := c.dial()
	if err != nil {
		return err
	}
	defer func() { _ = dialed.Close() }()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return c.explain(do(ctx, dialed))
}

// explain says in one line what a server's refusal means and what to do about it. Errors that no server made are left as they are.
func (c *connection) explain(err error) error {
	var answered interface{ GRPCStatus() *status.Status }
	if err == nil || !errors.As(err, &answered) {
		return err
	}
	text, subject := message(err), strings.TrimPrefix(client.Detail(err, "source"), "sources/")
	durable := strings.TrimPrefix(client.Detail(err, "subscription"), "subscriptions/")
	switch client.Reason(err) {
	case "SOURCE_NOT_FOUND":
		return fmt.Errorf("there is no source %q: `eventrelay sources list` shows those there are", subject)
	case "SOURCE_EXISTS":
		return fmt.Errorf("there is a source %q already: change it with `eventrelay sources update %s`, or choose another id", subject, subject)
	case "SOURCE_READ_ONLY":
		return fmt.Errorf("the source %q is defined in a file of the server, or by --dev, so it is changed there and not by calls", subject)
	case "SUBSCRIPTION_NOT_FOUND":
		return fmt.Errorf("there is no subscription %q: `eventrelay subscriptions list` shows those there are", durable)
	case "SUBSCRIPTION_EXISTS":
		return fmt.Errorf("there is a subscription %q already: look at it with `eventrelay subscriptions describe %s`, or choose another id", durable, durable)
	case "DEAD_LETTER_NOT_FOUND":
		return fmt.Errorf("there is no dead letter %q: `eventrelay subscriptions dead-letters %s` shows those there are", client.Detail(err, "id"), durable)
	case "EVENTS_LOST":
		return fmt.Errorf("%s; look at it with `eventrelay subscriptions describe %s`, then `eventrelay subscriptions seek %s --to earliest`, or elsewhere", text, durable, durable)
	case "CURSOR_MALFORMED":
		return usagef("the cursor is none of %s: %s", c.Server, startForms)
	case "CURSOR_FOREIGN":
		return fmt.Errorf("the cursor is of another log than that of %s, or of one that was wiped", c.Server)
	case "CURSOR_EXPIRED":
		return fmt.Errorf("events behind the cursor have been removed by retention; the earliest place is %s", client.Detail(err, "earliest_cursor"))
	case "ETAG_STALE":
		if durable != "" {
			return errors.New("somebody else has changed the subscription since: look at it with `eventrelay subscriptions describe`, then try again, with its new --etag if you give one")
		}
		return errors.New("somebody else has changed the source since: look at it with `eventrelay sources describe`, then try again, with its new --etag if you give one")
	case "CREDENTIALS_MISSING":
		field := client.Detail(err, "field")
		if _, ok := credentialFlags[field]; !ok {
			return errors.New(text) // the source is of a provider that the call is not for, or the field of a newer server
		}
		return fmt.Errorf("%s; set it with `eventrelay sources %s`", text, fmt.Sprintf(credentialFlags[field], subject))
	case "SUBSCRIPTIONS_NOT_DECLARED":
		return fmt.Errorf("the source %q does not say what its provider should have: `eventrelay sources connect %s` with --public-url, and --object or --waba, declares it and sets it up", subject, subject)
	case "OVERRIDE_WOULD_BE_LOST":
		return fmt.Errorf("the account has an override, %s, which Meta would clear: keep it by `meta waba override`, or clear it on purpose by `meta waba clear-override`",
			client.Detail(err, "override_callback_uri"))
	case "FILTER_INVALID":
		return filterFault(err)
	case "INVALID_REQUEST":
		return usageError{errors.New(violations(err))}
	}
	code := answered.GRPCStatus().Code()
	text = cmp.Or(text, code.String()) + trace(err)
	if from := foreign(err).GetDomain(); from != "" { // what the code says is about the provider, then
		if code == codes.Unauthenticated {
			text = fmt.Sprintf("%s does not accept the source's credential: %s", from, text)
		}
		return errors.New(text)
	}
	switch code {
	case codes.Unauthenticated:
		return fmt.Errorf("%s wants a valid token, in EVENTRELAY_TOKEN or --token: %s", c.Server, text)
	case codes.Unavailable:
		return fmt.Errorf("cannot reach %s, or it is not ready: %s", c.Server, text)
	case codes.Unimplemented:
		return fmt.Errorf("%s does not know this call, is it an older server? %s", c.Server, text)
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s did not answer in time; what was asked may have been done all the same", c.Server)
	case codes.Canceled:
		return errors.New("interrupted; what was asked may have been done all the same")
	}
	return errors.New(text)
}

// filterFault says where a filter does not compile. The server's text says so too, by the name that the filter has there.
func filterFault(err error) error {
	where := fmt.Sprintf("line %s, column %s: ", client.Detail(err, "line"), client.Detail(err, "column"))
	return usagef("--filter, %s%s", where, strings.TrimPrefix(strings.TrimPrefix(message(err), "filter: "), where))
}

// credentialFlags says how a credential that is missing is set.
var credentialFlags = map[string]string{
	"app_id":          "update %s --app-id ID",
	"app_secrets":     "rotate %s --app-secret @FILE",
	"verify_token":    "update %s --verify-token @FILE",
	"access_token":    "update %s --access-token @FILE",
	"partner_id":      "update %s --partner-id ID",
	"partner_api_key": "update %s --partner-api-key @FILE",
	"channel_api_key": "update %s --channel-api-key @FILE",
	"headers":         "update %s --header @FILE",
}

// violations gives what is wrong with a request, by the flags that say it.
func violations(err error) string {
	st, _ := status.FromError(err)
	var parts []string
	for _, detail := range st.Details() {
		request, ok := detail.(*errdetails.BadRequest)
		if !ok {
			continue
		}
		for _, v := range request.GetFieldViolations() {
			field, text := v.GetField(), v.GetDescription()
			if named := leadingField.FindStringSubmatch(text); field == "" && named != nil {
				field, text = named[1], named[2]
			}
			if field != "" {
				text = flagOf(field) + ": " + text
			}
			parts = append(parts, text)
		}
	}
	if len(parts) == 0 {
		return message(err)
	}
	return strings.Join(parts, "; ")
}

// leadingField finds the field that a rule over a whole message begins with.
var leadingField = regexp.MustCompile(`^([a-z][a-z0-9_.]*): (.+)$`)

// irregularFlags are the flags that are not named as the field they set.
var irregularFlags = map[string]string{
	"app_secrets": "--app-secret", "labels": "--label", "headers": "--header", "fields": "--field", "subscribed_fields": "--field",
	"public_base_url": "--public-url", "objects": "--object", "whatsapp_business_accounts": "--waba",
	"start_time": "--from", "end_time": "--to", "seen_after": "--since", "webhook_url": "--url", "override_callback_uri": "--url", "callback_url": "--url",
	"name": "the id", "source_id": "the id", "subscription_id": "the id", "id": "the id", "parent": "the id",
}

// flagOf gives the flag that sets a field of a request.
func flagOf(path string) string {
	words := strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' })
	if len(words) > 1 && (words[0] == "source" || words[0] == "subscriptions") {
		words = words[1:]
	}
	if len(words) > 1 && words[0] == "subscriptions" {
		words = words[1:]
	}
	if len(words) == 0 {
		return path
	}
	if flag, ok := irregularFlags[words[0]]; ok {
		return flag
	}
	return "--" + strings.ReplaceAll(words[0], "_", "-")
}

// trace gives what a provider's support asks for about an error of its interface.
func trace(err error) string {
	info := foreign(err)
	var parts []string
	for _, key := range []string{"code", "subcode", "http_status", "fbtrace_id"} {
		if value := info.GetMetadata()[key]; value != "" {
			parts = append(parts, key+" "+value)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s: %s)", info.GetDomain(), strings.Join(parts, ", "))
}

// foreign finds the ErrorInfo of a provider in an error; nil, which reads as empty, if there is none.
func foreign(err error) *errdetails.ErrorInfo {
	st, _ := status.FromError(err)
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() != "eventrelay" {
			return info
		}
	}
	return nil
}
