package main

import (
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestARefusalSaysWhatToDo(t *testing.T) {
	source := map[string]string{"source": "sources/shop"}
	invalid := func(field, description string) error {
		return refusal(codes.InvalidArgument, "text", "eventrelay", "INVALID_REQUEST", nil, &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: description}},
		})
	}
	for _, c := range []struct {
		name string
		err  error
		code int
		says string
	}{
		{"not found", refusal(codes.NotFound, "no", "eventrelay", "SOURCE_NOT_FOUND", source), exitFailure, `there is no source "shop": ` + "`eventrelay sources list`"},
		{"exists", refusal(codes.AlreadyExists, "no", "eventrelay", "SOURCE_EXISTS", source), exitFailure, "`eventrelay sources update shop`"},
		{"of a file", refusal(codes.FailedPrecondition, "no", "eventrelay", "SOURCE_READ_ONLY", source), exitFailure, "defined in a file"},
		{"stale", refusal(codes.Aborted, "no", "eventrelay", "ETAG_STALE", nil), exitFailure, "--etag"},
		{
			"lacks a credential", refusal(codes.FailedPrecondition, "it needs one", "eventrelay", "CREDENTIALS_MISSING", map[string]string{"source": "sources/shop", "field": "access_token"}),
			exitFailure, "it needs one; set it with `eventrelay sources update shop --access-token @FILE`",
		},
		{
			"is of another provider", refusal(codes.FailedPrecondition, "it is of 360dialog", "eventrelay", "CREDENTIALS_MISSING", map[string]string{"source": "sources/shop", "field": "provider"}),
			exitFailure, "eventrelay: it is of 360dialog\n",
		},
		{"declares nothing", refusal(codes.FailedPrecondition, "no", "eventrelay", "SUBSCRIPTIONS_NOT_DECLARED", source), exitFailure, "connect shop` with --public-url"},
		{
			"override", refusal(codes.FailedPrecondition, "no", "eventrelay", "OVERRIDE_WOULD_BE_LOST", map[string]string{"override_callback_uri": "https://o.example.com"}),
			exitFailure, "https://o.example.com",
		},
		{"field", invalid("source.app_secrets[0]", "must be at least 8 characters"), exitUsage, "--app-secret: must be at least 8 characters"},
		{"field of a map", invalid(`headers["Authorization"]`, "too short"), exitUsage, "--header: too short"},
		{"field of a declaration", invalid("subscriptions.objects[0].fields[1]", "wrong word"), exitUsage, "--object: wrong word"},
		{"the same below the source", invalid("source.subscriptions.public_base_url", "no address"), exitUsage, "--public-url: no address"},
		{"rule of a whole message", invalid("", "headers: a source of PROVIDER_DIALOG360_CHANNEL needs one"), exitUsage, "--header: a source of"},
		{"rule of no field", invalid("", "It cannot be"), exitUsage, "eventrelay: It cannot be\n"},
		{"regular field", invalid("display_name", "too long"), exitUsage, "--display-name: too long"},
		{"id", invalid("source_id", "wrong"), exitUsage, "the id: wrong"},
		{"invalid without details", refusal(codes.InvalidArgument, "cannot be", "eventrelay", "INVALID_REQUEST", nil), exitUsage, "cannot be"},
		{"filter", refusal(codes.InvalidArgument, "undeclared", "eventrelay", "FILTER_INVALID", map[string]string{"line": "1", "column": "7"}), exitUsage, "--filter, line 1, column 7: undeclared"},
		{"no token", status.Error(codes.Unauthenticated, "no token"), exitFailure, "EVENTRELAY_TOKEN or --token: no token"},
		{
			"Meta's credential", refusal(codes.Unauthenticated, "Invalid OAuth access token", "graph.facebook.com", "", map[string]string{"code": "190"}),
			exitFailure, "graph.facebook.com does not accept the source's credential: Invalid OAuth access token",
		},
		{
			"Meta's error", refusal(codes.InvalidArgument, "(#100) Invalid parameter", "graph.facebook.com", "", map[string]string{"code": "100", "subcode": "33", "fbtrace_id": "AbC"}),
			exitFailure, "(#100) Invalid parameter (graph.facebook.com: code 100, subcode 33, fbtrace_id AbC)",
		},
		{
			"Meta is away", refusal(codes.Unavailable, "Service temporarily unavailable", "graph.facebook.com", "", map[string]string{"code": "2"}),
			exitFailure, "eventrelay: Service temporarily unavailable (graph.facebook.com: code 2)\n",
		},
		{"older server", status.Error(codes.Unimplemented, "unknown service"), exitFailure, "older server"},
		{"not ready", status.Error(codes.Unavailable, "the log is away"), exitFailure, "the log is away"},
		{"no text", status.Error(codes.PermissionDenied, ""), exitFailure, "PermissionDenied"},
		{"anything else", status.Error(codes.PermissionDenied, "not for readers"), exitFailure, "eventrelay: not for readers\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &desk{answer: func(proto.Message) (proto.Message, error) { return nil, c.err }}
			got := d.ask(t, "sources", "describe", "shop")
			if got.code != c.code || got.out != "" || !strings.Contains(got.err, c.says) || strings.Count(got.err, "\n") != 1 {
				t.Errorf("exit %d: %s", got.code, got.err)
			}
		})
	}
}

