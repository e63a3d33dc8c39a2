// Package jsonvalues looks at a JSON text before it is decoded: how many values it has, since one of two bytes may take 200 in
// memory, and what the parts of an array or an object are, since many need no decoding.
package jsonvalues

import (
	"bytes"
	"iter"
	"slices"
)

// Exceed reports whether text has more than most values, by the commas between them. Those in strings do not count.
func Exceed(text []byte, most int) bool {
	if bytes.Count(text, []byte(",")) <= most {
		return false
	}
	n := 0
	for _, c := range outsideStrings(text) {
		if c == ',' {
			n++
		}
	}
	return n > most
}

// Members returns the values of the members with these names of an object in valid JSON, as parts of text; nil for one that it does not
// have. encoding/json would scan each value twice more, and copy it.
func Members(text []byte, names ...string) [][]byte {
	values := make([][]byte, len(names))
	for name, value := range Parts(text) {
		if at := slices.Index(names, string(name)); at >= 0 {
			values[at] = value
		}
	}
	return values
}

// Parts yields the elements of an array in valid JSON, or the members of an object, each with its name as it is
// written between the quotes.
func Parts(text []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		depth, begin, quote := 0, 0, []byte{'"'}
		var name []byte
		for i, c := range outsideStrings(text) {
			switch {
			case c == '[' || c == '{':
				if depth++; depth == 1 {
					begin = i + 1
				}
			case (c == ']' || c == '}') && depth > 1:
				depth--
			case c == ':' && depth == 1:
				name, begin = bytes.TrimSpace(text[begin:i]), i+1
				name = bytes.TrimPrefix(bytes.TrimSuffix(name, quote), quote)
			case depth == 1 && (c == ',' || c == ']' || c == '}'):
				value := bytes.TrimSpace(text[begin:i:i])
				if len(value) > 0 && !yield(name, value) { // only an empty array or object has none
					return
				}
				name, begin = nil, i+1
			}
		}
	}
}

// outsideStrings yields the bytes that are in no string, and where they are.
func outsideStrings(text []byte) iter.Seq2[int, byte] {
	return func(yield func(int, byte) bool) {
		inString := false
		for i := 0; i < len(text); i++ {
			switch c := text[i]; {
			case c == '"':
				inString = !inString
			case c == '\\' && inString:
				i++ // whatever it is, it does not end the string
			case !inString && !yield(i, c):
				return
			}
		}
	}
}
