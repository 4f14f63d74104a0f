package gateway

import (
	"context"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// answered gives the gateway an answer to write to, which it also finds in the context of the request.
func answered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &answer{ResponseWriter: w}
		next.ServeHTTP(a, r.WithContext(context.WithValue(r.Context(), answerKey{}, a)))
	})
}

// answer is a response writer that adds the challenge that every 401 must have, where the gateway would put the text of the error. One request writes to it at a time.
type answer struct {
	http.ResponseWriter

	begun bool // whether some of the body is written
}

type answerKey struct{}

func (a *answer) WriteHeader(code int) {
	if code == http.StatusUnauthorized {
		a.Header().Set("WWW-Authenticate", "Bearer")
	}
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(p []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(p)
}

// Flush sends what is written so far: streams are flushed part by part.
func (a *answer) Flush() { _ = http.NewResponseController(a.ResponseWriter).Flush() }

// Unwrap gives the writer itself.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// streamError is the status that a stream ends with. Where some of its body is written already, an error behind that would be taken for a part of the body: the connection is
// cut instead, so that the client knows that it has not got all of it.
func streamError(ctx context.Context, err error) *status.Status {
	if a, ok := ctx.Value(answerKey{}).(*answer); ok && a.begun {
		panic(http.ErrAbortHandler)
	}
	return status.Convert(err)
}

// marshaler writes the parts of a streamed body without anything between them, so that it arrives byte for byte.
type marshaler struct{ *runtime.HTTPBodyMarshaler }

// Delimiter returns what stands between the parts of a stream: nothing.
func (marshaler) Delimiter() []byte { return nil }

// Marshal writes the error of a stream as that of any other call: the status itself, which the gateway hands over in an envelope.
func (m marshaler) Marshal(v any) ([]byte, error) {
	if chunk, ok := v.(map[string]proto.Message); ok && len(chunk) == 1 && chunk["error"] != nil {
		v = chunk["error"]
	}
	return m.HTTPBodyMarshaler.Marshal(v)
}
