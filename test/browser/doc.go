// Package browser drives a real Chromium over the pages of the server, as a person does: it opens addresses, finds
// fields by their labels and buttons by their names, types and clicks.
//
// Promises: the browser has a profile of its own, and talks to the addresses that a test names and to nobody else; what
// a page does wrong is noticed whether a test asks or not (a script's error, something that the content security policy
// stops, a request to another host, a failed request), and fails the test when it ends; nothing waits for a fixed time,
// and nothing without an end. Rows: the pages of S13, O14, P1-P5, E1-E4, M1, M5, V2.
//
// It needs Chromium, a font, and axe-core in .cache/assets (scripts/deps test, scripts/axe). `make test PART=browser`.
package browser
