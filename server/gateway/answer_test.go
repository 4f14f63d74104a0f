package gateway

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const rawPath = "/v1/events/aaaaaaaaaaaaaaaaaaaaaaaaaa:raw"

func TestAStreamThatIsRefusedAnswersAStatusLikeAnyOtherCall(t *testing.T) {
	gateway := connected(t, func(any, grpc.ServerStream) error { return status.Error(codes.NotFound, "gone") })
	got := httptest.NewRecorder()
	gateway.ServeHTTP(got, httptest.NewRequest(http.MethodGet, rawPath, nil))
	if body := strings.ReplaceAll(got.Body.String(), " ", ""); got.Code != http.StatusNotFound || !strings.HasPrefix(body, `{"code":5,"message":"gone"`) {
		t.Errorf("%d %s", got.Code, got.Body)
	}
}

// A body that ends early must not look whole, nor have an error of ours at its end.
func TestAStreamThatBreaksOffCutsTheConnection(t *testing.T) {
	server := httptest.NewServer(connected(t, func(_ any, stream grpc.ServerStream) error {
		if err := stream.SendMsg(&httpbody.HttpBody{ContentType: "application/json", Data: []byte(`{"half":`)}); err != nil {
			return err
		}
		return status.Error(codes.Unavailable, "going down")
	}))
	defer server.Close()
	resp, err := http.Get(server.URL + rawPath)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK || string(body) != `{"half":` || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d %q, %v", resp.StatusCode, body, err)
	}
}
