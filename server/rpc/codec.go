package rpc

import (
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// ready is a message whose wire bytes are there already. gRPC holds on to them after SendMsg has returned, for as long as the other side does not read: nobody may write to
// them ever again, and nothing puts them back into a pool.
type ready struct{ wire mem.BufferSlice }

// codec hands ready messages on by reference and leaves all others to the codec of gRPC. It is the server's own, not the one that is registered for everybody.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

// Marshal returns the wire bytes of a message.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*ready); ok {
		return m.wire, nil
	}
	return c.CodecV2.Marshal(v)
}
