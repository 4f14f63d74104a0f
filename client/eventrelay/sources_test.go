package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// shop is a source with every field that can be read, and every one that must not be.
func shop() *eventrelayv1.Source {
	return &eventrelayv1.Source{
		Name: "sources/shop", Provider: eventrelayv1.Provider_PROVIDER_META, DisplayName: "The shop", Labels: map[string]string{"team": "sales", "env": "prod"},
		AppId: "1234567890", WebhookPath: "/webhooks/shop", RequireClientCertificate: true,
		AppSecrets: []string{hush, hush + "2"}, VerifyToken: hush, AccessToken: hush, PartnerApiKey: hush, ChannelApiKey: hush, Headers: map[string]string{"Authorization": hush},
		Subscriptions: &eventrelayv1.SourceSubscriptions{
			PublicBaseUrl: "https://hooks.example.com",
			Objects: []*eventrelayv1.ObjectSubscription{
				{Object: "page", Fields: []string{"feed", "messages"}},
				{Object: "user", Fields: []string{"photos"}, IncludeValues: new(false)},
			},
			WhatsappBusinessAccounts: []*eventrelayv1.WhatsAppBusinessAccountSubscription{{Id: "100"}, {Id: "200", OverrideCallbackUri: "https://other.example.com/x"}},
		},
		Etag: "e7", Origin: eventrelayv1.SourceOrigin_SOURCE_ORIGIN_API, CreateTime: timestamppb.New(at), UpdateTime: timestamppb.New(at.Add(time.Hour)),
		SecretUses: []*eventrelayv1.SecretUse{{Field: "app_secrets[0]", LastUsedTime: timestamppb.New(at)}, {Field: "verify_token"}},
		Stats: &eventrelayv1.SourceStats{
			SinceTime: timestamppb.New(at), AcceptedNotifications: 12, Events: 30, DuplicateEvents: 2,
			RefusedNotifications: map[string]uint64{"signature": 3, "body": 1}, LastNotificationTime: timestamppb.New(at.Add(2 * time.Hour)),
		},
	}
}

// hush is a secret in every place that has one: no output has it.
const hush = "hunter2-hush-hush"

