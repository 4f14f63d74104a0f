package main

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// testClients asks for the tests that fetch packages of other languages.
const testClients = "EVENTRELAY_TEST_CLIENTS"

// pythonPackages make and check clients. They are pinned, as everything that makes code is.
var pythonPackages = []string{"openapi-python-client==0.29.1", "openapi-spec-validator==0.9.0"}

// The description is worth what others can make of it: here a client in Python, which knows nothing but the document that the server serves.
func TestAClientGeneratedInAnotherLanguageCallsTheServer(t *testing.T) {
	if os.Getenv(testClients) == "" {
		t.Skipf("it fetches packages from PyPI: set %s=1 to run it", testClients)
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skipf("there is no Python here: %v", err)
	}
	dir := t.TempDir()
	run := func(name string, args ...string) (string, error) {
		command := exec.CommandContext(t.Context(), name, args...)
		command.Dir = dir
		out, err := command.CombinedOutput()
		return string(out), err
	}
	tool := func(name string) string { return filepath.Join(dir, "venv", "bin", name) }
	if out, err := run(python, "-m", "venv", "venv"); err != nil {
		t.Skipf("Python has no room for packages of its own here: %v\n%s", err, out)
	}
	if out, err := run(tool("pip"), append([]string{"install", "--quiet", "--disable-pip-version-check"}, pythonPackages...)...); err != nil {
		t.Skipf("the packages cannot be fetched: %v\n%s", err, out)
	}

	tokens := filepath.Join(dir, "tokens.yaml")
	writeTokens(t, tokens, map[string]string{operatorToken: "operator"})
	r := serve(t, dir, "--tokens-file", tokens)
	if code := r.post("dev", text("wamid.generated", "by a generated client")); code != http.StatusOK {
		t.Fatalf("a notification is answered %d", code)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.http+"/openapi.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	document, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the description: %d, %v", resp.StatusCode, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "openapi.json"), document, 0o600); err != nil {
		t.Fatal(err)
	}
	// Formatting what is thrown away would take one more tool.
	if err := os.WriteFile(filepath.Join(dir, "generator.yaml"), []byte("post_hooks: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("testdata/client.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range [][]string{
		{tool("openapi-spec-validator"), "openapi.json"},
		{tool("openapi-python-client"), "generate", "--path", "openapi.json", "--config", "generator.yaml", "--fail-on-warning", "--meta", "none", "--output-path", "eventrelay_client"},
		{"env", "PYTHONPATH=" + dir, "PYTHONDONTWRITEBYTECODE=1", tool("python"), script, r.http, operatorToken},
	} {
		out, err := run(step[0], step[1:]...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", step, err, out)
		}
		t.Log(out)
	}
}
