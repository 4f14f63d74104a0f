package graph

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"eventrelay/server/upstream"
)

// A SubscribedApp is an app that hears of a WhatsApp Business account, a page or an Instagram account.
type SubscribedApp struct {
	ID, Name, Link string
	// OverrideCallbackURI is where what can be redirected goes instead of to the app's own callback. Only accounts of WhatsApp have it.
	OverrideCallbackURI string
	// Fields are the subscribed ones. Accounts of WhatsApp have none: there the app's own subscription says what it hears of.
	Fields []string
}

// ListWABASubscribedApps returns the apps subscribed to a WhatsApp Business account. The token is that of a system user with
// whatsapp_business_management, as for all calls about an account or a phone number.
func (c *Client) ListWABASubscribedApps(ctx context.Context, cred Credentials, waba string) ([]SubscribedApp, error) {
	apps, err := c.listWABA(ctx, c.do, cred, waba)
	if err != nil {
		return nil, fmt.Errorf("list apps subscribed to WhatsApp Business account %.80s: %w", waba, err)
	}
	return apps, nil
}

func (c *Client) listWABA(ctx context.Context, send sender, cred Credentials, waba string) ([]SubscribedApp, error) {
	call, token, err := c.waba(cred, waba, http.MethodGet)
	if err != nil {
		return nil, err
	}
	type entry struct {
		App struct {
			ID   word   `json:"id"`
			Name string `json:"name"`
			Link string `json:"link"`
		} `json:"whatsapp_business_api_data"`
		Override string `json:"override_callback_uri"` // beside the app's data, not in it
	}
	entries, err := list[entry](ctx, send, cred, token, call)
	if err != nil {
		return nil, err
	}
	apps := make([]SubscribedApp, len(entries))
	for i, e := range entries {
		apps[i] = SubscribedApp{ID: string(e.App.ID), Name: e.App.Name, Link: e.App.Link, OverrideCallbackURI: e.Override}
	}
	return apps, nil
}

// SubscribeWABA subscribes the app of the token to the account. Meta clears an override of the app along with that, so it looks first; where there is one it does
// nothing and the error is an *OverrideError. Without AppID in the credentials any app's override counts as ours. An override that somebody sets
// between the look and the call is lost all the same: Meta has no way to ask for both at once.
func (c *Client) SubscribeWABA(ctx context.Context, cred Credentials, waba string) error {
	err := c.caller.Retry(ctx, func(ctx context.Context) error {
		apps, err := c.listWABA(ctx, c.send, cred, waba)
		if err != nil {
			return err
		}
		for _, app := range apps {
			if app.OverrideCallbackURI != "" && (cred.AppID == "" || app.ID == cred.AppID) {
				return &OverrideError{URI: app.OverrideCallbackURI}
			}
		}
		return c.postWABA(ctx, c.send, cred, waba)
	})
	if err != nil {
		return fmt.Errorf("subscribe to WhatsApp Business account %.80s: %w", waba, err)
	}
	return nil
}

// ClearWABAOverride removes the override of the app of the token, which stays or becomes subscribed. Without an override it does no more than subscribe.
func (c *Client) ClearWABAOverride(ctx context.Context, cred Credentials, waba string) error {
	if err := c.postWABA(ctx, c.do, cred, waba); err != nil {
		return fmt.Errorf("clear override of WhatsApp Business account %.80s: %w", waba, err)
	}
	return nil
}

// postWABA posts nothing, by which Meta subscribes and clears.
func (c *Client) postWABA(ctx context.Context, send sender, cred Credentials, waba string) error {
	call, token, err := c.waba(cred, waba, http.MethodPost)
	if err != nil {
		return err
	}
	return change(ctx, send, cred, token, call)
}

// SetWABAOverride subscribes the app of the token to the account and has Meta send what it reports to uri, an https address of up to 200 characters; template and
// account events go to the app's own callback all the same. Meta calls uri with verifyToken before it answers; if that does not go well the kind of the error is
// FailedPrecondition.
func (c *Client) SetWABAOverride(ctx context.Context, cred Credentials, waba, uri, verifyToken string) error {
	call, token, err := c.waba(cred, waba, http.MethodPost)
	if err == nil {
		err = checkCallback("override_callback_uri", uri, verifyToken, maxOverride)
	}
	if err == nil {
		call = call.withJSON(map[string]string{"override_callback_uri": uri, "verify_token": verifyToken})
		call.handshake = true
		call.secrets = []upstream.Secret{upstream.NewSecret(verifyToken)}
		err = change(ctx, c.do, cred, token, call)
	}
	if err != nil {
		return fmt.Errorf("set override of WhatsApp Business account %.80s: %w", waba, err)
	}
	return nil
}

