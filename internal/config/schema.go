package config

import (
	"bytes"
	"encoding/json"
	"reflect"
)

// Schema returns the JSON Schema (draft 2020-12) of the main file, made from the
// table the decoder uses. What a schema cannot say (references, duplicates, spans
// of durations, the spelling of numbers) only config check sees.
func Schema() []byte {
	m := file().schema(reflect.ValueOf(defaults()).Elem())
	m["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	m["$id"] = "urn:renewatch:config:v1"
	m["title"] = "renewatch configuration"
	m["description"] = "Files in conf.d beside the main file hold only servers and certificates. null is the same as an absent key."
	m["type"] = []any{"object", "null"}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(m); err != nil {
		panic(err) // only maps, lists and scalars are in m
	}
	return b.Bytes()
}
