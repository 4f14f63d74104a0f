package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	nats "github.com/nats-io/nats-server/v2/server"
)

// marker is in every secret of these tests, and in nothing else.
const marker = "MARKER"

// shop is a source with a value in every field that holds a secret.
const shop = `{"provider":"PROVIDER_META","display_name":"Shop","app_id":"1","app_secrets":["MARKER-app-secret"],"verify_token":"MARKER-verify","access_token":"MARKER-access",
	"partner_api_key":"MARKER-partner","channel_api_key":"MARKER-channel","headers":{"Authorization":"Basic MARKER"}}`

// call makes a REST call and returns its status and body, which is as the OpenAPI description says, and in which no secret may ever be.
func (r *relay) call(method, path, body string) (int, map[string]any) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.http+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if bytes.Contains(answer, []byte(marker)) {
		r.t.Errorf("%s %s answers with a secret: %s", method, path, answer)
	}
	r.asDescribed(resp, answer)
	var decoded map[string]any
	if err := json.Unmarshal(answer, &decoded); err != nil {
		r.t.Errorf("%s %s: %d %s", method, path, resp.StatusCode, answer)
	}
	return resp.StatusCode, decoded
}

// must is call for what has to be answered 200.
func (r *relay) must(method, path, body string) map[string]any {
	r.t.Helper()
	code, answer := r.call(method, path, body)
	if code != http.StatusOK {
		r.t.Fatalf("%s %s: %d %v", method, path, code, answer)
	}
	return answer
}

// postSigned posts a body to a source, signed as Meta does.
func (r *relay) postSigned(source, secret string, body []byte) int {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.webhooks+"/webhooks/"+source, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Hub-Signature-256", "sha256="+sign(secret, body))
	return r.do(req)
}

