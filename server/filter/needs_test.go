package filter

import (
	"reflect"
	"testing"
)

func TestWhatAFilterSaysPlainlyOfSourceAndTypeIsKnownBeforeAnEventIsRead(t *testing.T) {
	exact := func(texts ...string) (list []Type) {
		for _, text := range texts {
			list = append(list, Type{Text: text})
		}
		return list
	}
	for expression, want := range map[string]Needs{
		``:                               {},
		`event.type == "meta.page.feed"`: {Types: exact("meta.page.feed")},
		`"meta.page.feed" == event.type && event.test`:                         {Types: exact("meta.page.feed")},
		`event.test && (event.source == "sources/a" && event.type == "x.y")`:   {Sources: []string{"sources/a"}, Types: exact("x.y")},
		`event.source in ["sources/a", "sources/b"]`:                           {Sources: []string{"sources/a", "sources/b"}},
		`event.type.startsWith("meta.page.")`:                                  {Types: []Type{{"meta.page.", true}}},
		`event.type == "a" || event.type.startsWith("b.")`:                     {Types: []Type{{Text: "a"}, {"b.", true}}},
		`event.type == "a" || event.test`:                                      {},
		`!(event.type == "a")`:                                                 {},
		`event.type != "a"`:                                                    {},
		`event.source.startsWith("sources/a")`:                                 {},
		`event.type == event.object`:                                           {},
		`event.type in ["a", event.object]`:                                    {},
		`event.type.endsWith("a")`:                                             {},
		`event.test ? event.type == "a" : true`:                                {},
		`[1].exists(event, event == 1) && event.message.text.body == "a.type"`: {},
	} {
		f, err := Compile(expression)
		if err != nil {
			t.Fatalf("%s: %v", expression, err)
		}
		if got := f.Needs(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s needs %+v, want %+v", expression, got, want)
		}
	}
}
