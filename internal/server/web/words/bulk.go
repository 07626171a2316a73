package words

import "fmt"

// Import of users.
const (
	ImportLead         = "Add and change many users at once, from a CSV file or a database. Everything is judged before anything is changed."
	ImportFromFile     = "From a file"
	ImportFromDatabase = "From a database"
	ImportFile         = "CSV file"
	ImportFileHint     = "UTF-8; the first line names the columns; comma, semicolon or tab between cells. At most 64 MB and 200,000 lines."
	ImportTemplate     = "Download a template"
	ImportOnFaults     = "If rows are faulty"
	ImportStop         = "Change nothing at all"
	ImportStopHint     = "All rows or none: one transaction. With more than about 20,000 rows sign-ins wait for seconds while it runs."
	ImportSkip         = "Leave faulty rows out"
	ImportSkipHint     = "The others are changed in small steps; sign-ins go on in between."
	ImportCodes        = "Make an enrolment code for every new user"
	ImportCodesHint    = "They can be downloaded once when the import is done, and are good for 7 days. A column “code” can choose for each row."
	ImportMakeGroups   = "Make groups that are missing"
	ImportIgnore       = "Leave out columns that are not known"
	ImportCheck        = "Check the rows"
	ImportCheckNote    = "Nothing is changed yet: the next page shows what would change."
	ImportSource       = "Database"
	ImportSourcesNone  = "No database is kept on the server yet. An owner adds one; its address is sealed and never shown again."
	ImportSourcesOther = "Databases"
	ImportColumns      = "Columns"
	ImportColumnsLead  = "In any order; only “name” must be there. An empty cell leaves a setting as it is, a single - empties it."
	ImportColumn       = "Column"
	ImportMeaning      = "Meaning"
	ImportExample      = "Example"
	ImportRecent       = "Imports of the last week"
	ImportNone         = "No imports yet"
	ImportNoneText     = "Download the template, fill in one user per line, and check it above: nothing is changed before you say so."
	ImportFrom         = "From"
	ImportBy           = "By"
	ImportWhen         = "Begun"
	ImportState        = "State"
	ImportNew          = "New"
	ImportChanged      = "Changed"
	ImportSame         = "The same"
	ImportFaulty       = "Faulty"
	ImportAll          = "All"
	ImportRow          = "Line"
	ImportUser         = "User"
	ImportWhat         = "What"
	ImportDetails      = "Before and after"
	ImportWithCode     = "an enrolment code is made"
	ImportApply        = "Apply"
	ImportDrop         = "Drop"
	ImportDropText     = "The rows and the check are forgotten. Users stay as they are."
	ImportDropped      = "The import was dropped. No user was changed by that."
	ImportFaultsFile   = "Download all faults (CSV)"
	ImportFetchCodes   = "Download the enrolment codes"
	ImportFetchText    = "They are shown once, and forgotten here as soon as the download begins. Keep the file safe until everybody has their code."
	ImportAgain        = "Look again"
	ImportGoesOn       = "This page renews itself. You may leave it: the import goes on by itself."
	ImportNothing      = "Nothing would change: every user is as the rows say already."
	ImportFaultyStop   = "There are faulty rows, and this import is all or nothing. Correct them and check the file again, or check it once more with “leave faulty rows out”."
	ImportNoRows       = "No rows of this kind"
	ImportNoRowsText   = "Choose another tab above."
	ImportStarted      = "The import is being applied."
	ImportNotTested    = "driver not run against a server by those who built it: look at the check closely"
	ImportNewGroups    = "Groups that come into being"
	ImportMany         = "More than 20,000 users change in one transaction: while it runs, sign-ins wait for some seconds. Choose a quiet hour, or leave faulty rows out instead of all or nothing."

	SourcesLead        = "Databases that users are imported from. The server connects to them when somebody checks an import; the query runs in a transaction that only reads."
	SourceName         = "Name"
	SourceAddress      = "Address"
	SourceAddressHint  = "KIND://USER:PASSWORD@HOST:PORT/DATABASE with KIND postgresql, mysql, sqlserver or oracle. Special letters of the password are written %XX. The connection is verified TLS; ?tls=encrypt and ?tls=off weaken it. Use an account that may only read."
	SourceQuery        = "Query"
	SourceQueryHint    = "One SELECT whose columns are named as in a file: SELECT login AS name, mail FROM staff"
	SourceCA           = "Certificates (PEM)"
	SourceCAHint       = "That the database’s certificate must come from; empty: those of the system."
	SourceAdd          = "Add the database"
	SourceAddTitle     = "Add a database"
	SourceUsed         = "Last used"
	SourceRemove       = "Forget"
	SourceRemoveText   = "The address and the query are removed from the server. Users stay as they are."
	SourceAdded        = "The database is kept. Check an import from it."
	SourceRemoved      = "The database was forgotten."
	SourcesEmpty       = "No databases yet"
	SourcesEmptyText   = "Keep one below; then users can be imported from it as from a file."
	SourcesOwners      = "Only owners may add and remove databases."
	SourceNotTested    = "not run against a server"
	SourceActions      = "Actions"
	SourceTitle        = "Databases for imports"
	SourceNeverUsed    = "never"
	ImportFormNotAFile = "Choose a file first."
)

// ImportStates are the states of an import in words.
var ImportStates = map[string]string{
	"reading": "Rows are being read", "checked": "Checked, nothing changed", "applying": "Users are being changed", "telling": "Events are being written",
	"done": "Done", "failed": "Failed, nothing changed",
}

// RowStates are the states of a row in words.
var RowStates = map[string]string{"new": "New", "changed": "Changed", "same": "The same", "faulty": "Faulty"}

// ImportApplyTitle asks before users are changed.
func ImportApplyTitle(fresh, changed int64) string {
	return fmt.Sprintf("Add %s and change %s?", users(fresh), users(changed))
}

func users(n int64) string {
	if n == 1 {
		return "1 user"
	}
	return fmt.Sprintf("%d users", n)
}

// ImportRead says how far reading is.
func ImportRead(rows int64) string { return fmt.Sprintf("%d rows were judged so far.", rows) }

// ImportPlace says where a fault is.
func ImportPlace(line int64, column int, field string) string {
	s := fmt.Sprintf("Line %d", line)
	if column > 0 {
		s += fmt.Sprintf(", column %d", column)
	}
	if field != "" {
		s += " (" + field + ")"
	}
	return s
}

// ImportOnlyMaker says why there are no buttons.
func ImportOnlyMaker(name string) string {
	return "This import was begun by " + name + ". Only that account goes on with it."
}

// ImportNoPasswords says who can not enrol in the portal.
func ImportNoPasswords(n int64) string {
	if n == 1 {
		return "The new user has no password here and can not enrol in the portal: an enrolment code is of use only after a password was set."
	}
	return fmt.Sprintf("%d of these users are new and have no password here. They can not enrol in the portal: an enrolment code is of use only after a password was set.", n)
}