func TestASourceLivesByCalls(t *testing.T) {
	dir := t.TempDir()
	r := serve(t, dir)
	body := text("wamid.1", "hello")
	if code := r.postSigned("shop", "MARKER-app-secret", body); code != http.StatusNotFound {
		t.Errorf("before it is created its webhook is answered %d", code)
	}
	created := r.must("POST", "/v1/sources?source_id=shop", shop)
	if created["name"] != "sources/shop" || created["webhook_path"] != "/webhooks/shop" || created["origin"] != "SOURCE_ORIGIN_API" || created["create_time"] == nil || created["etag"] == "" {
		t.Errorf("created %v", created)
	}
	if code, answer := r.call("POST", "/v1/sources?source_id=shop", shop); code != http.StatusConflict || !strings.Contains(fmt.Sprint(answer), "SOURCE_EXISTS") {
		t.Errorf("created twice: %d %v", code, answer)
	}
	if code := r.postSigned("shop", "MARKER-app-secret", body); code != http.StatusOK {
		t.Errorf("its webhook is answered %d", code)
	}
	if code := r.postSigned("shop", "MARKER-app-secret", body); code != http.StatusOK {
		t.Errorf("its webhook is answered %d", code)
	}
	if code := r.postSigned("shop", "another", body); code != http.StatusUnauthorized {
		t.Errorf("a forged notification is answered %d", code)
	}
	r.drained()
	stats := r.must("GET", "/v1/sources/shop", "")["stats"].(map[string]any)
	if stats["accepted_notifications"] != "2" || stats["events"] != "1" || stats["duplicate_events"] != "1" || stats["last_notification_time"] == nil ||
		fmt.Sprint(stats["refused_notifications"]) != "map[signature_wrong:1]" {
		t.Errorf("stats %v", stats)
	}

	// Only what the body names is changed, and nothing of what it names is output only.
	changed := r.must("PATCH", "/v1/sources/shop", `{"name":"sources/other","paused":true,"webhook_path":"/x","stats":{"events":"7"}}`)
	if changed["paused"] != true || changed["display_name"] != "Shop" || changed["name"] != "sources/shop" || changed["webhook_path"] != "/webhooks/shop" || changed["etag"] == created["etag"] {
		t.Errorf("changed %v", changed)
	}
	resp, err := http.Post(r.webhooks+"/webhooks/shop", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a paused source answers %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	if got := r.must("PATCH", "/v1/sources/shop?update_mask=paused,display_name", `{}`); got["paused"] == true || got["display_name"] != nil {
		t.Errorf("with an explicit mask: %v", got)
	}
	if code, answer := r.call("PATCH", "/v1/sources/shop", fmt.Sprintf(`{"paused":true,"etag":%q}`, created["etag"])); code != http.StatusConflict || !strings.Contains(fmt.Sprint(answer), "ETAG_STALE") {
		t.Errorf("from an old etag: %d %v", code, answer)
	}

	r.must("POST", "/v1/sources/shop:rotateSecret", `{"app_secret":"MARKER-second"}`)
	for _, secret := range []string{"MARKER-app-secret", "MARKER-second"} {
		if code := r.postSigned("shop", secret, body); code != http.StatusOK {
			t.Errorf("while rotating, %d", code)
		}
	}
	rotated := r.must("GET", "/v1/sources/shop", "")
	if uses := fmt.Sprint(rotated["secret_uses"]); strings.Count(uses, "last_used_time:2") != 2 || !strings.Contains(uses, "app_secrets[1]") || !strings.Contains(uses, `headers["Authorization"]`) {
		t.Errorf("uses %v", uses)
	}
	r.must("POST", "/v1/sources/shop:rotateSecret", `{}`)
	if code := r.postSigned("shop", "MARKER-app-secret", body); code != http.StatusUnauthorized {
		t.Errorf("the old secret is answered %d when the rotation has ended", code)
	}

	r.stop()
	r = serve(t, dir)
	if code := r.postSigned("shop", "MARKER-second", body); code != http.StatusOK {
		t.Errorf("after a restart, %d", code)
	}
	if list := fmt.Sprint(r.must("GET", "/v1/sources", "")); !strings.Contains(list, "sources/dev ") || !strings.Contains(list, "sources/shop ") {
		t.Errorf("list %s", list)
	}
	r.must("DELETE", "/v1/sources/shop", "")
	if code := r.postSigned("shop", "MARKER-second", body); code != http.StatusNotFound {
		t.Errorf("a deleted source answers %d", code)
	}
}

func TestACallThatCannotBeDoneSaysWhyWithoutASecret(t *testing.T) {
	r := serve(t, t.TempDir())
	r.must("POST", "/v1/sources?source_id=shop", shop)
	long := strings.Repeat(marker, 400)
	for _, c := range []struct {
		method, path, body string
		code               int
		want               []string
	}{
		{"POST", "/v1/sources?source_id=Shop", shop, 400, []string{"INVALID_REQUEST", "source_id"}},
		{"POST", "/v1/sources", shop, 400, []string{"INVALID_REQUEST", "source_id"}},
		{"POST", "/v1/sources?source_id=new", `{}`, 400, []string{"INVALID_REQUEST", "field:provider"}},
		{"POST", "/v1/sources?source_id=new", ``, 400, []string{"INVALID_REQUEST", "field:provider"}},
		{"POST", "/v1/sources?source_id=new", `{"provider":"PROVIDER_META","verify_token":"MARKER-verify"}`, 400, []string{"field:app_secrets", "at least one secret"}},
		{"POST", "/v1/sources?source_id=new", `{"provider":"PROVIDER_META","app_secrets":["MARKER"],"verify_token":"MARKER-verify"}`, 400, []string{"field:app_secrets[0]"}},
		{"POST", "/v1/sources?source_id=new", `{"provider":"PROVIDER_META","app_secrets":["MARKER-app "],"verify_token":"` + long + `"}`, 400, []string{"field:app_secrets[0]", "white space", "field:verify_token"}},
		{"POST", "/v1/sources?source_id=new", `{"provider":"PROVIDER_DIALOG360_CHANNEL"}`, 400, []string{"field:headers"}},
		{"POST", "/v1/sources?source_id=new", `{"provider":"PROVIDER_DIALOG360_CHANNEL","headers":{"Content-Type":"MARKER-json"}}`, 400, []string{`field:headers["Content-Type"]`, "proves nothing"}},
		{"POST", "/v1/sources?source_id=new", `{"provider":"PROVIDER_DIALOG360_CHANNEL","headers":{"MARKER header":"MARKER-json"}}`, 400, []string{"field:headers"}},
		{"POST", "/v1/sources?source_id=new", `{"require_client_certificate":true,` + shop[1:], 400, []string{"field:require_client_certificate"}},
		{"POST", "/v1/sources?source_id=new", `{"verify_token":MARKER-verify}`, 400, []string{"cannot be read"}},
		{"POST", "/v1/sources?source_id=new", `{"verify_token":["MARKER-verify"]}`, 400, []string{"cannot be read"}},
		{"POST", "/v1/sources?source_id=new", `{"paused":"MARKER"}`, 400, []string{"cannot be read", "paused"}},
		{"POST", "/v1/sources?source_id=new", `{"app_secret":"MARKER-verify"}`, 400, []string{"cannot be read", `unknown field "app_secret"`}},
		{"POST", "/v1/sources?source_id=new", `{"verify_token":"MARKER`, 400, []string{"cannot be read"}},
		{"POST", "/v1/sources?source_id=dev", shop, 409, []string{"SOURCE_EXISTS", "sources/dev"}},
		{"GET", "/v1/sources/none", "", 404, []string{"SOURCE_NOT_FOUND", "sources/none"}},
		{"PATCH", "/v1/sources/none", `{"paused":true}`, 404, []string{"SOURCE_NOT_FOUND", "sources/none"}},
		{"PATCH", "/v1/sources/Shop", `{"paused":true}`, 400, []string{"INVALID_REQUEST", "field:name"}},
		{"PATCH", "/v1/sources/dev", `{"paused":true}`, 400, []string{"SOURCE_READ_ONLY", "sources/dev"}},
		{"PATCH", "/v1/sources/shop?update_mask=secrets", `{}`, 400, []string{"INVALID_REQUEST", "field:update_mask", "secrets: no such field"}},
		{"PATCH", "/v1/sources/shop?update_mask=*", `{}`, 400, []string{"field:update_mask", "name the fields"}},
		{"PATCH", "/v1/sources/shop?update_mask=app_secrets", `{}`, 400, []string{"field:app_secrets"}},
		{"PATCH", "/v1/sources/shop", `{"app_secrets":["MARKER-1","MARKER-2","MARKER-3"]}`, 400, []string{"field:app_secrets"}},
		{"DELETE", "/v1/sources/shop?etag=other", "", 409, []string{"ETAG_STALE", "sources/shop"}},
		{"DELETE", "/v1/sources/dev", "", 400, []string{"SOURCE_READ_ONLY"}},
		{"POST", "/v1/sources/dev:rotateSecret", `{"app_secret":"MARKER-new"}`, 400, []string{"SOURCE_READ_ONLY"}},
		{"POST", "/v1/sources/shop:rotateSecret", `{"app_secret":"MARKER"}`, 400, []string{"field:app_secret]"}},
		{"POST", "/v1/sources/shop:rotateSecret", `{"app_secret":"MARKER-app-secret"}`, 400, []string{"field:app_secret]", "first secret already"}},
		{"POST", "/v1/sources/shop:rotateSecret", `{"app_secret":MARKER-app-secret}`, 400, []string{"cannot be read"}},
	} {
		code, answer := r.call(c.method, c.path, c.body)
		if code != c.code {
			t.Errorf("%s %s %s: %d, want %d: %v", c.method, c.path, c.body, code, c.code, answer)
		}
		for _, want := range c.want {
			if !strings.Contains(fmt.Sprint(answer), want) {
				t.Errorf("%s %s %s: no %q in %v", c.method, c.path, c.body, want, answer)
			}
		}
	}
}

func TestAChannelProvesItselfByItsHeaders(t *testing.T) {
	r := serve(t, t.TempDir())
	r.must("POST", "/v1/sources?source_id=channel", `{"provider":"PROVIDER_DIALOG360_CHANNEL","headers":{"authorization":"Basic MARKER==","X-Relay":"MARKER-two"}}`)
	body := text("wamid.1", "hello")
	for _, c := range []struct {
		name    string
		headers [][2]string
		want    int
	}{
		{"both", [][2]string{{"Authorization", "Basic MARKER=="}, {"x-relay", "MARKER-two"}}, 200},
		{"none", nil, 401},
		{"one", [][2]string{{"Authorization", "Basic MARKER=="}}, 401},
		{"one wrong", [][2]string{{"Authorization", "Basic MARKER=="}, {"X-Relay", "MARKER-twO"}}, 401},
		{"longer", [][2]string{{"Authorization", "Basic MARKER=="}, {"X-Relay", "MARKER-two2"}}, 401},
		{"twice", [][2]string{{"Authorization", "Basic MARKER=="}, {"X-Relay", "MARKER-two"}, {"X-Relay", "MARKER-two"}}, 401},
		{"swapped", [][2]string{{"Authorization", "MARKER-two"}, {"X-Relay", "Basic MARKER=="}}, 401},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.webhooks+"/webhooks/channel", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		for _, h := range c.headers {
			req.Header.Add(h[0], h[1])
		}
		if got := r.do(req); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	events := r.all()
	if len(events) != 1 || events[0].GetType() != "meta.whatsapp_business_account.messages.message" || events[0].GetProvider().String() != "PROVIDER_DIALOG360_CHANNEL" {
		t.Errorf("events %v", events)
	}
	if got := fmt.Sprint(r.must("GET", "/v1/sources/channel", "")); !strings.Contains(got, "signature_missing:2") || !strings.Contains(got, "signature_wrong:4") || strings.Count(got, "last_used_time:2") != 2 {
		t.Errorf("the source shows %s", got)
	}
}

func TestNeitherALogLineNorAFileOfTheServerShowsASecret(t *testing.T) {
	dir := t.TempDir()
	var log record
	r := serveTold(t, dir, &log, "--log-level", "debug")
	r.must("POST", "/v1/sources?source_id=shop", shop)
	r.must("PATCH", "/v1/sources/shop", `{"verify_token":"MARKER-changed","labels":{"a":"b"}}`)
	r.must("POST", "/v1/sources/shop:rotateSecret", `{"app_secret":"MARKER-rotated"}`)
	r.call("POST", "/v1/sources?source_id=shop", shop)
	r.call("POST", "/v1/sources?source_id=x", `{"verify_token":MARKER}`)
	r.call("PATCH", "/v1/sources/shop", `{"verify_token":"MARKER ","access_token":" MARKER"}`)
	r.postSigned("shop", "MARKER-rotated", text("wamid.1", "hello"))
	r.postSigned("shop", "MARKER-other", text("wamid.1", "hello"))
	r.get("/webhooks/shop?hub.verify_token=MARKER-changed")
	if _, metrics := r.get("/metrics"); strings.Contains(metrics, marker) {
		t.Error("the metrics show a secret")
	}
	r.drained()
	r.stop()
	if text := log.String(); strings.Contains(text, marker) || !strings.Contains(text, "a source was created") {
		t.Errorf("the log: %s", text)
	}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(marker)) {
			t.Errorf("%s shows a secret", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	keys, err := os.ReadFile(filepath.Join(dir, "secrets.keys"))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "secrets.keys")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file %v, %v", info, err)
	}
	key := strings.Fields(string(keys))
	if strings.Contains(log.String(), key[len(key)-1]) {
		t.Error("the log shows the key")
	}
}

func TestASourceSurvivesKill9AsSoonAsItsCreationWasAnswered(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		r := spawn(t, dir)
		for k := range i {
			if code := r.postSigned(fmt.Sprint("shop-", k), "MARKER-app-secret", text(fmt.Sprint("wamid.", i, k), "hi")); code != http.StatusOK {
				t.Errorf("round %d: shop-%d answers %d", i, k, code)
			}
		}
		r.must("POST", fmt.Sprint("/v1/sources?source_id=shop-", i), shop)
		r.kill()
	}
}

