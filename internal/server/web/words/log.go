package words

import "fmt"

// Events.
const (
	EventsEmpty        = "No such events"
	EventsEmptyText    = "No event fits these filters. Take some away, or look further back."
	EventsNone         = "Nothing has happened yet"
	EventsNoneText     = "Every sign-in, every change and every machine’s report will stand here. Join a machine to see the first sign-in."
	EventsSearched     = "Not everything was looked at, so that the page comes quickly."
	EventsTime         = "Time"
	EventsType         = "Event"
	EventsWho          = "Who"
	EventsBy           = "By"
	EventsMachine      = "Machine"
	EventsHow          = "How"
	EventsOutcome      = "Result"
	EventsReason       = "Reason"
	EventsText         = "Text in names, address, service or reason"
	EventsFilterType   = "Type"
	EventsAnyType      = "Any type"
	EventsAnyOutcome   = "Any result"
	EventsAnyScope     = "Any kind"
	EventsAnyFactor    = "Any factor"
	EventsAnyLink      = "Server reachable or not"
	EventsAnyReason    = "Any reason"
	EventsUser         = "User"
	EventsSince        = "From (UTC)"
	EventsUntil        = "Until (UTC)"
	EventsActor        = "By"
	EventsAddress      = "Address"
	EventsService      = "Service"
	EventsMore         = "More filters"
	EventsExportCSV    = "Export as CSV"
	EventsExportJSON   = "Export as JSON lines"
	EventsExport       = "Export"
	EventsExportNote   = "All that fit, the youngest first, at most 1 000 000; the browser shows how far it is."
	EventsViews        = "Views"
	EventsViewsNone    = "None yet. Set filters, and save them under a name."
	EventsViewName     = "Name of this view"
	EventsViewShared   = "For everybody who reads events"
	EventsViewSave     = "Save these filters"
	EventsViewRemove   = "Remove"
	EventsViewIsShared = "shared"
	EventsUpLink       = "Reachable"
	EventsDownLink     = "Not reachable"
	EventsRefusedLink  = "Refused"

	EventTitle    = "Event"
	EventActor    = "Done by"
	EventSubject  = "About"
	EventReceived = "Received"
	EventAddress  = "Address"
	EventScope    = "Kind of sign-in"
	EventService  = "Service"
	EventLink     = "Server"
	EventFactor   = "Factor"
	EventChain    = "Place in the log"
	EventID       = "Id"
	EventTrace    = "Why"
	EventData     = "Everything it holds"
	EventNow      = "What would happen now"
	EventNowText  = "The same sign-in, judged by the rules and facts of this moment."
	EventExplain  = "Explain now"
	EventChanges  = "What changed"
	EventReports  = "What report-only policies would have decided"
	EventDuration = "Took"
	EventGivenMFA = "A second factor was asked for, and given."

	AuditLead      = "What people did at the console, through the API and on the server itself, with what it changed."
	AuditEmpty     = "No administrator has done anything yet"
	AuditEmptyText = "Changes of users, groups, machines, policies and settings will stand here."
	AuditWhat      = "What"
	AuditFrom      = "From where"
	AuditDetail    = "Before and after"
)

// EventsSearchedTo says how far was looked.
const EventsSearchedTo = "Looked back to"

// EventsSet says how many more filters are set.
func EventsSet(n int) string { return fmt.Sprintf("%s (%d set)", EventsMore, n) }

// ViewSaved says so.
func ViewSaved(name string) string { return fmt.Sprintf("The view %s was saved.", name) }

// ViewRemoved says so.
const ViewRemoved = "The view was removed."