// UnsubscribeWABA ends the subscription of the app of the token to the account, override included.
func (c *Client) UnsubscribeWABA(ctx context.Context, cred Credentials, waba string) error {
	call, token, err := c.waba(cred, waba, http.MethodDelete)
	if err == nil {
		err = change(ctx, c.do, cred, token, call)
	}
	if err != nil {
		return fmt.Errorf("unsubscribe from WhatsApp Business account %.80s: %w", waba, err)
	}
	return nil
}

func (c *Client) waba(cred Credentials, waba, method string) (call, upstream.Secret, error) {
	if err := checkID("waba", waba); err != nil {
		return call{}, upstream.Secret{}, err
	}
	token, err := cred.userToken()
	return call{baseURL: c.baseURL, method: method, object: waba, edge: "subscribed_apps", area: areaWhatsApp}, token, err
}

// PhoneOverride is where Meta sends what it reports of a phone number: to the first of these that is not empty.
type PhoneOverride struct {
	// PhoneNumber is the override of the number.
	PhoneNumber string
	// WABA is the override of its WhatsApp Business account.
	WABA string
	// Application is the app's own callback.
	Application string
}

// GetPhoneOverride returns where Meta sends what it reports of a phone number.
func (c *Client) GetPhoneOverride(ctx context.Context, cred Credentials, phoneNumber string) (PhoneOverride, error) {
	var got struct {
		Configuration struct {
			PhoneNumber string `json:"phone_number"`
			WABA        string `json:"whatsapp_business_account"`
			Application string `json:"application"`
		} `json:"webhook_configuration"`
	}
	call, token, err := c.phone(cred, phoneNumber, http.MethodGet)
	if err == nil {
		call.query = url.Values{"fields": {"webhook_configuration"}}
		err = c.do(ctx, cred, token, call, &got)
	}
	if err != nil {
		return PhoneOverride{}, fmt.Errorf("get override of phone number %.80s: %w", phoneNumber, err)
	}
	return PhoneOverride(got.Configuration), nil
}

// SetPhoneOverride has Meta send what it reports of a phone number to uri, as SetWABAOverride does for an account.
func (c *Client) SetPhoneOverride(ctx context.Context, cred Credentials, phoneNumber, uri, verifyToken string) error {
	err := checkCallback("override_callback_uri", uri, verifyToken, maxOverride)
	if err == nil {
		err = c.configurePhone(ctx, cred, phoneNumber, map[string]string{"override_callback_uri": uri, "verify_token": verifyToken})
	}
	if err != nil {
		return fmt.Errorf("set override of phone number %.80s: %w", phoneNumber, err)
	}
	return nil
}

// ClearPhoneOverride removes the override of a phone number. Without one it does nothing.
func (c *Client) ClearPhoneOverride(ctx context.Context, cred Credentials, phoneNumber string) error {
	if err := c.configurePhone(ctx, cred, phoneNumber, map[string]string{"override_callback_uri": ""}); err != nil {
		return fmt.Errorf("clear override of phone number %.80s: %w", phoneNumber, err)
	}
	return nil
}

func (c *Client) configurePhone(ctx context.Context, cred Credentials, phoneNumber string, configuration map[string]string) error {
	call, token, err := c.phone(cred, phoneNumber, http.MethodPost)
	if err != nil {
		return err
	}
	call = call.withJSON(map[string]any{"webhook_configuration": configuration})
	call.handshake = configuration["override_callback_uri"] != ""
	call.secrets = []upstream.Secret{upstream.NewSecret(configuration["verify_token"])}
	return change(ctx, c.do, cred, token, call)
}

func (c *Client) phone(cred Credentials, phoneNumber, method string) (call, upstream.Secret, error) {
	if err := checkID("phone_number", phoneNumber); err != nil {
		return call{}, upstream.Secret{}, err
	}
	token, err := cred.userToken()
	return call{baseURL: c.baseURL, method: method, object: phoneNumber, area: areaWhatsApp}, token, err
}