func TestAStartWithAnotherKeyIsRefusedNamingTheFlag(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir).stop()
	other := filepath.Join(dir, "other.keys")
	var stderr bytes.Buffer
	code := start(t.Context(), args(dir, "--secrets-key-file", other), io.Discard, &stderr)
	if code != exitFailure || !strings.Contains(stderr.String(), "--secrets-key-file") || !strings.Contains(stderr.String(), other) || !strings.Contains(stderr.String(), "put the key") {
		t.Errorf("code %d: %s", code, stderr.String())
	}
	serve(t, dir).stop() // with the right one it starts as before
}

func TestRelaysThatShareALogShareTheirSources(t *testing.T) {
	srv, err := nats.NewServer(&nats.Options{
		ServerName: "external", Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, MaxPayload: 32 << 20, MaxPending: 1 << 30,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server does not come up")
	}
	keys := filepath.Join(t.TempDir(), "keys")
	shared := []string{"--nats-url", srv.ClientURL(), "--secrets-key-file", keys}
	one, two := serve(t, t.TempDir(), shared...), serve(t, t.TempDir(), shared...)
	one.must("POST", "/v1/sources?source_id=shop", shop)
	received := func(r *relay, secret string, want int) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); r.postSigned("shop", secret, text("wamid.1", "hi")) != want; time.Sleep(2 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the webhook is not answered %d within 20 s", want)
			}
		}
	}
	received(two, "MARKER-app-secret", 200)
	two.must("POST", "/v1/sources/shop:rotateSecret", `{"app_secret":"MARKER-second"}`)
	received(one, "MARKER-second", 200)
	two.must("DELETE", "/v1/sources/shop", "")
	received(one, "MARKER-second", 404)
	var stderr bytes.Buffer
	if code := start(t.Context(), args(t.TempDir(), append(shared, "--secrets-key-file", keys+".other")...), io.Discard, &stderr); code != exitFailure || !strings.Contains(stderr.String(), "--secrets-key-file") {
		t.Errorf("a relay with another key: code %d, %s", code, stderr.String())
	}
}