func TestSourcesListIsATable(t *testing.T) {
	d := &desk{}
	d.answer = func(request proto.Message) (proto.Message, error) {
		if request.(*eventrelayv1.ListSourcesRequest).GetPageToken() == "" {
			return &eventrelayv1.ListSourcesResponse{NextPageToken: "2", Sources: []*eventrelayv1.Source{{
				Name: "sources/dev", Provider: eventrelayv1.Provider_PROVIDER_DIALOG360_CHANNEL, Origin: eventrelayv1.SourceOrigin_SOURCE_ORIGIN_FILE, Paused: true,
			}}}, nil
		}
		return &eventrelayv1.ListSourcesResponse{Sources: []*eventrelayv1.Source{shop()}}, nil
	}
	got := d.ask(t, "sources", "list")
	if got.code != exitDone || got.err != "" {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
	golden(t, "sources.golden", got.out)
	object := d.ask(t, "sources", "list", "--json")
	var read eventrelayv1.ListSourcesResponse
	if err := protojson.Unmarshal([]byte(object.out), &read); err != nil || len(read.GetSources()) != 2 || strings.Count(object.out, "\n") != 1 {
		t.Errorf("printed %s (%v)", object.out, err)
	}
	if !strings.Contains(object.out, `"webhook_path"`) {
		t.Errorf("the names are not those of the proto: %s", object.out)
	}
}

func TestAListThatDoesNotGoOnEnds(t *testing.T) {
	got := answers(&eventrelayv1.ListSourcesResponse{NextPageToken: "again"}).ask(t, "sources", "list")
	if got.code != exitFailure || !strings.Contains(got.err, "page token") {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
}

func TestDescribeShowsAllThatMayBeReadAndNoSecret(t *testing.T) {
	d := answers(shop())
	got := d.ask(t, "sources", "describe", "shop")
	golden(t, "source.golden", got.out)
	object := d.ask(t, "sources", "describe", "sources/shop", "--json")
	want := shop()
	want.AppSecrets, want.VerifyToken, want.AccessToken, want.PartnerApiKey, want.ChannelApiKey, want.Headers = nil, "", "", "", "", nil
	var read eventrelayv1.Source
	if err := protojson.Unmarshal([]byte(object.out), &read); err != nil || !proto.Equal(&read, want) {
		t.Errorf("printed %s (%v)", object.out, err)
	}
	d.wants(t, &eventrelayv1.GetSourceRequest{Name: "sources/shop"}, &eventrelayv1.GetSourceRequest{Name: "sources/shop"})
	if strings.Contains(got.out+object.out, hush) {
		t.Error("a secret is shown")
	}
}

func TestCreateSendsWhatTheFlagsSay(t *testing.T) {
	secretFile, headerFile := file(t, hush+"\n"), file(t, "Authorization: "+hush+"\nX-More: second-header\n")
	meta := func(change func(*eventrelayv1.Source)) *eventrelayv1.CreateSourceRequest {
		source := &eventrelayv1.Source{Name: "sources/shop", Provider: eventrelayv1.Provider_PROVIDER_META, AppSecrets: []string{hush}, VerifyToken: "token-1"}
		change(source)
		return &eventrelayv1.CreateSourceRequest{SourceId: "shop", Source: source}
	}
	yaml := "name: sources/shop\nprovider: PROVIDER_META\napp_id: 77\nlabels: {a: b}\napp_secrets: [" + hush + "]\nverify_token: token-1\n"
	for _, c := range []struct {
		name  string
		args  []string
		env   map[string]string
		stdin string
		want  *eventrelayv1.CreateSourceRequest
	}{
		{
			"a secret of a file",
			[]string{"shop", "--provider", "meta", "--app-secret", "@" + secretFile, "--verify-token", "token-1"},
			nil, "", meta(func(*eventrelayv1.Source) {}),
		},
		{
			"a secret of standard input",
			[]string{"shop", "--provider", "meta", "--app-secret", "-", "--verify-token=token-1"},
			nil, hush + "\r\n", meta(func(*eventrelayv1.Source) {}),
		},
		{
			"a secret of the environment",
			[]string{"shop", "--provider", "meta", "--verify-token", "token-1"},
			map[string]string{"EVENTRELAY_APP_SECRET": hush},
			"", meta(func(*eventrelayv1.Source) {}),
		},
		{
			"a file named in the environment",
			[]string{"shop", "--provider", "meta", "--verify-token", "token-1"},
			map[string]string{"EVENTRELAY_APP_SECRET": "@" + secretFile},
			"", meta(func(*eventrelayv1.Source) {}),
		},
		{
			"two secrets with commas",
			[]string{"shop", "--provider", "meta", "--app-secret", hush, "--app-secret", "with,comma", "--verify-token", "token-1"},
			nil, "", meta(func(s *eventrelayv1.Source) { s.AppSecrets = append(s.AppSecrets, "with,comma") }),
		},
		{
			"every field of Meta",
			[]string{
				"shop", "--provider", "meta", "--app-secret", hush, "--verify-token", "token-1", "--display-name", "The shop", "--label", "team=sales", "--label", "note=a=b,c",
				"--paused", "--app-id", "77", "--access-token", "@" + secretFile, "--require-client-certificate",
				"--public-url", "https://hooks.example.com", "--object", "page=feed,messages", "--names-only", "--waba", "100", "--waba", "200=https://other.example.com/a?b=c",
			},
			nil, "", meta(func(s *eventrelayv1.Source) {
				s.DisplayName, s.Labels, s.Paused, s.AppId, s.AccessToken = "The shop", map[string]string{"team": "sales", "note": "a=b,c"}, true, "77", hush
				s.RequireClientCertificate = true
				s.Subscriptions = &eventrelayv1.SourceSubscriptions{
					PublicBaseUrl: "https://hooks.example.com",
					Objects:       []*eventrelayv1.ObjectSubscription{{Object: "page", Fields: []string{"feed", "messages"}, IncludeValues: new(false)}},
					WhatsappBusinessAccounts: []*eventrelayv1.WhatsAppBusinessAccountSubscription{
						{Id: "100"}, {Id: "200", OverrideCallbackUri: "https://other.example.com/a?b=c"},
					},
				}
			}),
		},
		{
			"a partner",
			[]string{"agency", "--provider", "dialog360-partner", "--app-secret", hush, "--partner-id", "p1", "--partner-api-key", "@" + secretFile},
			nil, "", &eventrelayv1.CreateSourceRequest{SourceId: "agency", Source: &eventrelayv1.Source{
				Name: "sources/agency", Provider: eventrelayv1.Provider_PROVIDER_DIALOG360_PARTNER, AppSecrets: []string{hush}, PartnerId: "p1", PartnerApiKey: hush,
			}},
		},
		{
			"a channel",
			[]string{"number", "--provider", "dialog360-channel", "--header", "@" + headerFile, "--header", "X-Third: a: b, c", "--channel-api-key", hush},
			nil, "", &eventrelayv1.CreateSourceRequest{SourceId: "number", Source: &eventrelayv1.Source{
				Name: "sources/number", Provider: eventrelayv1.Provider_PROVIDER_DIALOG360_CHANNEL, ChannelApiKey: hush,
				Headers: map[string]string{"Authorization": hush, "X-More": "second-header", "X-Third": "a: b, c"},
			}},
		},
		{
			"a YAML file",
			[]string{"--file", file(t, yaml)},
			nil, "", meta(func(s *eventrelayv1.Source) { s.AppId, s.Labels = "77", map[string]string{"a": "b"} }),
		},
		{
			"a YAML file on standard input, and flags that go before it",
			[]string{"shop", "--file", "-", "--app-id", "88", "--label", "c=d", "--app-secret", "@" + file(t, "another-secret")},
			nil, yaml, meta(func(s *eventrelayv1.Source) {
				s.AppId, s.Labels, s.AppSecrets = "88", map[string]string{"a": "b", "c": "d"}, []string{"another-secret"}
			}),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			d := answers(shop())
			got := d.askWith(t, strings.NewReader(c.stdin), append([]string{"sources", "create"}, c.args...)...)
			if got.code != exitDone || got.err != "" {
				t.Fatalf("exit %d: %s", got.code, got.err)
			}
			d.wants(t, c.want)
			if strings.Contains(got.out+got.err, hush) {
				t.Errorf("a secret is shown:\n%s%s", got.out, got.err)
			}
		})
	}
}

func TestTheVerifyTokenThatIsMadeIsToldOnceAndOnlyIfTheSourceIsThere(t *testing.T) {
	args := []string{"sources", "create", "shop", "--provider", "meta", "--app-secret", hush}
	d := answers(shop())
	first, second := d.ask(t, args...), d.ask(t, append(args, "--json")...)
	requests := d.asked()
	tokens := []string{requests[0].(*eventrelayv1.CreateSourceRequest).GetSource().GetVerifyToken(), requests[1].(*eventrelayv1.CreateSourceRequest).GetSource().GetVerifyToken()}
	if len(tokens[0]) < 20 || tokens[0] == tokens[1] {
		t.Errorf("made the tokens %q", tokens)
	}
	for i, got := range []result{first, second} {
		if strings.Count(got.err, tokens[i]) != 1 || strings.Contains(got.out, tokens[i]) || !strings.Contains(got.err, "not shown again") {
			t.Errorf("printed %s, told %s", got.out, got.err)
		}
	}
	refused := &desk{answer: func(proto.Message) (proto.Message, error) { return nil, status.Error(codes.Internal, "no") }}
	got := refused.ask(t, args...)
	if token := refused.asked()[0].(*eventrelayv1.CreateSourceRequest).GetSource().GetVerifyToken(); got.code != exitFailure || strings.Contains(got.out+got.err, token) {
		t.Errorf("exit %d, told %s", got.code, got.err)
	}
}

func TestUpdateChangesTheGivenFieldsOnly(t *testing.T) {
	for _, c := range []struct {
		args []string
		want *eventrelayv1.UpdateSourceRequest
	}{
		{[]string{"--pause"}, updates(&eventrelayv1.Source{Paused: true}, "paused")},
		{[]string{"--resume", "--etag", "e1"}, updates(&eventrelayv1.Source{Etag: "e1"}, "paused")},
		{[]string{"--display-name", ""}, updates(&eventrelayv1.Source{}, "display_name")},
		{[]string{"--no-require-client-certificate"}, updates(&eventrelayv1.Source{}, "require_client_certificate")},
		{[]string{"--require-client-certificate"}, updates(&eventrelayv1.Source{RequireClientCertificate: true}, "require_client_certificate")},
		{[]string{"--app-id", "8", "--access-token", "-"}, updates(&eventrelayv1.Source{AppId: "8", AccessToken: hush}, "app_id", "access_token")},
		{[]string{"--verify-token", hush, "--partner-id", "p"}, updates(&eventrelayv1.Source{PartnerId: "p", VerifyToken: hush}, "partner_id", "verify_token")},
		{[]string{"--partner-api-key", hush}, updates(&eventrelayv1.Source{PartnerApiKey: hush}, "partner_api_key")},
		{
			[]string{"--channel-api-key", hush, "--header", "A: " + hush},
			updates(&eventrelayv1.Source{ChannelApiKey: hush, Headers: map[string]string{"A": hush}}, "channel_api_key", "headers"),
		},
		{[]string{"--undeclare"}, updates(&eventrelayv1.Source{}, "subscriptions")},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			// What another command left in the environment is no change of this source.
			for _, name := range []string{"ACCESS_TOKEN", "VERIFY_TOKEN", "DISPLAY_NAME", "APP_ID", "LABEL", "HEADER", "PUBLIC_URL", "WABA", "OBJECT", "PAUSED", "APP_SECRET"} {
				t.Setenv("EVENTRELAY_"+name, "true")
			}
			d := answers(shop())
			got := d.askWith(t, strings.NewReader(hush), append([]string{"sources", "update", "shop"}, c.args...)...)
			if got.code != exitDone || strings.Contains(got.out+got.err, hush) {
				t.Fatalf("exit %d: %s", got.code, got.err)
			}
			d.wants(t, c.want)
		})
	}
}

