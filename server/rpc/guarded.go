package rpc

import (
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	"eventrelay/server/auth"
)

// Guarded lets callers who have the required role through to what is served over HTTP beside the RPCs. Others get the same statuses as from an RPC.
func Guarded(guard *auth.Guard, required auth.Role, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := guard.Allow(r.Context(), r.URL.Path, required, r.Header.Values("Authorization"))
		if err == nil {
			next.ServeHTTP(w, r)
			return
		}
		s := toStatus(err)
		code := http.StatusForbidden
		if s.Code() == codes.Unauthenticated {
			code = http.StatusUnauthorized
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		body, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(s.Proto())
		if err != nil {
			http.Error(w, http.StatusText(code), code)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write(body) // a client that has gone needs no answer
	})
}