// Behind a proxy that ends TLS, the subject of the certificate that it has verified comes in a header; another's header is not believed.
func TestASourceThatRequiresMetasCertificateTakesNothingWithoutIt(t *testing.T) {
	r := serve(t, t.TempDir(), "--client-cert-header", "X-Subject", "--trusted-proxies", "127.0.0.1/32")
	r.must("POST", "/v1/sources?source_id=shop", fmt.Sprintf(`{"provider":"PROVIDER_META","app_secrets":[%q],"verify_token":"a-token","require_client_certificate":true}`, devSecret))
	body := text("wamid.1", "hi")
	for subject, want := range map[string]int{"": 403, "CN=somebody.else": 403, "CN=client.webhooks.fbclientcerts.com,O=Meta": 200} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.webhooks+"/webhooks/shop", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Hub-Signature-256", "sha256="+sign(devSecret, body))
		if subject != "" {
			req.Header.Set("X-Subject", subject)
		}
		if got := r.do(req); got != want {
			t.Errorf("subject %q: %d, want %d", subject, got, want)
		}
	}
	if answer := mustJSON(r.must("GET", "/v1/sources/shop", "")); !strings.Contains(answer, `"client_certificate":"2"`) {
		t.Errorf("the refusals are not counted: %s", answer)
	}
}
