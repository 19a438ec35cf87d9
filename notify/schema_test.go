package notify

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write schema/*.json anew")

// said is the table the schemas are made of: what each kind means, and what its
// data has besides host and severity.
var said = map[Kind]struct {
	means    string
	required []string
}{
	AgentStarted:     {"The daemon started.", nil},
	AgentStopped:     {"The daemon stopped in good order.", nil},
	AgentDegraded:    {"The daemon is blind or deaf somewhere; detail says where.", []string{"detail"}},
	AgentRecovered:   {"What agent.degraded told of is over.", nil},
	RenewalAttempted: {"The ACME client's log tells of an attempt to renew; a log proves nothing.", []string{"certificate", "renewal_id", "attempt"}},
	RenewalFailed:    {"The ACME client's log tells that an attempt failed or stalled, or that it succeeded and no new certificate came.", []string{"certificate", "renewal_id", "attempt", "detail"}},
	RenewalOverdue:   {"A renewal was expected and did not come, or the CA asks for one at once; tried is false when the log knows of no attempt.", []string{"certificate", "renewal_id", "detail"}},
	RenewalDetected:  {"A new leaf with its matching key is on disk.", []string{"certificate", "renewal_id"}},
	FileBroken:       {"The certificate's files cannot be used; detail says why.", []string{"certificate", "detail"}},
	FileRecovered:    {"The certificate's files can be used again.", []string{"certificate"}},
	FileReverted:     {"An older leaf was put in the place of a newer one.", []string{"certificate"}},
	FileRemoved:      {"The certificate is gone, and so is what would renew it.", []string{"certificate"}},
	DeployVerified:   {"Every required address was proven to serve the leaf on disk.", []string{"certificate", "renewal_id", "verdicts"}},
	DeployFailed:     {"The deadline passed and not every required address serves the leaf on disk.", []string{"certificate", "renewal_id", "cause", "next"}},
	DeployRecovered:  {"What deploy.failed told of is over: the leaf on disk is served.", []string{"certificate", "renewal_id", "verdicts"}},
	DeployUnverified: {"There was no endpoint that could be tested.", []string{"certificate", "renewal_id"}},
	DeploySuperseded: {"A newer leaf came before the story of this one ended.", []string{"certificate", "renewal_id"}},
	DeployLost:       {"The leaf on disk was served and is no longer.", []string{"certificate", "verdicts"}},
	ReloadDone:       {"A server was reloaded; whether it helped is for the verdicts to say.", []string{"reload"}},
	ReloadFailed:     {"A server's reload, or the test before it, failed.", []string{"reload"}},
	ReloadHeld:       {"A reload was held back; cause says why.", []string{"cause"}},
	ExpiryWarning:    {"What is served has under 0.85 of its renewal margin left.", []string{"certificate"}},
	ExpiryError:      {"What is served has under 0.6 of its renewal margin left.", []string{"certificate"}},
	ExpiryCritical:   {"What is served has under 0.3 of its renewal margin left, or has expired.", []string{"certificate"}},
	AlertWarning:     {"A person should know, in office hours.", []string{"alert", "detail"}},
	AlertError:       {"A person should act soon.", []string{"alert", "detail"}},
	AlertCritical:    {"A person must act now: nothing automatic is due soon.", []string{"alert", "detail"}},
	AlertCleared:     {"What alert.critical (or a lower alert) told of is over; a lower level may follow under the same id.", []string{"alert", "detail"}},
}

const (
	word      = `^[A-Za-z][A-Za-z0-9_-]*$`
	wordOrNot = `^([A-Za-z][A-Za-z0-9_-]*)?$`
	hexDigits = `^[0-9a-f]+$`
	sha256Hex = `^[0-9a-f]{64}$`
)

// constraints on a property, by its JSON path below data; lists end in [].
// Codes, causes and the like are open: readers must expect more of them.
var constraints = map[string]map[string]any{
	"host":             {"minLength": 1},
	"severity":         {"enum": []any{Info, Warning, Error, Critical}},
	"verdicts_omitted": {"minimum": 1},
	"excluded_omitted": {"minimum": 1},
	"names_omitted":    {"minimum": 1},
	"cause":            {"pattern": word},
	"detail":           {"maxLength": maxDetail},
	"hint":             {"maxLength": maxHint},
	"lag_seconds":      {"minimum": 0},
	"renewal_id":       {"pattern": `^[0-9A-Za-z]{8,64}$`},
	"sha256":           {"pattern": sha256Hex},
	"expected_sha256":  {"pattern": sha256Hex},
	"serial":           {"pattern": hexDigits},
	"chain[]":          {"pattern": sha256Hex},
	"names[]":          {"minLength": 1},
	"name":             {"minLength": 1},
	"faults[]":         {"pattern": word},
	"code":             {"pattern": word},
	"transport":        {"pattern": word},
	"key_type":         {"pattern": wordOrNot},
	"endpoint":         {"minLength": 1},
	"samples":          {"minimum": 0},
	"problem_detail":   {"maxLength": maxAttempt},
	"outcome":          {"pattern": word},
	"phase":            {"pattern": word},
	"kind":             {"pattern": word},
	"matching":         {"minimum": 0},
	"took_ms":          {"minimum": 0},
	"why":              {"pattern": word},
	"how":              {"pattern": word},
	"action":           {"pattern": word},
	"output":           {"maxLength": maxOutput},
}

// object is the schema of a struct, by its JSON tags; what is not omitempty is
// required.
func object(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	for f := range t.Fields() {
		name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if rest == "" {
			required = append(required, name)
		}
		properties[name] = property(f.Type, name)
	}
	schema := map[string]any{"type": "object", "properties": properties}
	if len(required) > 0 {
		schema["required"] = required
	}
	return schema
}

func property(t reflect.Type, name string) map[string]any {
	schema := map[string]any{}
	switch {
	case t == reflect.TypeFor[time.Time]():
		schema["type"], schema["format"], schema["pattern"] = "string", "date-time", "Z$"
	case t.Kind() == reflect.Pointer:
		return property(t.Elem(), name)
	case t.Kind() == reflect.Struct:
		return map[string]any{"$ref": "#/$defs/" + strings.ToLower(t.Name())}
	case t.Kind() == reflect.Slice:
		schema["type"], schema["items"] = "array", property(t.Elem(), name+"[]")
		return schema
	case t.Kind() == reflect.String:
		schema["type"] = "string"
	case t.Kind() == reflect.Bool:
		schema["type"] = "boolean"
	case t.Kind() == reflect.Float64:
		schema["type"] = "number"
	default:
		schema["type"] = "integer"
	}
	maps.Copy(schema, constraints[name])
	return schema
}

func dataSchema(k Kind) map[string]any {
	schema := object(reflect.TypeFor[Data]())
	required := append(schema["required"].([]string), said[k].required...)
	slices.Sort(required)
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["$id"] = SchemaURN(k)
	schema["title"] = string(k)
	schema["description"] = said[k].means + " More keys, codes and causes may come: readers ignore what they do not know."
	schema["required"] = required
	if slices.Contains(said[k].required, "verdicts") {
		schema["properties"].(map[string]any)["verdicts"].(map[string]any)["minItems"] = 1
	}
	defs := map[string]any{}
	for _, t := range []reflect.Type{
		reflect.TypeFor[Certificate](), reflect.TypeFor[Verdict](), reflect.TypeFor[Served](),
		reflect.TypeFor[Excluded](), reflect.TypeFor[Reload](), reflect.TypeFor[Next](), reflect.TypeFor[Alert](),
		reflect.TypeFor[Attempt](), reflect.TypeFor[AttemptProblem](), reflect.TypeFor[AttemptHook](),
	} {
		defs[strings.ToLower(t.Name())] = object(t)
	}
	defs["verdict"].(map[string]any)["properties"].(map[string]any)["certificate"] = map[string]any{"type": "string"}
	schema["$defs"] = defs
	return schema
}

func envelopeSchema() map[string]any {
	schema := object(reflect.TypeFor[Event]())
	properties := schema["properties"].(map[string]any)
	set := func(name, key string, value any) { properties[name].(map[string]any)[key] = value }
	set("specversion", "const", "1.0")
	set("id", "pattern", `^[0-9a-f]{32}$`)
	set("source", "pattern", `^//[^/]+/renewatch$`)
	set("type", "pattern", `^io\.renewatch\.[a-z]+\.[a-z]+\.v1$`)
	set("subject", "minLength", 1)
	set("datacontenttype", "const", "application/json")
	set("dataschema", "pattern", `^urn:renewatch:event:[a-z]+\.[a-z]+:v1$`)
	set("sequence", "pattern", `^[0-9]{20}$`)
	properties["data"] = map[string]any{
		"type": "object", "required": []string{"host", "severity"},
		"description": "Its schema is the one named by dataschema.",
	}
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["$id"] = "urn:renewatch:event:v1"
	schema["title"] = "renewatch event"
	schema["description"] = "A CloudEvent (1.0, structured JSON) as it stands in the journal and on NATS."
	return schema
}

func TestSchemaFilesAreMadeFromTheTypes(t *testing.T) {
	want := map[string]map[string]any{"envelope.json": envelopeSchema()}
	for _, k := range Kinds() {
		if said[k].means == "" {
			t.Errorf("%s has no row in the table", k)
		}
		want[string(k)+".json"] = dataSchema(k)
	}
	files, err := filepath.Glob("schema/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := want[filepath.Base(f)]; !ok {
			t.Errorf("%s belongs to no kind of event", f)
		}
	}
	for name, schema := range want {
		b, err := json.MarshalIndent(schema, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, '\n')
		path := filepath.Join("schema", name)
		if *update {
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, b) {
			t.Errorf("%s is out of step (%v): run go test ./notify -run TestSchemaFiles -update", path, err)
		}
	}
}

func TestKindsAreAllTheConstants(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var constants []Kind
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.CONST {
			continue
		}
		for _, spec := range gen.Specs {
			value := spec.(*ast.ValueSpec)
			if name, ok := value.Type.(*ast.Ident); ok && name.Name == "Kind" {
				for _, v := range value.Values {
					s, err := strconv.Unquote(v.(*ast.BasicLit).Value)
					if err != nil {
						t.Fatal(err)
					}
					constants = append(constants, Kind(s))
				}
			}
		}
	}
	if !slices.Equal(constants, Kinds()) {
		t.Errorf("constants %v\nKinds() %v", constants, Kinds())
	}
	for _, k := range constants {
		if _, ok := Schema(k); !ok || !k.valid() {
			t.Errorf("no schema for %s, or not a kind", k)
		}
	}
	if _, ok := Schema("no.such"); ok {
		t.Error("a schema for a kind that does not exist")
	}
}

func ExampleSchema() {
	_, known := Schema(DeployFailed)
	fmt.Println(known, SchemaURN(DeployFailed))
	// Output: true urn:renewatch:event:deploy.failed:v1
}
