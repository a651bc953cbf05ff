package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
)

// Codes of API errors, for programs; the text is for people.
const (
	CodeBadRequest  = "bad_request"
	CodeNotFound    = "not_found"
	CodeWrongMethod = "wrong_method"
	CodeWrongState  = "wrong_state"
	CodeTimeout     = "timeout"
	CodeInternal    = "internal"
)

// An APIError is an error that has crossed the API, or is about to.
type APIError struct {
	Message string `json:"error"`
	Code    string `json:"code"`
	// ExitCode is the exit status that a command has that ends with this
	// error, and ExitName what that is called.
	ExitCode int    `json:"exit_code"`
	ExitName string `json:"exit_name"`
}

func (e *APIError) Error() string { return e.Message }

// Classify fills in the exit status, if whoever made the error has not: by its
// code.
func (e *APIError) Classify() {
	if e.ExitCode == 0 {
		e.ExitCode = ExitError
		if c, ok := classes[e.Code]; ok {
			e.ExitCode = c.exit
		}
	}
	e.ExitName = exitNames[e.ExitCode]
}

// A class is what errors of one code have in common.
type class struct {
	status int    // of HTTP; 0: not the answer to a request
	title  string // for people
	exit   int
}

var classes = map[string]class{
	CodeBadRequest:  {http.StatusBadRequest, "the request makes no sense", ExitError},
	CodeNotFound:    {http.StatusNotFound, "there is no such thing", ExitError},
	CodeWrongMethod: {http.StatusMethodNotAllowed, "not with this method", ExitError},
	CodeWrongState:  {http.StatusConflict, "not in the state that the VM is in", ExitError},
	CodeRefused:     {http.StatusConflict, "refused before anything was done", ExitRefused},
	CodeTimeout:     {http.StatusGatewayTimeout, "it took too long", ExitTimeout},
	CodeInternal:    {http.StatusInternalServerError, "it failed", ExitError},
	CodeFailed:      {http.StatusInternalServerError, "it failed, and the VM runs on", ExitStays},
	CodeCancelled:   {http.StatusConflict, "it was called off, and the VM runs on", ExitStays},
	CodePaused:      {exit: ExitPaused},
	CodeEnded:       {exit: ExitError},
}

// exitNames are what the exit statuses are called that an APIError can have.
var exitNames = map[int]string{
	ExitError: "error", ExitRefused: "refused", ExitStays: "failed", ExitPaused: "paused", ExitTimeout: "timeout",
}

// A problem is an error as the answer to a request: RFC 9457's members, and
// those of an APIError.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	APIError
}

// problemType is the media type of a problem, and problemURN what a problem's
// type begins with.
const (
	problemType = "application/problem+json"
	problemURN  = "urn:microvm:problem:"
)

// apiError makes an API's error of any.
func apiError(err error) APIError {
	var api *APIError
	var state *StateError
	switch {
	case errors.As(err, &api):
		out := *api
		out.Message = err.Error()
		return out
	case errors.As(err, &state):
		return APIError{Message: err.Error(), Code: CodeWrongState}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return APIError{Message: err.Error(), Code: CodeTimeout}
	}
	return APIError{Message: err.Error(), Code: CodeInternal}
}

// writeError answers with an error, its code and the HTTP status that fits.
func writeError(w http.ResponseWriter, err error) { writeProblem(w, apiError(err)) }

// writeRefusal is writeError for what begins a part of a migration, or takes a
// VM back: a state that does not allow that is a reason to refuse.
func writeRefusal(w http.ResponseWriter, err error) {
	e := apiError(err)
	if e.Code == CodeWrongState {
		e.ExitCode = ExitRefused
	}
	writeProblem(w, e)
}

func writeProblem(w http.ResponseWriter, e APIError) {
	e.Classify()
	c := classes[e.Code]
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(c.status)
	// The client may have gone; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(problem{Type: problemURN + e.Code, Title: c.title, Status: c.status, Detail: e.Message, APIError: e})
}
