package translate

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// probeFile has a field of every kind that a payload may have, now or later.
const probeFile = `
name: "probe.proto" package: "probe" syntax: "proto3"
dependency: "google/protobuf/timestamp.proto" dependency: "google/protobuf/struct.proto" dependency: "eventrelay/mapping/v1/mapping.proto"
enum_type { name: "FooState"
  value { name: "FOO_STATE_UNSPECIFIED" number: 0 } value { name: "FOO_STATE_OPEN" number: 1 } value { name: "FOO_STATE_HALF_OPEN" number: 2 }
  value { name: "FOO_STATE_0" number: 3 } value { name: "FOO_STATE_12" number: 4 } }
message_type { name: "Probe"
  field { name: "s" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL proto3_optional: true oneof_index: 2 }
  field { name: "i32" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL proto3_optional: true oneof_index: 3 }
  field { name: "i64" number: 3 type: TYPE_INT64 label: LABEL_OPTIONAL }
  field { name: "u32" number: 4 type: TYPE_UINT32 label: LABEL_OPTIONAL }
  field { name: "u64" number: 5 type: TYPE_UINT64 label: LABEL_OPTIONAL }
  field { name: "d" number: 6 type: TYPE_DOUBLE label: LABEL_OPTIONAL proto3_optional: true oneof_index: 4 }
  field { name: "f" number: 7 type: TYPE_FLOAT label: LABEL_OPTIONAL }
  field { name: "b" number: 8 type: TYPE_BOOL label: LABEL_OPTIONAL proto3_optional: true oneof_index: 5 }
  field { name: "t" number: 9 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" label: LABEL_OPTIONAL }
  field { name: "e" number: 10 type: TYPE_ENUM type_name: ".probe.FooState" label: LABEL_OPTIONAL
    options { [eventrelay.mapping.v1.json_alias]: "old_e" [eventrelay.mapping.v1.json_alias]: "older_e" } }
  field { name: "m" number: 11 type: TYPE_MESSAGE type_name: ".probe.Probe" label: LABEL_OPTIONAL }
  field { name: "open" number: 12 type: TYPE_MESSAGE type_name: ".google.protobuf.Struct" label: LABEL_OPTIONAL }
  field { name: "rs" number: 13 type: TYPE_STRING label: LABEL_REPEATED }
  field { name: "ri" number: 14 type: TYPE_INT32 label: LABEL_REPEATED }
  field { name: "re" number: 15 type: TYPE_ENUM type_name: ".probe.FooState" label: LABEL_REPEATED }
  field { name: "rm" number: 16 type: TYPE_MESSAGE type_name: ".probe.Probe" label: LABEL_REPEATED }
  field { name: "ms" number: 17 type: TYPE_MESSAGE type_name: ".probe.Probe.MsEntry" label: LABEL_REPEATED }
  field { name: "mi" number: 18 type: TYPE_MESSAGE type_name: ".probe.Probe.MiEntry" label: LABEL_REPEATED }
  field { name: "party" number: 19 type: TYPE_MESSAGE type_name: ".probe.Probe" label: LABEL_OPTIONAL oneof_index: 0 }
  field { name: "party_text" number: 20 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 0 }
  field { name: "day" number: 21 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" label: LABEL_OPTIONAL }
  field { name: "day_text" number: 22 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "either" number: 23 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 1 }
  field { name: "or" number: 24 type: TYPE_INT32 label: LABEL_OPTIONAL oneof_index: 1 }
  field { name: "si" number: 25 type: TYPE_SINT64 label: LABEL_OPTIONAL }
  field { name: "fx" number: 26 type: TYPE_FIXED32 label: LABEL_OPTIONAL }
  field { name: "rt" number: 27 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" label: LABEL_REPEATED }
  nested_type { name: "MsEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } field { name: "value" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL } }
  nested_type { name: "MiEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_INT32 label: LABEL_OPTIONAL } field { name: "value" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL } }
  oneof_decl { name: "party_form" } oneof_decl { name: "choice" }
  oneof_decl { name: "_s" } oneof_decl { name: "_i32" } oneof_decl { name: "_d" } oneof_decl { name: "_b" }
}`