func TestAServerThatIsNotThereIsNamed(t *testing.T) {
	address := unused(t)
	if got := eventrelay(t, "sources", "list", "--server", address); got.code != exitFailure || !strings.Contains(got.err, "cannot reach "+address) {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
}

func TestWrongFlagsOfManagementNameThemselvesAndTheFix(t *testing.T) {
	for _, c := range []struct {
		args string
		says []string
	}{
		{"sources create", []string{"id", "sources create ID"}},
		{"sources create Shop --provider meta", []string{`"Shop"`, "a-z"}},
		{"sources create shop", []string{"--provider", "meta", "dialog360-channel"}},
		{"sources create shop --provider facebook", []string{"--provider", "dialog360-partner"}},
		{"sources create shop --provider meta --app-secret @/does/not/exist", []string{"--app-secret", "no such file"}},
		{"sources create shop --provider meta --app-secret -", []string{"--app-secret is empty", "@FILE"}},
		{"sources create shop --provider meta --label team", []string{`--label "team"`, "KEY=VALUE"}},
		{"sources create shop --provider meta --label a=b --label a=c", []string{"--label", "twice"}},
		{"sources create shop --provider dialog360-channel --header Authorization", []string{"--header", "Name: value"}},
		{"sources create shop --provider dialog360-channel --header -", []string{"--header is empty"}},
		{"sources create shop --file /does/not/exist", []string{"--file"}},
		{"sources create shop --file -", []string{"--file", "empty"}},
		{"sources update shop", []string{"nothing to change", "--display-name"}},
		{"sources update shop --pause --resume", []string{"--pause", "--resume"}},
		{"sources update shop --undeclare --waba 1", []string{"--undeclare", "--waba"}},
		{"sources update shop --names-only", []string{"--names-only", "--object"}},
		{"sources update shop --access-token=", []string{"--access-token is empty"}},
		{"sources rotate shop", []string{"--app-secret", "--end"}},
		{"sources rotate shop --end --app-secret x", []string{"--end", "EVENTRELAY_APP_SECRET"}},
		{"sources connect shop --object page", []string{`--object "page"`, "page=feed,messages"}},
		{"sources connect shop --object page=a --object page=b", []string{"--object page", "twice"}},
		{"sources connect shop --names-only", []string{"--names-only", "--object"}},
		{"sources connect shop --waba 1=", []string{"--waba", "1234567890=https://"}},
		{"sources connect shop --waba 1 --waba 1=https://a", []string{"--waba 1", "twice"}},
		{"sources delete shop", []string{"--yes"}},
		{"events list --from yesterday", []string{"--from", "10m", "7d"}},
		{"events list --to latest", []string{"--to"}},
		{"events list --from=-1h", []string{"--from", "future"}},
		{"events list --order newest", []string{"--order"}},
		{"events get", []string{"<id>"}},
		{"events get x --raw --json", []string{"--raw", "--json"}},
		{"events drift --since forever", []string{"--since"}},
		{"meta app delete shop page", []string{"everything of page", "--yes"}},
		{"meta waba override shop 1 --verify-token x", []string{"--url"}},
		{"meta phone get Shop 1", []string{`"Shop"`}},
		{"dialog360 partner-webhook set shop", []string{"--url"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			d := answers(nil)
			got := d.ask(t, strings.Fields(c.args)...)
			if got.code != exitUsage || got.out != "" || len(d.asked()) != 0 {
				t.Errorf("exit %d, printed %q, asked for %v", got.code, got.out, d.asked())
			}
			for _, word := range c.says {
				if !strings.Contains(got.err, word) {
					t.Errorf("%q is not in: %s", word, got.err)
				}
			}
		})
	}
}
