package api

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"latchkey/internal/rest"
)

// descriptionPattern is how the patterns of the description begin.
const descriptionPattern = "GET " + rest.Base + "/openapi."

// meanings of the statuses that are no success, as the description tells them.
var meanings = map[int]string{
	400: "The request is not of the documented form",
	401: "Nobody has signed in, or the token or session is not good any more",
	403: "You may not do this; nothing was looked at. Or: it needs a fresh proof of who you are, or somebody's approval",
	404: "There is no such thing",
	410: "What was begun has taken too long; begin again",
	409: "It does not go with the present state; somebody may have been faster",
	412: "It was changed since the ETag in If-Match was seen",
	413: "The body is too large",
	415: "The body is of another type than application/json",
	422: "A value is not allowed; each field at fault is named",
	429: "Too many requests; Retry-After says how many seconds to wait",
	500: "A mistake of the server; its log has the cause",
	503: "The server can not answer now",
}

// describe finishes the description: who may, and what may come back. It is written
// once, so that no two requests make it at once.
func (x *door) describe(mux *http.ServeMux) {
	api := x.api.OpenAPI()
	if api.Components.SecuritySchemes == nil {
		api.Components.SecuritySchemes = map[string]*huma.SecurityScheme{}
	}
	api.Components.SecuritySchemes["bearer"] = &huma.SecurityScheme{
		Type: "http", Scheme: "bearer",
		Description: "An API token (lk_…) with the scope, or the session of the command latchkey (ls_…). On the admin socket nothing is needed: whoever opens it is root.",
	}
	api.Components.SecuritySchemes["session"] = &huma.SecurityScheme{
		Type: "apiKey", In: "cookie", Name: "__Host-latchkey", Description: "The session of a browser; requests that change something must come from the same origin.",
	}
	problems := &huma.MediaType{Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}}
	for _, o := range x.operations() {
		switch o.right {
		case public:
			o.Security = []map[string][]string{{}}
		case person:
			o.Security = []map[string][]string{{"bearer": {}}, {"session": {}}}
		default:
			o.Security = []map[string][]string{{"bearer": {o.right}}, {"session": {o.right}}}
		}
		delete(o.Responses, "default")
		for _, status := range o.refusals() {
			if code := strconv.Itoa(status); o.Responses[code] == nil {
				o.Responses[code] = &huma.Response{Description: meanings[status], Content: map[string]*huma.MediaType{"application/problem+json": problems}}
			}
		}
	}
	asJSON, err := api.MarshalJSON()
	if err != nil {
		panic(err) // a type that can not be described: a mistake of the program
	}
	asYAML, err := api.YAML()
	if err != nil {
		panic(err)
	}
	for kind, b := range map[string][]byte{"json": asJSON, "yaml": asYAML} {
		mux.HandleFunc(descriptionPattern+kind, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/openapi+"+kind)
			_, _ = w.Write(b)
		})
	}
}

// named are the parameters that name something.
var named = map[string]bool{"user": true, "machine": true, "group": true, "owner": true}

// refusals are the statuses beside success that the operation can answer.
func (o operation) refusals() []int {
	out := map[int]bool{401: true, 403: true, 422: true, 429: true, 500: true, 503: true}
	if o.right == public || o.right == "self" {
		out[410] = true // a step of something that was begun
	}
	if strings.Contains(o.Path, "{") || slices.ContainsFunc(o.Parameters, func(p *huma.Param) bool { return p.In == "query" && named[p.Name] }) {
		out[404], out[409] = true, true // a name that several machines have is a conflict
	}
	if o.Method != http.MethodGet {
		out[404], out[409] = true, true
	}
	if o.RequestBody != nil {
		out[400], out[413], out[415] = true, true, true
	}
	if slices.ContainsFunc(o.Parameters, func(p *huma.Param) bool { return p.Name == "If-Match" }) {
		out[412] = true
	}
	return slices.Sorted(maps.Keys(out))
}
