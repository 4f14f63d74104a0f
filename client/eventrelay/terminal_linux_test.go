package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"google.golang.org/protobuf/types/known/emptypb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// openTerminal makes a terminal: what is written to keys is typed at it, and what it shows is read from keys.
func openTerminal(t *testing.T) (keys, screen *os.File) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { keys.Close() })
	var number, locked int32
	for request, value := range map[uintptr]*int32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &locked} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, keys.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Skipf("no terminals here: %v", errno)
		}
	}
	screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	return keys, screen
}

// echoes reports whether a terminal shows what is typed.
func echoes(screen *os.File) bool {
	var state syscall.Termios
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, screen.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&state)))
	return errno == 0 && state.Lflag&syscall.ECHO != 0
}

// typing runs a command at a terminal. Whenever it asks, the answer is typed.
func typing(t *testing.T, d *desk, answer string, args ...string) (got result, shown string) {
	t.Helper()
	keys, screen := openTerminal(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out, diag bytes.Buffer
	asked := writer(func(p []byte) (int, error) {
		switch text := string(p); {
		case strings.HasSuffix(text, "[y/N] "):
			keys.WriteString(answer + "\n")
		case strings.HasSuffix(text, "(not shown): "):
			// Nobody types as fast as a test: not before the terminal has stopped to show what is typed.
			go func() {
				for echoes(screen) {
					runtime.Gosched()
				}
				keys.WriteString(answer + "\n")
			}()
		}
		return diag.Write(p)
	})
	code := run(ctx, append(args, "--server", d.serve(t)), screen, &out, asked)
	if ctx.Err() != nil {
		t.Fatalf("eventrelay %v did not end; it said %s", args, diag.String())
	}
	fmt.Fprint(screen, "END")
	var echoed strings.Builder
	for part := make([]byte, 256); !strings.HasSuffix(echoed.String(), "END"); {
		n, err := keys.Read(part)
		if err != nil {
			t.Fatal(err)
		}
		echoed.Write(part[:n])
	}
	return result{code, out.String(), diag.String()}, echoed.String()
}

func TestDeleteAsksAtATerminal(t *testing.T) {
	for answer, deletes := range map[string]bool{"y": true, "YES": true, "": false, "n": false, "yep": false, "\x04": false} {
		d := answers(&emptypb.Empty{})
		got, _ := typing(t, d, answer, "sources", "delete", "shop")
		if (got.code == exitDone) != deletes || (len(d.asked()) == 1) != deletes || !strings.Contains(got.err, "Delete sources/shop of 127.0.0.1") {
			t.Errorf("%q: exit %d, asked for %v: %s", answer, got.code, d.asked(), got.err)
		}
	}
}

func TestASecretThatIsTypedIsNotShown(t *testing.T) {
	d := answers(shop())
	got, shown := typing(t, d, hush, "sources", "rotate", "shop", "--app-secret", "-")
	if got.code != exitDone || !strings.Contains(got.err, "--app-secret (not shown): ") {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
	d.wants(t, &eventrelayv1.RotateSecretRequest{Name: "sources/shop", AppSecret: hush})
	if strings.Contains(shown+got.out+got.err, hush) {
		t.Errorf("shown: %q", shown)
	}
	if _, shown := typing(t, answers(&emptypb.Empty{}), "yes", "sources", "delete", "shop"); !strings.Contains(shown, "yes") {
		t.Errorf("this terminal shows nothing at all: %q", shown)
	}
}

func TestAnInterruptEndsAQuestion(t *testing.T) {
	for _, args := range [][]string{{"sources", "delete", "shop"}, {"sources", "rotate", "shop", "--app-secret", "-"}} {
		keys, screen := openTerminal(t)
		ctx, interrupt := context.WithCancel(t.Context())
		code := run(ctx, args, screen, &bytes.Buffer{}, writer(func(p []byte) (int, error) { interrupt(); return len(p), nil }))
		if code != exitFailure {
			t.Errorf("%v: exit %d", args, code)
		}
		keys.WriteString("n\n") // so that what still reads ends
		interrupt()
	}
}

func TestRawJSONDoesNotSteerATerminal(t *testing.T) {
	keys, screen := openTerminal(t)
	d := &desk{raw: [][]byte{[]byte("{\"a\":\n\"\x1b[2J\xc2"), []byte("\x9b\u202e\"}")}}
	if code := run(t.Context(), []string{"events", "get", "x", "--raw", "--server", d.serve(t)}, strings.NewReader(""), screen, &bytes.Buffer{}); code != exitDone {
		t.Errorf("exit %d", code)
	}
	fmt.Fprint(screen, "END")
	var shown strings.Builder
	for part := make([]byte, 256); !strings.HasSuffix(shown.String(), "END"); {
		n, err := keys.Read(part)
		if err != nil {
			t.Fatal(err)
		}
		shown.Write(part[:n])
	}
	if want := "{\"a\":\r\n\"\\u001b[2J\\u009b\\u202e\"}\r\nEND"; shown.String() != want {
		t.Errorf("shown: %q", shown.String())
	}
}

func TestATerminalIsColouredUnlessTheEnvironmentSaysOtherwise(t *testing.T) {
	_, screen := openTerminal(t)
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	if !colorful(screen) {
		t.Error("a terminal is not coloured")
	}
	t.Setenv("NO_COLOR", "1")
	if colorful(screen) {
		t.Error("NO_COLOR is not respected")
	}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	if colorful(screen) {
		t.Error("a dumb terminal is coloured")
	}
}
