package vmm

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// openapiFiles describe the API, by hand: openapi.json its paths, the parts what
// goes over it. They refer to that as PART.json#/NAME.
//
//go:embed openapi/*.json
var openapiFiles embed.FS

// openapiParts are the files with schemas.
var openapiParts = []string{"vm", "migration"}

// openapi is the description in one piece: the schemas become its components.
func openapi() ([]byte, error) {
	read := func(name string, into *map[string]any) error {
		text, err := openapiFiles.ReadFile("openapi/" + name + ".json")
		if err != nil {
			return err
		}
		for _, part := range openapiParts {
			text = bytes.ReplaceAll(text, []byte(`"`+part+`.json#/`), []byte(`"#/components/schemas/`))
		}
		if err := json.Unmarshal(text, into); err != nil {
			return fmt.Errorf("%s.json: %w", name, err)
		}
		return nil
	}
	var document, schemas map[string]any
	if err := read("openapi", &document); err != nil {
		return nil, err
	}
	for _, part := range openapiParts {
		if err := read(part, &schemas); err != nil {
			return nil, err
		}
	}
	components, ok := document["components"].(map[string]any)
	if !ok {
		return nil, errors.New("openapi.json: no components")
	}
	components["schemas"] = schemas
	return json.Marshal(document)
}

func (a *API) describe(w http.ResponseWriter, _ *http.Request) {
	text, err := openapi()
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, json.RawMessage(text))
}