// updates makes the request that changes these fields of the source shop.
func updates(source *eventrelayv1.Source, mask ...string) *eventrelayv1.UpdateSourceRequest {
	source.Name = "sources/shop"
	return &eventrelayv1.UpdateSourceRequest{Source: source, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}}
}

func TestUpdateOfAPartKeepsTheRestAndLosesToWhoeverIsFaster(t *testing.T) {
	declared := shop().GetSubscriptions()
	for _, c := range []struct {
		args []string
		want *eventrelayv1.UpdateSourceRequest
	}{
		{
			[]string{"--label", "team=support", "--label", "new=1", "--remove-label", "env"},
			updates(&eventrelayv1.Source{Labels: map[string]string{"team": "support", "new": "1"}, Etag: "e7"}, "labels"),
		},
		{[]string{"--label", "new=", "--etag", "e1"}, updates(&eventrelayv1.Source{Labels: map[string]string{"team": "sales", "env": "prod", "new": ""}, Etag: "e1"}, "labels")},
		{
			[]string{"--public-url", "https://new.example.com"},
			updates(&eventrelayv1.Source{Etag: "e7", Subscriptions: &eventrelayv1.SourceSubscriptions{
				PublicBaseUrl: "https://new.example.com", Objects: declared.GetObjects(), WhatsappBusinessAccounts: declared.GetWhatsappBusinessAccounts(),
			}}, "subscriptions"),
		},
		{
			[]string{"--object", "page=feed", "--pause"},
			updates(&eventrelayv1.Source{Etag: "e7", Paused: true, Subscriptions: &eventrelayv1.SourceSubscriptions{
				PublicBaseUrl: declared.GetPublicBaseUrl(), WhatsappBusinessAccounts: declared.GetWhatsappBusinessAccounts(),
				Objects: []*eventrelayv1.ObjectSubscription{{Object: "page", Fields: []string{"feed"}}},
			}}, "paused", "subscriptions"),
		},
		{
			[]string{"--waba", "300"},
			updates(&eventrelayv1.Source{Etag: "e7", Subscriptions: &eventrelayv1.SourceSubscriptions{
				PublicBaseUrl: declared.GetPublicBaseUrl(), Objects: declared.GetObjects(),
				WhatsappBusinessAccounts: []*eventrelayv1.WhatsAppBusinessAccountSubscription{{Id: "300"}},
			}}, "subscriptions"),
		},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			d := answers(shop())
			if got := d.ask(t, append([]string{"sources", "update", "shop"}, c.args...)...); got.code != exitDone {
				t.Fatalf("exit %d: %s", got.code, got.err)
			}
			d.wants(t, &eventrelayv1.GetSourceRequest{Name: "sources/shop"}, c.want)
		})
	}
}

