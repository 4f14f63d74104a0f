package connection

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/graph"
	"eventrelay/server/upstream"
)

// metaTasks are the steps for an app of Meta's: the objects first, for without them nothing comes of the accounts.
func (p Providers) metaTasks(ctx context.Context, s Source, callback string) ([]task, error) {
	objects, accounts := s.Subscriptions.GetObjects(), s.Subscriptions.GetWhatsappBusinessAccounts()
	if len(objects) == 0 && len(accounts) == 0 {
		return nil, ErrNotDeclared
	}
	var (
		tasks    []task
		existing []graph.AppSubscription
	)
	if len(objects) > 0 {
		var err error
		if existing, err = p.Graph.ListAppSubscriptions(ctx, s.Meta); err != nil {
			return nil, err // wrong credentials, most likely: every step would fail for the same reason
		}
	}
	for _, object := range objects {
		tasks = append(tasks, task{action: "CreateAppSubscription", target: object.GetObject(), do: func(ctx context.Context) (bool, error) {
			i := slices.IndexFunc(existing, func(e graph.AppSubscription) bool { return e.Object == object.GetObject() })
			if i >= 0 && existing[i].Active && existing[i].CallbackURL == callback && len(missing(object.GetFields(), existing[i])) == 0 {
				return false, nil
			}
			return true, p.Graph.CreateAppSubscription(ctx, s.Meta, object.GetObject(), callback, s.VerifyToken.Reveal(), object.GetFields(), includeValues(object))
		}})
	}
	for _, account := range accounts {
		tasks = append(tasks, task{action: "SubscribeWhatsAppBusinessAccount", target: account.GetId(), do: func(ctx context.Context) (bool, error) {
			app, err := p.ownApp(ctx, s, account.GetId())
			switch {
			case err != nil:
				return false, err
			case app != nil && app.OverrideCallbackURI == account.GetOverrideCallbackUri():
				return false, nil
			case account.GetOverrideCallbackUri() != "":
				return true, p.Graph.SetWABAOverride(ctx, s.Meta, account.GetId(), account.GetOverrideCallbackUri(), s.VerifyToken.Reveal())
			}
			return true, p.Graph.SubscribeWABA(ctx, s.Meta, account.GetId()) // refuses to clear an override that is not declared
		}})
	}
	return tasks, nil
}

// includeValues is whether notifications of an object hold what changed: that is what a relay is for, so it is so unless the source says otherwise.
func includeValues(object *eventrelayv1.ObjectSubscription) bool {
	return object.IncludeValues == nil || object.GetIncludeValues()
}

// missing are those of the fields that a subscription does not have.
func missing(fields []string, subscription graph.AppSubscription) (absent []string) {
	for _, field := range fields {
		if !slices.ContainsFunc(subscription.Fields, func(f graph.AppField) bool { return f.Name == field }) {
			absent = append(absent, field)
		}
	}
	return absent
}

// ownApp is the source's app among those that an account is subscribed by, or nil. Where the source does not know its app's id, and there is but one, it is taken for it.
func (p Providers) ownApp(ctx context.Context, s Source, account string) (*graph.SubscribedApp, error) {
	apps, err := p.Graph.ListWABASubscribedApps(ctx, s.Meta, account)
	if err != nil {
		return nil, err
	}
	for i := range apps {
		if apps[i].ID == s.Meta.AppID || s.Meta.AppID == "" && len(apps) == 1 {
			return &apps[i], nil
		}
	}
	return nil, nil //nolint:nilnil // that it is not subscribed is no error
}

