package gateway

import (
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
)

// NewDecoder returns a decoder whose errors say where and what is wrong without citing the body: a secret that lacks its quotes would come back in the answer, and from there into
// whatever logs answers.
func (m marshaler) NewDecoder(r io.Reader) runtime.Decoder {
	decoder := m.HTTPBodyMarshaler.NewDecoder(r)
	return runtime.DecoderFunc(func(v any) error {
		err := decoder.Decode(v)
		if err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		return uncited(err)
	})
}

var (
	position     = regexp.MustCompile(`\(line \d+:\d+\)`)
	unknownField = regexp.MustCompile(`unknown field "[A-Za-z_]{1,40}"`)
	wrongValue   = regexp.MustCompile(`invalid value for [a-z0-9]+ field [A-Za-z_]{1,40}`)
)

// uncited makes an error of the decoder's that repeats nothing but names of fields.
func uncited(err error) error {
	text := err.Error()
	what := "it is not JSON of the message that the call takes"
	if found := unknownField.FindString(text); found != "" {
		what = found
	} else if found := wrongValue.FindString(text); found != "" {
		what = found
	}
	if at := position.FindString(text); at != "" {
		what += " " + at
	}
	return fmt.Errorf("the body cannot be read: %s", what)
}