func probe(t testing.TB) protoreflect.MessageDescriptor {
	t.Helper()
	fdp := &descriptorpb.FileDescriptorProto{}
	if err := prototext.Unmarshal([]byte(probeFile), fdp); err != nil {
		t.Fatal(err)
	}
	fd, err := protodesc.NewFile(fdp, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return fd.Messages().ByName("Probe")
}

// typed writes a JSON object as a message and returns it as JSON, and the paths that did not fit.
func typed(t testing.TB, md protoreflect.MessageDescriptor, body string) (string, []string) {
	t.Helper()
	doc, ok := parsed([]byte(body))
	if !ok {
		t.Fatalf("not JSON: %s", body)
	}
	e := encoder{doc: doc}
	e.message(planner{}.message(md), 0, 1)
	msg := dynamicpb.NewMessage(md)
	if err := proto.Unmarshal(e.out, msg); err != nil {
		t.Fatalf("%s makes no message: %v", body, err)
	}
	if again, err := (proto.MarshalOptions{Deterministic: true}).Marshal(msg); err != nil || len(again) != len(e.out) {
		t.Errorf("%s is written in %d bytes, by the library in %d (%v)", body, len(e.out), len(again), err)
	}
	out, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	var unknown []string
	for _, u := range e.paths.inOrder() {
		unknown = append(unknown, u.text)
	}
	return string(out), unknown
}

func sameJSON(t testing.TB, a, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

func TestAValueIsCoercedToItsFieldOrToldAsUnknown(t *testing.T) {
	md := probe(t)
	for _, c := range []struct{ body, want, unknown string }{
		// text takes any scalar, digit for digit
		{`{"s":"x"}`, `{"s":"x"}`, ""},
		{`{"s":123456789012345678901234567890}`, `{"s":"123456789012345678901234567890"}`, ""},
		{`{"s":1.50e3}`, `{"s":"1.50e3"}`, ""},
		{`{"s":true}`, `{"s":"true"}`, ""},
		{`{"s":""}`, `{"s":""}`, ""},
		{`{"s":null}`, `{}`, ""},
		{`{"s":{}}`, `{}`, ""},
		{`{"s":{"a":1}}`, `{}`, "s"},
		{`{"s":["a"]}`, `{}`, "s"},
		{`{"s":"\ud83d\ude00 \ud83d \u0000"}`, `{"s":"😀 ` + "\ufffd" + ` \u0000"}`, ""},
		{`{"\u0073":"escaped key"}`, `{"s":"escaped key"}`, ""},
		// integers exactly or not at all
		{`{"i32":0}`, `{"i32":0}`, ""},
		{`{"i32":"-7"}`, `{"i32":-7}`, ""},
		{`{"i32":5.0}`, `{"i32":5}`, ""},
		{`{"i32":1e3}`, `{"i32":1000}`, ""},
		{`{"i32":"12.50e1"}`, `{"i32":125}`, ""},
		{`{"i32":5.5}`, `{}`, "i32"},
		{`{"i32":2147483648}`, `{}`, "i32"},
		{`{"i32":-2147483648}`, `{"i32":-2147483648}`, ""},
		{`{"i32":1e999999999}`, `{}`, "i32"},
		{`{"i32":true}`, `{}`, "i32"},
		{`{"i32":""}`, `{}`, ""},
		{`{"i32":"seven"}`, `{}`, "i32"},
		{`{"i32":"007"}`, `{"i32":7}`, ""},
		{`{"i32":" 7"}`, `{}`, "i32"},
		{`{"i64":9007199254740993}`, `{"i64":"9007199254740993"}`, ""},
		{`{"i64":9223372036854775808}`, `{}`, "i64"},
		{`{"i64":-9223372036854775808}`, `{"i64":"-9223372036854775808"}`, ""},
		{`{"i64":0}`, `{}`, ""},
		{`{"u32":4294967295}`, `{"u32":4294967295}`, ""},
		{`{"u32":-1}`, `{}`, "u32"},
		{`{"u64":18446744073709551615}`, `{"u64":"18446744073709551615"}`, ""},
		{`{"u64":18446744073709551616}`, `{}`, "u64"},
		{`{"si":-5,"fx":"9"}`, `{"si":"-5","fx":9}`, ""},
		// doubles
		{`{"d":-0.25}`, `{"d":-0.25}`, ""},
		{`{"d":"7.99"}`, `{"d":7.99}`, ""},
		{`{"d":0}`, `{"d":0}`, ""},
		{`{"d":"NaN"}`, `{}`, "d"},
		{`{"d":"0x1p3"}`, `{}`, "d"},
		{`{"d":1e400}`, `{}`, "d"},
		{`{"f":1.5}`, `{"f":1.5}`, ""},
		{`{"f":1e39}`, `{}`, "f"},
		// bools
		{`{"b":false}`, `{"b":false}`, ""},
		{`{"b":"TRUE"}`, `{"b":true}`, ""},
		{`{"b":1}`, `{"b":true}`, ""},
		{`{"b":"0"}`, `{"b":false}`, ""},
		{`{"b":2}`, `{}`, "b"},
		{`{"b":"yes"}`, `{}`, "b"},
		// times
		{`{"t":1700000000}`, `{"t":"2023-11-14T22:13:20Z"}`, ""},
		{`{"t":"1700000000"}`, `{"t":"2023-11-14T22:13:20Z"}`, ""},
		{`{"t":1700000000123}`, `{"t":"2023-11-14T22:13:20.123Z"}`, ""},
		{`{"t":"1700000000123.5"}`, `{"t":"2023-11-14T22:13:20.123500Z"}`, ""},
		{`{"t":1700000000.25}`, `{"t":"2023-11-14T22:13:20.250Z"}`, ""},
		{`{"t":1.7e9}`, `{"t":"2023-11-14T22:13:20Z"}`, ""},
		{`{"t":99999999999}`, `{"t":"5138-11-16T09:46:39Z"}`, ""},
		{`{"t":100000000000}`, `{"t":"1973-03-03T09:46:40Z"}`, ""},
		{`{"t":0}`, `{"t":"1970-01-01T00:00:00Z"}`, ""},
		{`{"t":-1.5}`, `{"t":"1969-12-31T23:59:58.500Z"}`, ""},
		{`{"t":253402300800000}`, `{}`, "t"},
		{`{"t":"2026-04-19T13:59:20+0000"}`, `{"t":"2026-04-19T13:59:20Z"}`, ""},
		{`{"t":"2026-04-19T13:59:20.5+02:00"}`, `{"t":"2026-04-19T11:59:20.500Z"}`, ""},
		{`{"t":"2026-04-19 13:59:20"}`, `{"t":"2026-04-19T13:59:20Z"}`, ""},
		{`{"t":"2026-04-19T13:59Z"}`, `{"t":"2026-04-19T13:59:00Z"}`, ""},
		{`{"t":"2026-04-19T13:59:20-07"}`, `{"t":"2026-04-19T20:59:20Z"}`, ""},
		{`{"t":"2026-04-19"}`, `{"t":"2026-04-19T00:00:00Z"}`, ""},
		{`{"t":"2026-02-30"}`, `{}`, "t"},
		{`{"t":"0000-01-01"}`, `{}`, "t"},
		{`{"t":"2026-04"}`, `{}`, "t"},
		{`{"t":"April 17, 2025"}`, `{}`, "t"},
		{`{"t":true}`, `{}`, "t"},
		{`{"t":""}`, `{}`, ""},
		// enums
		{`{"e":"open"}`, `{"e":"FOO_STATE_OPEN"}`, ""},
		{`{"e":"Half-Open"}`, `{"e":"FOO_STATE_HALF_OPEN"}`, ""},
		{`{"e":"half\u00a0open"}`, `{"e":"FOO_STATE_HALF_OPEN"}`, ""},
		{`{"e":0}`, `{"e":"FOO_STATE_0"}`, ""},
		{`{"e":"12"}`, `{"e":"FOO_STATE_12"}`, ""},
		{`{"e":1.2e1}`, `{"e":"FOO_STATE_12"}`, ""},
		{`{"e":1}`, `{}`, "e=1"},
		{`{"e":"unspecified"}`, `{}`, "e=unspecified"},
		{`{"e":"ajar"}`, `{}`, "e=ajar"},
		{`{"e":true}`, `{}`, "e=true"},
		{`{"e":["open"]}`, `{"e":"FOO_STATE_OPEN"}`, ""},
		{`{"e":["open","open"]}`, `{}`, "e"},
		{`{"e":[["open"]]}`, `{}`, "e"},
		{`{"e":["ajar"]}`, `{}`, "e"},
		{`{"e":[""]}`, `{}`, ""},
		{`{"e":[]}`, `{}`, ""},
		{`{"e":""}`, `{}`, ""},
		// aliases: read like the name, unless the name itself is there
		{`{"old_e":"open"}`, `{"e":"FOO_STATE_OPEN"}`, ""},
		{`{"old_e":"open","e":"12"}`, `{"e":"FOO_STATE_12"}`, "old_e"},
		{`{"older_e":"open","old_e":"12"}`, `{"e":"FOO_STATE_OPEN"}`, "old_e"},
		{`{"old_e":"open","e":null}`, `{"e":"FOO_STATE_OPEN"}`, ""},
		// one or many
		{`{"rs":"x"}`, `{"rs":["x"]}`, ""},
		{`{"rs":["x",5,null,false,""]}`, `{"rs":["x","5","false",""]}`, ""},
		{`{"rs":["x",["y"],{"z":1}]}`, `{"rs":["x"]}`, "rs[]"},
		{`{"ri":[1,"2","x",3.0]}`, `{"ri":[1,2,3]}`, "ri[]"},
		{`{"ri":7}`, `{"ri":[7]}`, ""},
		{`{"ri":[]}`, `{}`, ""},
		{`{"ri":"x"}`, `{}`, "ri"},
		{`{"re":["open","ajar","OPEN"]}`, `{"re":["FOO_STATE_OPEN","FOO_STATE_OPEN"]}`, "re[]=ajar"},
		{`{"re":"ajar"}`, `{}`, "re=ajar"},
		{`{"rm":{"s":"x"}}`, `{"rm":[{"s":"x"}]}`, ""},
		{`{"rm":[{"s":"x"},{},{"zz":1},"y"]}`, `{"rm":[{"s":"x"},{},{}]}`, "rm[].zz rm[]"},
		{`{"rt":[1,"2024-01-01"]}`, `{"rt":["1970-01-01T00:00:01Z","2024-01-01T00:00:00Z"]}`, ""},
		// messages and maps
		{`{"m":{"m":{"s":"deep","zz":{"y":1}}}}`, `{"m":{"m":{"s":"deep"}}}`, "m.m.zz"},
		{`{"m":{}}`, `{"m":{}}`, ""},
		{`{"m":"x"}`, `{}`, "m"},
		{`{"m":[]}`, `{}`, ""},
		{`{"ms":{"a":"x","b":5,"c":{"d":1},"e":null,"a":"again"}}`, `{"ms":{"a":"x","b":"5"}}`, "ms.c ms.a"},
		{`{"mi":{"1":"2","x":3,"4":"y"}}`, `{"mi":{"1":2}}`, "mi.x mi.4"},
		{`{"ms":["a"]}`, `{}`, "ms"},
		{`{"open":{"n":12345678901234567890,"d":0.1,"l":[null,true,{"k":"v"}],"o":{}}}`, `{"open":{"n":"12345678901234567890","d":0.1,"l":[null,true,{"k":"v"}],"o":{}}}`, ""},
		{`{"open":{"a":1,"a":2,"t":{"x":1,"x":2}}}`, `{"open":{"a":1,"t":"{\"x\":1,\"x\":2}"}}`, "open.a"},
		{`{"open":"x"}`, `{}`, "open"},
		// a text form beside the typed one
		{`{"party":{"s":"x"}}`, `{"party":{"s":"x"}}`, ""},
		{`{"party":"Ann"}`, `{"party_text":"Ann"}`, ""},
		{`{"party":["x"]}`, `{}`, "party"},
		{`{"party":"Ann","party_text":"Ben"}`, `{"party_text":"Ann"}`, "party_text"},
		{`{"day":"April 17, 2025"}`, `{"day_text":"April 17, 2025"}`, ""},
		{`{"day":"2025-04-17"}`, `{"day":"2025-04-17T00:00:00Z"}`, ""},
		{`{"day":true}`, `{"day_text":"true"}`, ""},
		// of a oneof, and of two members with one key, the first that fits
		{`{"either":"x","or":5}`, `{"either":"x"}`, "or"},
		{`{"or":"x","either":"y"}`, `{"either":"y"}`, "or"},
		{`{"s":"a","s":"b"}`, `{"s":"a"}`, "s"},
		{`{"i32":"x","i32":5}`, `{"i32":5}`, "i32"},
		// keys that nobody knows
		{`{"zz":1,"a.b[]=c":{"d":1},"nothing":null,"":5}`, `{}`, "zz a.b[]=c "},
	} {
		got, unknown := typed(t, md, c.body)
		if !sameJSON(t, got, c.want) {
			t.Errorf("%s is %s, want %s", c.body, got, c.want)
		}
		if told := strings.Join(unknown, " "); told != c.unknown {
			t.Errorf("%s tells %q as unknown, want %q", c.body, told, c.unknown)
		}
	}
}

func TestTheMostLiteralPatternHasThePayload(t *testing.T) {
	s := &schema{routes: map[string]*route{}}
	for _, pattern := range []string{"a.*.*.d", "a.b.*.*", "a.*.c.d", "*.*", "a.b", "*.b", "a"} {
		s.routes[pattern] = &route{pattern: pattern}
	}
	for typ, want := range map[string]string{
		"a.b.c.d": "a.*.c.d", "a.b.x.y": "a.b.*.*", "a.b.x.d": "a.b.*.*", "a.x.x.d": "a.*.*.d", "a.b": "a.b", "x.b": "*.b", "x.y": "*.*",
		"a": "a", "b": "", "a.b.c": "", "a.b.c.d.e": "",
	} {
		got := ""
		if r := s.route(typ); r != nil {
			got = r.pattern
		}
		if got != want {
			t.Errorf("%s goes to %q, want %q", typ, got, want)
		}
	}
}