func TestRotateBeginsWithASecretAndEndsWithout(t *testing.T) {
	d := answers(shop())
	begun := d.askWith(t, strings.NewReader(hush+"\n"), "sources", "rotate", "shop", "--app-secret", "-", "--etag", "e7")
	ended := d.ask(t, "sources", "rotate", "shop", "--end")
	d.wants(t, &eventrelayv1.RotateSecretRequest{Name: "sources/shop", AppSecret: hush, Etag: "e7"}, &eventrelayv1.RotateSecretRequest{Name: "sources/shop"})
	if begun.code != exitDone || ended.code != exitDone || !strings.Contains(begun.err, "rotate shop --end") || ended.err != "" {
		t.Errorf("told %s and %s", begun.err, ended.err)
	}
	if strings.Contains(begun.out+begun.err+ended.out+ended.err, hush) {
		t.Error("a secret is shown")
	}
}

func TestConnectPrintsItsStepsAndFailsWithAnyOfThem(t *testing.T) {
	steps := &eventrelayv1.ConnectResponse{CallbackUrl: "https://hooks.example.com/webhooks/shop", Connected: true, Steps: []*eventrelayv1.ConnectStep{
		{Action: "CreateAppSubscription", Target: "page", Outcome: eventrelayv1.StepOutcome_STEP_OUTCOME_DONE},
		{Action: "SubscribeWhatsAppBusinessAccount", Target: "100", Outcome: eventrelayv1.StepOutcome_STEP_OUTCOME_UNCHANGED},
	}}
	d := answers(steps)
	got := d.ask(t, "sources", "connect", "shop", "--public-url", "https://hooks.example.com", "--object", "page=feed,messages", "--waba", "100")
	if got.code != exitDone || got.err != "" {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
	d.wants(t, &eventrelayv1.ConnectRequest{Name: "sources/shop", Subscriptions: &eventrelayv1.SourceSubscriptions{
		PublicBaseUrl: "https://hooks.example.com", Objects: []*eventrelayv1.ObjectSubscription{{Object: "page", Fields: []string{"feed", "messages"}}},
		WhatsappBusinessAccounts: []*eventrelayv1.WhatsAppBusinessAccountSubscription{{Id: "100"}},
	}})
	failed := status.Convert(refusal(codes.PermissionDenied, "(#200) Permissions error", "graph.facebook.com", "GRAPH_ERROR", map[string]string{"code": "200", "fbtrace_id": "AbC"})).Proto()
	steps.Connected = false
	steps.Steps = append(steps.Steps,
		&eventrelayv1.ConnectStep{Action: "SubscribeWhatsAppBusinessAccount", Target: "200", Outcome: eventrelayv1.StepOutcome_STEP_OUTCOME_FAILED, Error: failed},
		&eventrelayv1.ConnectStep{Action: "SubscribeWhatsAppBusinessAccount", Target: "300", Outcome: eventrelayv1.StepOutcome_STEP_OUTCOME_FAILED, Error: &statuspb.Status{}},
	)
	d = answers(steps)
	got = d.ask(t, "sources", "connect", "shop")
	golden(t, "connect.golden", got.out)
	if got.code != exitFailure || !strings.Contains(got.err, "2 of 4 steps failed") {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
	d.wants(t, &eventrelayv1.ConnectRequest{Name: "sources/shop"})
	if got := d.ask(t, "sources", "connect", "shop", "--json"); got.code != exitFailure || !strings.HasPrefix(got.out, `{"steps":[`) || strings.Count(got.out, "\n") != 1 {
		t.Errorf("exit %d, printed %s", got.code, got.out)
	}
}

func TestCheckPrintsWhatDiffersAndFailsForIt(t *testing.T) {
	in := answers(&eventrelayv1.CheckSubscriptionsResponse{InSync: true, CallbackUrl: "https://hooks.example.com/webhooks/shop"})
	if got := in.ask(t, "sources", "check", "shop"); got.code != exitDone || got.out != "sources/shop is in sync: its provider has all that it declares, at https://hooks.example.com/webhooks/shop\n" {
		t.Errorf("exit %d, printed %s", got.code, got.out)
	}
	off := answers(&eventrelayv1.CheckSubscriptionsResponse{Findings: []*eventrelayv1.SubscriptionFinding{
		{Kind: eventrelayv1.FindingKind_FINDING_KIND_MISSING, Target: "appSubscriptions/page", Field: "feed", Expected: "feed", Hint: "connect again"},
		{Kind: eventrelayv1.FindingKind_FINDING_KIND_ELSEWHERE, Target: "whatsappBusinessAccounts/100", Expected: "https://a.example.com", Actual: "https://b.example.com"},
		{Kind: eventrelayv1.FindingKind(99), Target: "of a newer server"},
	}})
	got := off.ask(t, "sources", "check", "shop")
	golden(t, "check.golden", got.out)
	if got.code != exitFailure || !strings.Contains(got.err, "differences from what it declares: 3") {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
	if got := off.ask(t, "sources", "check", "shop", "--json"); got.code != exitFailure || !strings.HasPrefix(got.out, `{"findings":[`) {
		t.Errorf("exit %d, printed %s", got.code, got.out)
	}
	off.wants(t, slices.Repeat([]proto.Message{&eventrelayv1.CheckSubscriptionsRequest{Name: "sources/shop"}}, 2)...)
}

func TestDeleteNeedsAYes(t *testing.T) {
	d := answers(&emptypb.Empty{})
	if got := d.askWith(t, strings.NewReader("y\n"), "sources", "delete", "shop"); got.code != exitUsage || !strings.Contains(got.err, "--yes") || len(d.asked()) != 0 {
		t.Errorf("without a terminal: exit %d, told %s, asked for %v", got.code, got.err, d.asked())
	}
	if got := d.ask(t, "sources", "delete", "shop", "--yes", "--etag", "e7"); got.code != exitDone || got.out != "deleted sources/shop\n" {
		t.Errorf("exit %d, printed %s", got.code, got.out)
	}
	d.wants(t, &eventrelayv1.DeleteSourceRequest{Name: "sources/shop", Etag: "e7"})
}