// checkMeta compares objects and accounts.
func (p Providers) checkMeta(ctx context.Context, s Source, callback string) ([]*eventrelayv1.SubscriptionFinding, error) {
	objects, accounts := s.Subscriptions.GetObjects(), s.Subscriptions.GetWhatsappBusinessAccounts()
	if len(objects) == 0 && len(accounts) == 0 {
		return nil, ErrNotDeclared
	}
	parts := make([][]*eventrelayv1.SubscriptionFinding, 1+len(accounts))
	var group errgroup.Group
	group.SetLimit(maxCalls)
	if len(objects) > 0 {
		group.Go(func() error {
			existing, err := p.Graph.ListAppSubscriptions(ctx, s.Meta)
			switch {
			case errors.Is(err, upstream.ErrCredentialMissing):
				return err
			case err != nil:
				parts[0] = append(parts[0], unknown("appSubscriptions", err))
				return nil
			}
			parts[0] = compareObjects(objects, existing, callback)
			return nil
		})
	}
	for i, account := range accounts {
		group.Go(func() error {
			found, err := p.checkAccount(ctx, s, account, callback)
			if found != nil {
				parts[1+i] = append(parts[1+i], found)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(parts...), nil
}

// compareObjects compares the declared objects with the app's subscriptions.
func compareObjects(objects []*eventrelayv1.ObjectSubscription, existing []graph.AppSubscription, callback string) (findings []*eventrelayv1.SubscriptionFinding) {
	declared := map[string]*eventrelayv1.ObjectSubscription{}
	for _, object := range objects {
		declared[object.GetObject()] = object
		if !slices.ContainsFunc(existing, func(e graph.AppSubscription) bool { return e.Object == object.GetObject() }) {
			findings = append(findings, &eventrelayv1.SubscriptionFinding{
				Kind: eventrelayv1.FindingKind_FINDING_KIND_MISSING, Target: objectTarget(object.GetObject()), Expected: callback,
				Hint: "nothing is reported of this object; connect the source",
			})
		}
	}
	for _, subscription := range existing {
		target := objectTarget(subscription.Object)
		object, ok := declared[subscription.Object]
		if !ok {
			findings = append(findings, &eventrelayv1.SubscriptionFinding{
				Kind: eventrelayv1.FindingKind_FINDING_KIND_EXTRA, Target: target, Actual: subscription.CallbackURL,
				Hint: "declare it in the source's subscriptions, or delete the app subscription",
			})
			continue
		}
		if subscription.CallbackURL != callback {
			findings = append(findings, &eventrelayv1.SubscriptionFinding{
				Kind: eventrelayv1.FindingKind_FINDING_KIND_ELSEWHERE, Target: target, Expected: callback, Actual: subscription.CallbackURL,
				Hint: "somebody else receives what is reported of this object; connecting the source takes it over",
			})
		}
		if !subscription.Active {
			findings = append(findings, &eventrelayv1.SubscriptionFinding{
				Kind: eventrelayv1.FindingKind_FINDING_KIND_INACTIVE, Target: target, Expected: "active", Actual: "inactive",
				Hint: "Meta switches off what was not answered for long; connect the source",
			})
		}
		for _, field := range missing(object.GetFields(), subscription) {
			findings = append(findings, &eventrelayv1.SubscriptionFinding{
				Kind: eventrelayv1.FindingKind_FINDING_KIND_MISSING, Target: target, Field: field, Expected: field, Hint: "this field is not reported; connect the source",
			})
		}
		for _, field := range subscription.Fields {
			if !slices.Contains(object.GetFields(), field.Name) {
				findings = append(findings, &eventrelayv1.SubscriptionFinding{
					Kind: eventrelayv1.FindingKind_FINDING_KIND_EXTRA, Target: target, Field: field.Name, Actual: field.Name,
					Hint: "declare the field in the source's subscriptions, or delete it from the app subscription",
				})
			}
		}
	}
	return findings
}

func objectTarget(object string) string { return "appSubscriptions/" + object }

// checkAccount compares one WhatsApp business account; nil if it is as declared.
func (p Providers) checkAccount(ctx context.Context, s Source, account *eventrelayv1.WhatsAppBusinessAccountSubscription, callback string) (*eventrelayv1.SubscriptionFinding, error) {
	target := "whatsappBusinessAccounts/" + account.GetId()
	app, err := p.ownApp(ctx, s, account.GetId())
	switch {
	case errors.Is(err, upstream.ErrCredentialMissing):
		return nil, err
	case err != nil:
		return unknown(target, err), nil
	case app == nil:
		return &eventrelayv1.SubscriptionFinding{
			Kind: eventrelayv1.FindingKind_FINDING_KIND_MISSING, Target: target, Expected: or(account.GetOverrideCallbackUri(), callback),
			Hint: "the app is not subscribed to this account; connect the source",
		}, nil
	case app.OverrideCallbackURI != account.GetOverrideCallbackUri():
		return &eventrelayv1.SubscriptionFinding{
			Kind: eventrelayv1.FindingKind_FINDING_KIND_ELSEWHERE, Target: target,
			Expected: or(account.GetOverrideCallbackUri(), callback), Actual: or(app.OverrideCallbackURI, callback),
			Hint: "the account's messages go elsewhere than declared; declare the override, set it, or clear it",
		}, nil
	}
	return nil, nil //nolint:nilnil // that it is as declared is no error
}

// or is where notifications of an account go: to its override, else to the app's callback.
func or(override, callback string) string {
	if override != "" {
		return override
	}
	return callback
}
