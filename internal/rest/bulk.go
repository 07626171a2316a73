package rest

import "time"

// The prefixes of imports and of the databases that they may be read from.
const (
	ImportPrefix = "imp_"
	SourcePrefix = "src_"
)

// The states of an import.
const (
	ImportReading  = "reading"  // rows are awaited or being read
	ImportChecked  = "checked"  // every row was judged; nothing was changed
	ImportApplying = "applying" // users are being changed
	ImportTelling  = "telling"  // users are changed; their events and codes are being written
	ImportDone     = "done"
	ImportFailed   = "failed" // nothing was changed; problem says why
)

// The states of a row.
const (
	RowNew     = "new"
	RowChanged = "changed"
	RowSame    = "same"
	RowFaulty  = "faulty"
)

// RowStates lists them.
var RowStates = []string{RowNew, RowChanged, RowSame, RowFaulty}

// The answers to faulty rows.
const (
	FaultsStop = "stop" // all or nothing
	FaultsSkip = "skip" // leave faulty rows out
)

// FaultAnswers lists them.
var FaultAnswers = []string{FaultsStop, FaultsSkip}

// NewImport begins an import (E2). Rows come behind it: as a file or from a query.
type NewImport struct {
	OnFaults      string `json:"on_faults,omitempty" doc:"stop (default): all or nothing; skip: leave faulty rows out"`
	Codes         bool   `json:"codes,omitempty" doc:"Make an enrolment code for every new user whose row does not say otherwise"`
	CodesValidFor string `json:"codes_valid_for,omitempty" doc:"Duration such as 168h (default), 1m to 168h"`
	MakeGroups    bool   `json:"make_groups,omitempty" doc:"Make groups that are named and are not there"`
	IgnoreUnknown bool   `json:"ignore_unknown,omitempty" doc:"Leave out columns that are not known, instead of refusing them"`
}

// Import is an import and how far it is.
type Import struct {
	ID            string    `json:"id"`
	State         string    `json:"state" doc:"reading, checked, applying, telling, done or failed"`
	Problem       string    `json:"problem,omitempty" doc:"Why it failed, or why it was not applied"`
	Source        string    `json:"source,omitempty" doc:"csv, or the kind of database"`
	Label         string    `json:"label,omitempty" doc:"Name of the file or source"`
	Actor         string    `json:"actor"`
	OnFaults      string    `json:"on_faults"`
	Codes         bool      `json:"codes"`
	CodesValidFor string    `json:"codes_valid_for"`
	MakeGroups    bool      `json:"make_groups"`
	IgnoreUnknown bool      `json:"ignore_unknown"`
	Columns       []string  `json:"columns" nullable:"false"`
	NewGroups     []string  `json:"new_groups" nullable:"false" doc:"Groups that come into being"`
	Bytes         int64     `json:"bytes" doc:"Read so far"`
	Rows          int64     `json:"rows" doc:"Judged so far"`
	New           int64     `json:"new"`
	Changed       int64     `json:"changed"`
	Same          int64     `json:"same"`
	Faulty        int64     `json:"faulty"`
	Done          int64     `json:"done" doc:"Users changed so far"`
	Told          int64     `json:"told" doc:"Users whose events are written"`
	CodesLeft     int64     `json:"codes_left" doc:"Enrolment codes that were made and not yet fetched"`
	CreatedAt     time.Time `json:"created_at"`
	UpdatedAt     time.Time `json:"updated_at"`
	AppliedAt     time.Time `json:"applied_at,omitzero"`
	EndedAt       time.Time `json:"ended_at,omitzero"`
}

// ImportChange is one setting that a row changes.
type ImportChange struct {
	Field string `json:"field"`
	Old   string `json:"old"`
	New   string `json:"new"`
}

// ImportFault is what is wrong with a row, and where.
type ImportFault struct {
	Line   int64  `json:"line" doc:"Line of the file, or number of the row of the query, from 1; the header is line 1 of a file"`
	Column int    `json:"column,omitempty" doc:"Number of the column, from 1; absent: the whole row"`
	Field  string `json:"field,omitempty" doc:"Name of the column"`
	Fault  string `json:"fault" doc:"What is wrong, and what is allowed"`
}

// ImportRow is one row and what becomes of it.
type ImportRow struct {
	N       int64          `json:"n" doc:"Number of the row, from 1"`
	Line    int64          `json:"line" doc:"Line of the file where it begins"`
	State   string         `json:"state" doc:"new, changed, same or faulty"`
	User    string         `json:"user,omitempty"`
	Changes []ImportChange `json:"changes" nullable:"false" doc:"Before and after; of a new user what is not the default"`
	Faults  []ImportFault  `json:"faults" nullable:"false"`
	Note    string         `json:"note,omitempty" doc:"What one should look at before applying"`
	Code    bool           `json:"code" doc:"An enrolment code is made"`
	Done    bool           `json:"done"`
}

// ImportQuery reads the rows of an import from a database: one that is kept on the
// server, or an address that is given once and not kept.
type ImportQuery struct {
	Source  string `json:"source,omitempty" doc:"Name or id of a source that is kept"`
	Address Secret `json:"address,omitzero" doc:"postgresql://USER:PASSWORD@HOST/DATABASE, mysql://…, sqlserver://… or oracle://…; instead of source"`
	Query   string `json:"query,omitempty" doc:"SELECT with the columns of the file; absent: the source's own"`
	CA      string `json:"ca,omitempty" doc:"Certificates in PEM that the database's certificate must come from; absent: those of the system"`
}

// NewSource keeps the address of a database that users are imported from. Its
// password is sealed and never shown again.
type NewSource struct {
	Name    string `json:"name"`
	Address Secret `json:"address"`
	Query   string `json:"query"`
	CA      string `json:"ca,omitempty"`
}

// Source is such a database.
type Source struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Driver    string    `json:"driver" doc:"postgresql, mysql, sqlserver or oracle"`
	Place     string    `json:"place" doc:"The address without its password"`
	Query     string    `json:"query"`
	Tested    bool      `json:"tested" doc:"Whether the driver was run against a real server by those who built this program"`
	CreatedBy string    `json:"created_by"`
	CreatedAt time.Time `json:"created_at"`
	UsedAt    time.Time `json:"used_at,omitzero"`
}
