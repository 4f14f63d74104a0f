package graph

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
)

// What Meta writes now as one type of JSON and now as another.
type (
	// flag is a bool, or one in quotes.
	flag bool
	// number is an integer, or one in quotes.
	number int
	// word is a string, or a number.
	word string
)

var errShape = errors.New("neither as documented nor in quotes")

func (f *flag) UnmarshalJSON(data []byte) error {
	switch string(bytes.Trim(data, `"`)) {
	case "true", "1":
		*f = true
	case "false", "0", "null", "":
		*f = false
	default:
		return errShape
	}
	return nil
}

func (n *number) UnmarshalJSON(data []byte) error {
	text := string(bytes.Trim(data, `"`))
	if text == "null" || text == "" {
		return nil
	}
	value, err := strconv.Atoi(text)
	if err != nil {
		return errShape
	}
	*n = number(value)
	return nil
}

func (w *word) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] != '"' {
		var value json.Number
		if err := json.Unmarshal(data, &value); err != nil {
			return errShape
		}
		*w = word(value)
		return nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	*w = word(text)
	return nil
}
