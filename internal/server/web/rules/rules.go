// Package rules holds the console's pages about policies and decisions: the list and
// the page of a policy, its editor with review, trial and versions, what a report-only
// policy would have done, which policy holds for a user, and why a sign-in comes out as
// it does.
//
// It promises: nothing is written before the change was shown as a difference, and none
// that shuts people out before they were named and a box was ticked; a trial
// says what it could not judge; two administrators never write over each other unseen;
// what weakens the second factor is said wherever the policy is shown (P4); and the
// answer to "why" has an address of its own.
//
// Rows: S13, P1, P2, P4, P5.
package rules

import (
	"net/url"
	"strconv"
	"time"

	"latchkey/internal/rest"
	"latchkey/internal/server/web/ui"
)

// tryTime is how long a trial may take.
const tryTime = 90 * time.Second

// Routes are the pages of this area.
func Routes() []ui.Route {
	return []ui.Route{
		{Pattern: "GET /console/policies", Serve: list},
		{Pattern: "GET /console/policies/new", Serve: newPolicy},
		{Pattern: "POST /console/policies/new", Serve: sendNew, Slow: tryTime},
		{Pattern: "GET /console/policies/{policy}", Serve: show},
		{Pattern: "GET /console/policies/{policy}/edit", Serve: edit},
		{Pattern: "POST /console/policies/{policy}/edit", Serve: sendEdit, Slow: tryTime},
		{Pattern: "GET /console/policies/{policy}/history", Serve: history},
		{Pattern: "POST /console/policies/{policy}/shut-out", Serve: shutOut, Slow: tryTime},
		{Pattern: "POST /console/policies/{policy}/try", Serve: tryVersion, Slow: tryTime},
		{Pattern: "POST /console/policies/{policy}/rollback", Serve: rollback, Fresh: true},
		{Pattern: "POST /console/policies/{policy}/remove", Serve: remove, Fresh: true},
		{Pattern: "GET /console/policies/{policy}/reports", Serve: reports},
		{Pattern: "GET /console/explain", Serve: explain},
		{Pattern: "GET /console/explain/policy", Serve: effective},
	}
}

func policyPath(id string, more ...string) string {
	p := "/console/policies/" + url.PathEscape(id)
	for _, m := range more {
		p += "/" + m
	}
	return p
}

// query is an address with the pairs of names and values that are not empty.
func query(base string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return base
	}
	return base + "?" + q.Encode()
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

func api(path string) string { return rest.Base + path }
