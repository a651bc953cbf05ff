package vmm

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"microvm/devices/virtio"
	"microvm/devices/virtio/balloon"
	"microvm/migration"
	"microvm/vmm/confine"
)

// A description is what the API says of itself.
type description struct{ *openapi3.T }

// described asks an API for it.
func described(t *testing.T, a *API) description {
	t.Helper()
	answer := httptest.NewRecorder()
	a.ServeHTTP(answer, httptest.NewRequest("GET", "/v1/openapi.json", nil))
	doc, err := openapi3.NewLoader().LoadFromData(answer.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return description{doc}
}

// newAPI makes one with all calls that there are.
func newAPI() *API {
	a := NewAPI("test")
	AddMigration(a, slog.New(slog.DiscardHandler))
	AddSnapshot(a, "test")
	return a
}

func TestTheDescriptionIsValidAndOfThisAPI(t *testing.T) {
	a := newAPI()
	d := described(t, a)
	if err := d.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	var calls []string
	for path, item := range d.Paths.Map() {
		for method, o := range item.Operations() {
			calls = append(calls, method+" "+path)
			if o.Summary == "" || o.OperationID == "" || len(o.Tags) == 0 {
				t.Errorf("%s %s: no summary, no operationId or no tag", method, path)
			}
		}
	}
	slices.Sort(calls)
	if has := slices.Sorted(slices.Values(a.calls)); !slices.Equal(calls, has) {
		t.Errorf("described:\n%s\nanswered:\n%s", strings.Join(calls, "\n"), strings.Join(has, "\n"))
	}
	// In the repository it is in files that refer to each other.
	if _, err := (&openapi3.Loader{IsExternalRefsAllowed: true}).LoadFromFile("openapi/openapi.json"); err != nil {
		t.Error(err)
	}
}

// schemaTypes are what the schemas describe.
var schemaTypes = map[string]any{
	"Problem": problem{}, "Info": Info{}, "DiskConfig": DiskConfig{}, "NetConfig": NetConfig{}, "TapConfig": TapConfig{},
	"BalloonConfig": BalloonConfig{}, "VsockConfig": VsockConfig{}, "ExitStatus": ExitStatus{}, "StopRequest": StopRequest{},
	"BalloonRequest": BalloonRequest{}, "SnapshotRequest": SnapshotRequest{}, "SaveReport": migration.SaveReport{}, "ConsoleSize": ConsoleSize{}, "Balloon": balloon.Stats{}, "Stats": Stats{},
	"VCPUStats": VCPUStats{}, "DeviceInfo": DeviceInfo{}, "Counts": virtio.Counts{}, "RequestCounts": virtio.RequestCounts{},
	"QueueStats": virtio.QueueStats{}, "MigrateRequest": MigrateRequest{}, "ResumeMigrationRequest": ResumeMigrationRequest{},
	"TakeBackRequest": TakeBackRequest{}, "Outlook": migration.Outlook{}, "Finding": migration.Finding{}, "MigrationEvent": MigrationEvent{}, "MigrationError": APIError{}, "Event": migration.Event{},
	"Status": migration.Status{}, "Waits": migration.Waits{}, "FaultReport": migration.FaultReport{}, "FaultPhases": migration.FaultPhases{},
	"Report": migration.Report{}, "Downtime": migration.Downtime{}, "ThrottleReport": migration.ThrottleReport{},
	"Confinement": confine.Status{}, "RAMReport": migration.RAMReport{}, "CompressionReport": migration.CompressionReport{},
}

// Every field that a reply can have is described, with its kind, and none that
// it cannot have; what is always there is required.
func TestTheSchemasAreOfTheTypes(t *testing.T) {
	schemas := described(t, newAPI()).Components.Schemas
	for name := range schemas {
		if schemaTypes[name] == nil {
			t.Errorf("%s: of which type?", name)
		}
	}
	for name, v := range schemaTypes {
		if schemas[name] == nil {
			t.Errorf("%s is not described", name)
			continue
		}
		schema, fields := schemas[name].Value, jsonFields(reflect.TypeOf(v))
		if has := slices.Sorted(maps.Keys(schema.Properties)); !slices.Equal(has, slices.Sorted(maps.Keys(fields))) {
			t.Errorf("%s describes %v, and has %v", name, has, slices.Sorted(maps.Keys(fields)))
			continue
		}
		for field, f := range fields {
			p := schema.Properties[field]
			if p.Value.Description == "" {
				t.Errorf("%s.%s: no description", name, field)
			}
			if kind := kindOf(f.Type); p.Value.Type != nil && !p.Value.Type.Includes(kind) {
				t.Errorf("%s.%s is described as %v, and is a JSON %s", name, field, p.Value.Type, kind)
			}
			// A request may leave out what has a default, and an event is
			// one of two things.
			always := !strings.Contains(f.Tag.Get("json"), ",omitempty")
			if described := slices.Contains(schema.Required, field); described != always && !strings.HasSuffix(name, "Request") && name != "MigrationEvent" {
				t.Errorf("%s.%s: required %v, always there %v", name, field, described, always)
			}
		}
	}
}

// jsonFields are the fields of a struct by their names in JSON.
func jsonFields(of reflect.Type) map[string]reflect.StructField {
	fields := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(of) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.Anonymous && name != "-" && name != "" {
			fields[name] = f
		}
	}
	return fields
}

// kindOf is what encoding/json makes of a type.
func kindOf(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := reflect.Zero(t).Interface().(type) {
	case json.Marshaler, interface{ MarshalText() ([]byte, error) }:
		if text, err := json.Marshal(v); err == nil && text[0] == '"' {
			return "string"
		}
		return "object"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "string"
	case reflect.Slice, reflect.Array:
		return "array"
	case reflect.Struct, reflect.Map, reflect.Interface:
		return "object"
	case reflect.Float64:
		return "number"
	}
	return "integer"
}

// fits checks a reply against what is described for its call.
func (d description) fits(t *testing.T, method, path string, r reply) {
	t.Helper()
	path, _, _ = strings.Cut(path, "?")
	schema := d.Components.Schemas["Problem"]
	kind, _, _ := strings.Cut(r.kind, ";")
	if item := d.Paths.Find(path); item != nil && item.GetOperation(method) != nil {
		answer := item.GetOperation(method).Responses.Status(r.status)
		if answer == nil || answer.Value.Content[kind] == nil {
			t.Errorf("%s %s: %d %s is not described: %s", method, path, r.status, r.kind, r.body)
			return
		}
		schema = answer.Value.Content[kind].Schema
	} else if kind != problemType {
		t.Errorf("%s %s: %d %s", method, path, r.status, r.kind)
	}
	if kind == "text/plain" {
		return
	}
	d.is(t, schema, method+" "+path, []byte(r.body))
}

// is checks JSON values, one or a stream of them, against a schema.
func (description) is(t *testing.T, schema *openapi3.SchemaRef, what string, text []byte) {
	t.Helper()
	in := json.NewDecoder(bytes.NewReader(text))
	n := 0
	for ; in.More(); n++ {
		var v any
		if err := in.Decode(&v); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := schema.Value.VisitJSON(v, openapi3.EnableJSONSchema2020()); err != nil {
			why, _, _ := strings.Cut(err.Error(), "\n")
			t.Errorf("%s: %s", what, why)
			return
		}
	}
	if n == 0 {
		t.Errorf("%s: nothing has come", what)
	}
}
