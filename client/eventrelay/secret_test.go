package main

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// Whatever goes wrong, a secret that was given is not told: terminals have scrollback, and CI has logs.
func TestNoErrorTellsASecret(t *testing.T) {
	twoLines, header := file(t, hush+"\n"+hush), file(t, hush)
	for _, args := range [][]string{
		{"create", "shop", "--provider", "meta", "--app-secret", "@" + hush},
		{"create", "shop", "--provider", "meta", "--app-secret", "@" + twoLines},
		{"create", "shop", "--provider", "meta", "--app-secret", hush + "\n" + hush},
		{"create", "shop", "--provider", "meta", "--app-secret", hush, "--verify-token", hush, "--access-token", hush},
		{"create", "shop", "--provider", "meta", "--app-secret", hush, "--nonsense"},
		{"create", "shop", "--provider", "meta", "--app-secert=" + hush},
		{"create", "shop", "--provider", "meta", hush},
		{"create", "shop", "--provider", "dialog360-channel", "--header", hush},
		{"create", "shop", "--provider", "dialog360-channel", "--header", "@" + header},
		{"create", "shop", "--provider", "dialog360-channel", "--header", ":" + hush},
		{"create", "shop", "--provider", "dialog360-channel", "--header", "A: " + hush, "--header", "A: " + hush},
		{"update", "shop", "--access-token", "@" + hush},
		{"update", "shop", "--header", hush},
		{"rotate", "shop", "--app-secret", "@" + hush},
		{"rotate", "shop", "--app-secret", hush, "--end"},
		{"rotate", "shop", hush},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			d := &desk{answer: func(proto.Message) (proto.Message, error) {
				return nil, refusal(codes.InvalidArgument, "no", "eventrelay", "INVALID_REQUEST", nil)
			}}
			got := d.ask(t, append([]string{"sources"}, args...)...)
			if got.code == exitDone || strings.Contains(got.out+got.err, hush) {
				t.Errorf("exit %d, told %s%s", got.code, got.out, got.err)
			}
		})
	}
}

func TestStandardInputHoldsOneSecret(t *testing.T) {
	d := answers(shop())
	got := d.askWith(t, strings.NewReader(hush), "sources", "create", "shop", "--provider", "meta", "--app-secret", "-", "--access-token", "-")
	if got.code != exitUsage || !strings.Contains(got.err, "--app-secret: standard input is read for --access-token already") || len(d.asked()) != 0 {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
}

func TestASourceFileIsReadStrictlyAndItsErrorsKeepItsSecrets(t *testing.T) {
	for _, c := range []struct {
		name, yaml string
		says       string
	}{
		{"a list", "- name: sources/shop\n  app_secrets: [" + hush + "]\n", "fields of one source"},
		{"the server's file", "sources:\n- name: sources/shop\n  app_secrets: [" + hush + "]\n", "fields of one source"},
		{"a word", hush, "fields of one source"},
		{"an unknown field", "provider: PROVIDER_META\nap_secret: " + hush + "\n", `--file:2:1 unknown field "ap_secret"`},
		{"a secret as a key", "provider: PROVIDER_META\n" + hush + ": 1\n", "--file:2:1 unknown field (not shown)"},
		{"a key twice", "app_secrets: [" + hush + "]\napp_secrets: [" + hush + "2]\n", "--file:2:1 a key that is given twice"},
		{"null", "verify_token: null\n", "--file:1:15 there is no value"},
		{"nothing", "verify_token:\n", "there is no value"},
		{"an alias", "app_secrets: [&a " + hush + "]\nverify_token: *a\n", "alias"},
		{"an alias of nothing", "verify_token: *" + hush + "\n", "in quotes"},
		{"two documents", "name: sources/shop\n---\nverify_token: " + hush + "\n", "more than one YAML document"},
		{"no list", "app_secrets: " + hush + "\n", "--file:1:14"},
		{"a broken quote", "app_secrets: [\"" + hush + "\n", "--file"},
		{"another name", "name: sources/other\nprovider: PROVIDER_META\napp_secrets: [" + hush + "]\n", "sources/other, not sources/shop"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := answers(shop())
			got := d.ask(t, "sources", "create", "shop", "--file", file(t, c.yaml))
			if got.code != exitUsage || !strings.Contains(got.err, c.says) || strings.Count(got.err, "\n") != 1 || len(d.asked()) != 0 {
				t.Errorf("exit %d: %s", got.code, got.err)
			}
			if strings.Contains(got.out+got.err, hush) {
				t.Errorf("told the secret: %s", got.err)
			}
		})
	}
}

func FuzzASourceFileThatIsRefusedKeepsItsSecrets(f *testing.F) {
	f.Add("name: sources/shop\nprovider: PROVIDER_META\napp_secrets: [", "]\nverify_token: x\n")
	f.Add("headers: {a: ", "\n")
	f.Add("app_secrets:\n  - &", " x\n")
	f.Add("verify_token: !", " x\n")
	f.Add("%", "\n")
	f.Add("labels: {a: \"\\x", "\"}")
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(hush, before) && before != "" {
			t.Skip()
		}
		err := readSource(t.Context(), "-", &eventrelayv1.Source{}, &output{in: strings.NewReader(before + hush + after)})
		if err != nil && strings.Contains(err.Error(), hush) {
			t.Errorf("told the secret: %v", err)
		}
	})
}

// Every field that the schema marks as secret is left out of JSON, wherever it stands.
func TestJSONLeavesOutEverySecretOfTheSchema(t *testing.T) {
	files := []protoreflect.FileDescriptor{
		eventrelayv1.File_eventrelay_v1_source_proto, eventrelayv1.File_eventrelay_v1_source_service_proto,
		eventrelayv1.File_eventrelay_v1_meta_subscription_service_proto, eventrelayv1.File_eventrelay_v1_dialog360_service_proto,
	}
	secrets := 0
	for _, file := range files {
		for i := range file.Messages().Len() {
			fields := file.Messages().Get(i).Fields()
			for j := range fields.Len() {
				if fields.Get(j).Options().(*descriptorpb.FieldOptions).GetDebugRedact() {
					secrets++
				}
			}
		}
	}
	if secrets < 10 {
		t.Errorf("only %d secret fields were found", secrets)
	}
	var text strings.Builder
	err := (&output{out: &text}).printJSON(&eventrelayv1.CreateSourceRequest{SourceId: "shop", Source: shop()})
	if err != nil || strings.Contains(text.String(), hush) || !strings.Contains(text.String(), `"app_id":"1234567890"`) {
		t.Errorf("%s (%v)", text.String(), err)
	}
}
