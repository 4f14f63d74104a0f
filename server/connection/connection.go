// Package connection sets a source up with its provider, and says how what the provider has differs from what the source declares.
//
// What should be is in the source's `subscriptions`; what there is, is asked of the provider at every call. So nothing has to be remembered here, and everything may be
// repeated: what is as it should be stays untouched, and what is not declared is not taken away.
package connection

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/sync/errgroup"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/dialog360"
	"eventrelay/server/graph"
	"eventrelay/server/upstream"
)

// maxCalls is how many calls to a provider one Establish or Check has open at once: a business has hundreds of accounts, and providers limit calls by the hour.
const maxCalls = 4

// ErrNotDeclared says that a source does not declare what its provider should have.
var ErrNotDeclared = errors.New("the source does not declare what its provider should have: give subscriptions.public_base_url, and for Meta objects and accounts")

// An InvalidError says that what a source declares cannot be set up.
type InvalidError struct {
	// Field is the field of the source, Problem what is wrong with it and how to put it right.
	Field, Problem string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Problem }

// Providers are the APIs that hold the providers' side.
type Providers struct {
	Graph     *graph.Client
	Dialog360 *dialog360.Client
}

// Source is what is needed of a source: what it declares, and its credentials. No way of printing it shows a secret.
type Source struct {
	Name          string
	Provider      eventrelayv1.Provider
	WebhookPath   string
	Subscriptions *eventrelayv1.SourceSubscriptions

	Meta          graph.Credentials
	VerifyToken   upstream.Secret
	Partner       dialog360.PartnerCredentials
	ChannelAPIKey upstream.Secret
	// Headers are what a channel's webhook must show.
	Headers map[string]upstream.Secret
}

// CallbackURL is the address at which the provider reaches the source. The error says what of the declaration cannot be right.
func (s Source) CallbackURL() (string, error) {
	base := s.Subscriptions.GetPublicBaseUrl()
	if base == "" {
		return "", ErrNotDeclared
	}
	parsed, err := url.Parse(base)
	if err != nil || !upstream.Callable(parsed) || parsed.User != nil || parsed.RawQuery != "" || parsed.Fragment != "" {
		return "", &InvalidError{
			Field:   "subscriptions.public_base_url",
			Problem: "it must be the public https:// address of the webhook port, such as https://hooks.example.com, without user, query and fragment; providers call nothing else",
		}
	}
	return strings.TrimRight(base, "/") + s.WebhookPath, nil
}

// Step is one step of setting a source up.
type Step struct {
	// Action is the call that does the step alone, Target what it is done to.
	Action, Target string
	Outcome        eventrelayv1.StepOutcome
	// Err is set for STEP_OUTCOME_FAILED.
	Err error
}

// A task does one step. It reports whether anything had to be changed.
type task struct {
	action, target string
	do             func(ctx context.Context) (changed bool, err error)
}

// Establish sets the source up: it takes every step, also after one has failed. The error says why none could be taken.
func (p Providers) Establish(ctx context.Context, s Source) ([]Step, error) {
	callback, err := s.CallbackURL()
	if err != nil {
		return nil, err
	}
	var tasks []task
	switch s.Provider {
	case eventrelayv1.Provider_PROVIDER_META:
		tasks, err = p.metaTasks(ctx, s, callback)
	case eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER:
		tasks = p.partnerTasks(s, callback)
	case eventrelayv1.Provider_PROVIDER_DIALOG360_CHANNEL:
		tasks = p.channelTasks(s, callback)
	default:
		err = fmt.Errorf("set up a source of %s: there is no way to", s.Provider)
	}
	if err != nil {
		return nil, err
	}
	steps := make([]Step, len(tasks))
	var group errgroup.Group
	group.SetLimit(maxCalls)
	for i, t := range tasks {
		group.Go(func() error {
			steps[i] = t.run(ctx)
			return nil
		})
	}
	return steps, group.Wait()
}

func (t task) run(ctx context.Context) Step {
	step := Step{Action: t.action, Target: t.target, Outcome: eventrelayv1.StepOutcome_STEP_OUTCOME_UNCHANGED}
	switch changed, err := t.do(ctx); {
	case err != nil:
		step.Outcome, step.Err = eventrelayv1.StepOutcome_STEP_OUTCOME_FAILED, err
	case changed:
		step.Outcome = eventrelayv1.StepOutcome_STEP_OUTCOME_DONE
	}
	return step
}

// Check compares what the source declares with what its provider has. What cannot be looked up is a finding too; the error says why nothing could be.
func (p Providers) Check(ctx context.Context, s Source) ([]*eventrelayv1.SubscriptionFinding, error) {
	callback, err := s.CallbackURL()
	if err != nil {
		return nil, err
	}
	switch s.Provider {
	case eventrelayv1.Provider_PROVIDER_META:
		return p.checkMeta(ctx, s, callback)
	case eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER:
		return p.checkPartner(ctx, s, callback)
	case eventrelayv1.Provider_PROVIDER_DIALOG360_CHANNEL:
		return p.checkChannel(ctx, s, callback)
	default:
		return nil, fmt.Errorf("check a source of %s: there is no way to", s.Provider)
	}
}

// unknown is the finding that something could not be looked up.
func unknown(target string, err error) *eventrelayv1.SubscriptionFinding {
	return &eventrelayv1.SubscriptionFinding{Kind: eventrelayv1.FindingKind_FINDING_KIND_UNKNOWN, Target: target, Hint: "it could not be looked up: " + err.Error()}
}
