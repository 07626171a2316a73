package api

import (
	"context"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"latchkey/internal/fault"
)

// What an operation may need beside the desk's own rights.
const (
	public = "public" // nothing: whoever asks
	person = "person" // somebody, whoever it is
)

// rights says what each operation needs: the name of a right of the desk, or one of
// the words above. Whoever adds an operation adds its line here; an operation
// without one is refused to everybody and fails TestRoles, which also proves that
// the desk asks for the same right by itself.
var rights = map[string]string{
	"list-users":           "read",
	"add-user":             "change",
	"show-user":            "read",
	"change-user":          "change",
	"remove-user":          "change",
	"set-password":         "change",
	"unlock-user":          "helpdesk",
	"issue-enrolment-code": "helpdesk",
	"issue-bypass-code":    "helpdesk",
	"list-locks":           "read",
	"list-factors":         "read",
	"add-totp":             "change",
	"add-backup":           "change",
	"lose-factor":          "helpdesk",
	"remove-factor":        "change",

	"list-groups":   "read",
	"add-group":     "change",
	"show-group":    "read",
	"change-group":  "change",
	"remove-group":  "change",
	"list-members":  "read",
	"add-member":    "change",
	"remove-member": "change",

	"list-policies":        "read",
	"add-policy":           "change",
	"show-policy":          "read",
	"change-policy":        "change",
	"remove-policy":        "change",
	"list-policy-versions": "read",
	"roll-back-policy":     "change",

	"try-policy":              "read",
	"list-shut-out":           "read",
	"preview-policy":          "read",
	"preview-new-policy":      "read",
	"compare-policy-versions": "read",
	"list-policy-reports":     "read",
	"show-effective-policy":   "read",

	"list-machines":  "read",
	"show-machine":   "read",
	"change-machine": "change",
	"remove-machine": "change",
	"revoke-machine": "change",
	"lose-machine":   "helpdesk",
	"refuse-machine": "change",
	"list-reseed":    "read",
	"list-tokens":    "read",
	"issue-token":    "change",
	"withdraw-token": "change",

	"list-offline":      "read",
	"list-stuck":        "read",
	"disenroll-offline": "change",
	"lift-offline":      "change",
	"list-windows":      "read",
	"revoke-windows":    "helpdesk",
	"revoke-window":     "helpdesk",

	"list-events":   "events",
	"show-event":    "events",
	"verify-events": "events",
	"follow-events": "events",

	"export-events": "events",
	"list-views":    "events",
	"add-view":      "events",
	"remove-view":   "events",

	"list-imports":         "change",
	"begin-import":         "change",
	"show-import":          "change",
	"drop-import":          "change",
	"list-import-rows":     "change",
	"upload-import":        "change",
	"query-import":         "change",
	"apply-import":         "change",
	"fetch-import-codes":   "change",
	"export-import-faults": "change",
	"show-import-template": "change",
	"list-import-sources":  "change",
	"add-import-source":    "own",
	"remove-import-source": "own",

	"explain":         "read",
	"show-settings":   "read",
	"change-settings": "own",
	"show-dashboard":  "read",
	"show-status":     "read",
	"show-ca":         "read",
}

// operation is what the gate knows of one.
type operation struct {
	*huma.Operation
	right string
}

// operations finds each by the pattern of the mux.
func (x *door) operations() map[string]operation {
	out := map[string]operation{}
	for path, item := range x.api.OpenAPI().Paths {
		for _, o := range []*huma.Operation{item.Get, item.Put, item.Post, item.Delete, item.Patch} {
			if o != nil {
				out[strings.ToUpper(o.Method)+" "+path] = operation{o, rights[o.OperationID]}
			}
		}
	}
	return out
}

// may refuses before anything of the request is read: whoever is nobody learns
// nothing at all, and whoever lacks the right learns neither whether what he names is
// there nor what is wrong with his input.
func (o operation) may(ctx context.Context) error {
	if o.right == public {
		return nil
	}
	a, err := actor(ctx)
	switch {
	case err != nil:
		return err
	case o.right == person || o.right != "" && a.Can(o.right):
		return nil
	}
	return fault.New(fault.Forbidden, nil)
}
