package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// wish is the flags for what a provider should have subscribed.
type wish struct {
	PublicURL string   `name:"public-url" placeholder:"URL" help:"The public address of the server's webhook port, as https://hooks.example.com."`
	Object    []string `sep:"none" placeholder:"OBJECT=FIELD,..." help:"Meta: an object and the fields of it to be told about, as page=feed,messages; may be repeated."`
	NamesOnly bool     `help:"Meta: with --object, notifications name what has changed and leave the new values out."`
	WABA      []string `name:"waba" sep:"none" placeholder:"ID[=URL]" help:"Meta: a WhatsApp business account to be told about, with the callback that overrides the app's own, if any; may be repeated."`
}

// declare adds what the flags say to what is declared already, which may be nil: the same object or account is replaced. Without any flag it stays as it is.
func (w *wish) declare(before *eventrelayv1.SourceSubscriptions) (*eventrelayv1.SourceSubscriptions, error) {
	if w.NamesOnly && len(w.Object) == 0 {
		return nil, usagef("--names-only is about --object: give that too")
	}
	if w.PublicURL == "" && len(w.Object)+len(w.WABA) == 0 {
		return before, nil
	}
	declared := &eventrelayv1.SourceSubscriptions{
		PublicBaseUrl:            cmp.Or(w.PublicURL, before.GetPublicBaseUrl()),
		Objects:                  slices.Clone(before.GetObjects()),
		WhatsappBusinessAccounts: slices.Clone(before.GetWhatsappBusinessAccounts()),
	}
	given := make(map[string]bool)
	for _, text := range w.Object {
		object, fields, ok := strings.Cut(text, "=")
		if !ok || object == "" || fields == "" {
			return nil, usagef("--object %q: give the object and its fields, as page=feed,messages", text)
		}
		if given[object] {
			return nil, usagef("--object %s is given twice: give all its fields at once, as %s=feed,messages", object, object)
		}
		given[object] = true
		subscription := &eventrelayv1.ObjectSubscription{Object: object, Fields: strings.Split(fields, ",")}
		if w.NamesOnly {
			subscription.IncludeValues = new(false)
		}
		declared.Objects = append(slices.DeleteFunc(declared.GetObjects(), func(o *eventrelayv1.ObjectSubscription) bool { return o.GetObject() == object }), subscription)
	}
	for _, text := range w.WABA {
		id, override, overrides := strings.Cut(text, "=")
		if id == "" || (overrides && override == "") {
			return nil, usagef("--waba %q: give the account's id, or the id and its override as 1234567890=https://...", text)
		}
		if given["waba "+id] {
			return nil, usagef("--waba %s is given twice", id)
		}
		given["waba "+id] = true
		declared.WhatsappBusinessAccounts = append(
			slices.DeleteFunc(declared.GetWhatsappBusinessAccounts(), func(a *eventrelayv1.WhatsAppBusinessAccountSubscription) bool { return a.GetId() == id }),
			&eventrelayv1.WhatsAppBusinessAccountSubscription{Id: id, OverrideCallbackUri: override},
		)
	}
	return declared, nil
}

// connectSource sets a source up.
type connectSource struct {
	connection `embed:""`

	ID   string `arg:"" name:"id" help:"The source."`
	wish `embed:""`
	JSON bool `name:"json" help:"Print one JSON object with the fields of eventrelay.v1.ConnectResponse."`
}

// Run sets the source up and prints each step. Steps that failed make it fail, though the others are done.
func (n *connectSource) Run(ctx context.Context, out *output) error {
	name, err := resource(n.ID)
	if err != nil {
		return err
	}
	request := &eventrelayv1.ConnectRequest{Name: name}
	if request.Subscriptions, err = n.declare(nil); err != nil {
		return err
	}
	var done *eventrelayv1.ConnectResponse
	err = n.call(ctx, longTimeout, func(ctx context.Context, c *client.Client) error {
		done, err = c.Sources().Connect(ctx, request)
		return err
	})
	if err != nil {
		return err
	}
	if n.JSON {
		err = out.printJSON(done)
	} else {
		err = out.steps(done)
	}
	if err != nil {
		return err
	}
	failed := 0
	for _, step := range done.GetSteps() {
		if step.GetOutcome() == eventrelayv1.StepOutcome_STEP_OUTCOME_FAILED {
			failed++
		}
	}
	if failed > 0 || !done.GetConnected() {
		return fmt.Errorf("%d of %d steps failed; mend what they say and connect again, what is done stays done", failed, len(done.GetSteps()))
	}
	return nil
}

// steps prints what was done.
func (o *output) steps(done *eventrelayv1.ConnectResponse) error {
	if err := o.print("callback: %s", cmp.Or(done.GetCallbackUrl(), "-")); err != nil {
		return err
	}
	rows := table{}
	rows.row("ACTION", "TARGET", "OUTCOME", "ERROR")
	for _, step := range done.GetSteps() {
		failure := ""
		if step.GetError() != nil {
			failure = cmp.Or(step.GetError().GetMessage(), codes.Code(step.GetError().GetCode()).String()) + trace(status.FromProto(step.GetError()).Err())
		}
		rows.row(step.GetAction(), step.GetTarget(), word(step.GetOutcome()), failure)
	}
	return rows.print(o.out, "")
}

// checkSource compares a source with its provider.
type checkSource struct {
	connection `embed:""`

	ID   string `arg:"" name:"id" help:"The source."`
	JSON bool   `name:"json" help:"Print one JSON object with the fields of eventrelay.v1.CheckSubscriptionsResponse."`
}

// Run prints the differences. Any makes it fail, so that a script notices.
func (k *checkSource) Run(ctx context.Context, out *output) error {
	name, err := resource(k.ID)
	if err != nil {
		return err
	}
	var compared *eventrelayv1.CheckSubscriptionsResponse
	err = k.call(ctx, longTimeout, func(ctx context.Context, c *client.Client) error {
		compared, err = c.Sources().CheckSubscriptions(ctx, &eventrelayv1.CheckSubscriptionsRequest{Name: name})
		return err
	})
	if err != nil {
		return err
	}
	inSync := compared.GetInSync() && len(compared.GetFindings()) == 0
	switch {
	case k.JSON:
		err = out.printJSON(compared)
	case inSync:
		err = out.print("%s is in sync: its provider has all that it declares, at %s", name, cmp.Or(compared.GetCallbackUrl(), "-"))
	default:
		err = out.findings(compared)
	}
	if err == nil && !inSync {
		err = fmt.Errorf("%s is not in sync; differences from what it declares: %d", name, len(compared.GetFindings()))
	}
	return err
}

// findings prints the differences.
func (o *output) findings(compared *eventrelayv1.CheckSubscriptionsResponse) error {
	rows := table{}
	rows.row("KIND", "TARGET", "FIELD", "EXPECTED", "ACTUAL", "HINT")
	for _, f := range compared.GetFindings() {
		rows.row(word(f.GetKind()), f.GetTarget(), f.GetField(), f.GetExpected(), f.GetActual(), f.GetHint())
	}
	return rows.print(o.out, "")
}
