package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/session"
	"latchkey/internal/text"
)

func init() {
	for id, right := range map[string]string{
		"begin-session": public, "choose-session": public, "answer-session": public, "renew-password": public, "cancel-session": public,
		"show-session": person, "end-session": person, "prove-session": person, "show-proof": person, "choose-proof": person, "cancel-proof": person,
		"list-sessions": "read", "list-own-sessions": "self", "revoke-session": person, "list-user-sessions": "read", "revoke-user-sessions": "helpdesk",
		"list-api-tokens": "read", "make-api-token": person, "revoke-api-token": person,
		"list-approvals": "read", "ask-approval": "own", "decide-approval": "own",
		"show-setup-code": "own",
	} {
		rights[id] = right
	}
	for _, id := range []string{"begin-session", "choose-session", "answer-session", "renew-password", "prove-session", "choose-proof", "make-api-token", "show-setup-code"} {
		secrets[id] = true
	}
	for _, id := range []string{"make-api-token", "ask-approval", "decide-approval"} {
		fresh[id] = true
	}
}

// addSession is add for what needs somebody who keeps sessions.
func addSession[In, Out any](x *door, id, method, path, summary string, status int, fn func(ctx context.Context, m *session.Sessions, in *In) (*Out, error)) {
	wrapped := func(ctx context.Context, _ desk.Actor, in *In) (*Out, error) {
		if x.sessions == nil {
			return nil, fault.Newf(fault.Unavailable, "Nobody can sign in at this door.")
		}
		return fn(ctx, x.sessions, in)
	}
	o := op(id, method, path, summary, status)
	if rights[id] == public {
		addPublic(x, o, wrapped)
		return
	}
	add(x, o, wrapped)
}

// own is the session of the request. A token and the admin socket have none.
func own(ctx context.Context) (*session.Session, error) {
	if s := session.From(ctx); s != nil {
		return s, nil
	}
	return nil, fault.Newf(fault.Forbidden, "This is done by a person who has signed in (latchkey login, or the console), not with a token and not on the admin socket.")
}

func sessionOf(s *session.Session, current *session.Session) *rest.Session {
	return &rest.Session{
		ID: session.SessionPrefix + s.ID, User: s.Name, UserID: rest.UserPrefix + s.UserID, Kind: s.Kind, Factor: s.Factor, Console: s.Console,
		BeganAt: s.Began.UTC(), SeenAt: s.Seen.UTC(), FreshAt: utc(s.Fresh), EndsAt: s.Ends.UTC(), Address: s.Address, Agent: s.Agent,
		Current: current != nil && current.ID == s.ID,
	}
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

func tokenBody(t session.Token) rest.APIToken {
	return rest.APIToken{
		ID: rest.APITokenPrefix + t.ID, Name: t.Name, Maker: t.Maker, MakerID: rest.UserPrefix + t.MakerID, Scopes: append([]string{}, t.Scopes...),
		Role: t.Role, Now: t.Now, CreatedAt: t.Created.UTC(), ExpiresAt: t.Expires.UTC(), LastUsedAt: utc(t.LastUsed), LastAddress: t.LastAddress,
	}
}

func approvalOf(a session.Approval) rest.Approval {
	return rest.Approval{
		ID: session.ApprovalPrefix + a.ID, Action: a.Action, Subject: a.Subject, SubjectID: rest.UserPrefix + a.SubjectID, Reason: a.Reason,
		Requester: a.Requester, Approver: a.Approver, State: a.State, AskedAt: a.Asked.UTC(), DecidedAt: utc(a.Decided), ExpiresAt: a.Expires.UTC(),
	}
}

// opened is a step of a sign-in as the program sees it.
func opened(o session.Opened, err error) (*plain[rest.SignedIn], error) {
	switch {
	case err != nil:
		return nil, err
	case o.Session != nil:
		return &plain[rest.SignedIn]{rest.SignedIn{Session: sessionOf(o.Session, o.Session), Secret: rest.Hide(o.Secret)}}, nil
	case o.Pending != nil:
		return &plain[rest.SignedIn]{rest.SignedIn{
			Signin: rest.Hide(o.Secret), Next: string(o.Pending.Next), Kinds: kindNames(o.Pending.Kinds),
			Choices: waysOf(o.Pending.Kinds, o.Pending.Other), Asked: askedOf(o.Pending.Kinds, o.Pending.Asked), Why: o.Pending.Why, LastsFor: text.Duration(session.SigninTime),
		}}, nil
	}
	return nil, fault.New(fault.Unauthorized, nil)
}

func kindNames(kinds []session.Kind) []string {
	var out []string
	for _, k := range kinds {
		out = append(out, k.Name)
	}
	return out
}

// waysOf are the factors that somebody may choose, and behind them those that take a
// browser.
func waysOf(here, elsewhere []session.Kind) []rest.Way {
	out := []rest.Way{}
	for _, k := range here {
		out = append(out, rest.Way{Kind: k.Name, Option: k.Option, Sends: k.Sends, Waits: k.Waits})
	}
	for _, k := range elsewhere {
		out = append(out, rest.Way{Kind: k.Name, Option: k.Option, Browser: true})
	}
	return out
}

// askedOf is what somebody was asked for; nil: nothing.
func askedOf(kinds []session.Kind, a session.Asked) *rest.Asked {
	i := slices.IndexFunc(kinds, func(k session.Kind) bool { return k.Name == a.Kind })
	if i < 0 {
		return nil
	}
	return &rest.Asked{
		Kind: a.Kind, Prompt: cmp.Or(a.Sent.Prompt, kinds[i].Prompt), Tell: a.Sent.Tell, Number: a.Sent.Number, Waits: kinds[i].Waits, ExpiresAt: utc(a.Sent.Expires),
	}
}

// asking answers with what somebody was asked for.
func asking(a *rest.Asked) (*plain[rest.Asked], error) {
	if a == nil {
		return nil, fault.New(fault.Conflict, nil)
	}
	return &plain[rest.Asked]{*a}, nil
}

// kindOf is the kind of an answer, if a program can give it.
func kindOf(s string) (string, error) {
	switch s {
	case "":
		return session.TOTP, nil
	case session.Push, session.TOTP, session.Mail, session.SMS, session.Backup:
		return s, nil
	case session.FIDO2:
		return "", fault.New(fault.Invalid, nil).With("kind", "a passkey is given in a browser alone; take another factor, or sign in there")
	}
	return "", fault.New(fault.Invalid, nil).With("kind", "%q is not allowed; allowed are those of choices: push, totp, mail, sms, backup", text.CleanN(s, 32))
}

// noChoice says of a kind that can not be asked for, or was not yet, what is wrong.
func noChoice(err error) error {
	if !fault.Is(err, fault.BadRequest) {
		return err
	}
	return fault.New(fault.Invalid, err).With("kind", "it is none of the choices now, or it sends something and was not chosen first")
}

// bare takes the prefix off an id; what is no id names nothing, and is not looked for.
func bare(prefix, id string) string {
	s, ok := strings.CutPrefix(id, prefix)
	if !ok || len(s) != 36 || strings.Trim(s, "0123456789abcdef-") != "" {
		return "00000000-0000-0000-0000-000000000000"
	}
	return s
}

// agent is what a program calls itself.
type agent struct {
	Agent string `header:"User-Agent" hidden:"true"`
}

// session registers who signs in, with what, and who approves.
func (x *door) session() {
	addSession(x, "begin-session", "POST", "/sessions", "Sign in: name and password", http.StatusOK, func(ctx context.Context, m *session.Sessions, in *struct {
		agent
		Body rest.Credentials
	},
	) (*plain[rest.SignedIn], error) {
		defer in.Body.Password.Wipe()
		return opened(m.Begin(ctx, session.Attempt{Name: in.Body.Name, Password: in.Body.Password.Bytes, Kind: session.CLI, Address: addressOf(ctx), Agent: in.Agent}))
	})
	addSession(x, "choose-session", "POST", "/sessions/choose", "Sign in: choose a factor, and have sent what it sends", http.StatusOK, func(ctx context.Context, m *session.Sessions, in *struct{ Body rest.Choice }) (*plain[rest.Asked], error) {
		k, err := kindOf(in.Body.Kind)
		if err != nil {
			return nil, err
		}
		p, err := m.Choose(ctx, in.Body.Signin.Show(), k, in.Body.Again, addressOf(ctx))
		if err != nil {
			return nil, noChoice(err)
		}
		return asking(askedOf(p.Kinds, p.Asked))
	})
	addSession(x, "answer-session", "POST", "/sessions/answer", "Sign in: the second factor", http.StatusOK, func(ctx context.Context, m *session.Sessions, in *struct{ Body rest.Answer }) (*plain[rest.SignedIn], error) {
		defer in.Body.Code.Wipe()
		k, err := kindOf(in.Body.Kind)
		if err != nil {
			return nil, err
		}
		o, err := m.Answer(ctx, in.Body.Signin.Show(), k, in.Body.Code.Bytes, addressOf(ctx))
		return opened(o, noChoice(err))
	})
	addSession(x, "cancel-session", "POST", "/sessions/cancel", "Sign in: give it up; a request that waits on a phone is withdrawn", 0, func(ctx context.Context, m *session.Sessions, in *struct{ Body rest.Signin }) (*empty, error) {
		return nil, m.GiveUp(ctx, in.Body.Signin.Show(), addressOf(ctx))
	})
	addSession(x, "renew-password", "POST", "/sessions/password", "Sign in: a new password where the old one is due", http.StatusOK, func(ctx context.Context, m *session.Sessions, in *struct{ Body rest.DuePassword }) (*plain[rest.SignedIn], error) {
		defer in.Body.Password.Wipe()
		return opened(m.NewPassword(ctx, in.Body.Signin.Show(), in.Body.Password.Bytes, in.Body.Password.Bytes, addressOf(ctx)))
	})

	add(x, op("show-session", "GET", "/session", "Who you are here, and what you may do", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.Who], error) {
		out := rest.Who{Name: a.Name, Role: a.Role, By: "root", Rights: []string{}}
		if a.UserID != "" {
			out.UserID = rest.UserPrefix + a.UserID
		}
		for _, r := range desk.Scopes {
			if a.Can(r) {
				out.Rights = append(out.Rights, r)
			}
		}
		if s := session.From(ctx); s != nil {
			out.By, out.Session = "session", sessionOf(s, s)
		} else if t := tokenOf(ctx); t != nil {
			b := tokenBody(*t)
			out.By, out.Token = "token", &b
		}
		return reply(out, nil)
	})
	addSession(x, "end-session", "DELETE", "/session", "Sign out", 0, func(ctx context.Context, m *session.Sessions, _ *empty) (*empty, error) {
		s, err := own(ctx)
		if err != nil {
			return nil, err
		}
		return nil, m.End(ctx, s, addressOf(ctx))
	})
	// terminal is the session of a request by a program.
	terminal := func(ctx context.Context) (*session.Session, error) {
		s, err := own(ctx)
		if err == nil && s.Kind != session.CLI {
			err = fault.Newf(fault.Forbidden, "A browser gives the second factor again at /stepup.")
		}
		return s, err
	}
	addSession(x, "show-proof", "GET", "/session/proof", "How the second factor may be given again", 0, func(ctx context.Context, m *session.Sessions, _ *empty) (*plain[rest.Proving], error) {
		s, err := terminal(ctx)
		if err != nil {
			return nil, err
		}
		p, err := m.Proof(ctx, s)
		if err != nil {
			return nil, err
		}
		return reply(rest.Proving{Choices: waysOf(p.Kinds, p.Other), Asked: askedOf(p.Kinds, p.Asked)}, nil)
	})
	addSession(x, "choose-proof", "POST", "/session/proof/choose", "Choose how to give the second factor again, and have sent what it sends", http.StatusOK, func(ctx context.Context, m *session.Sessions, in *struct{ Body rest.ProofChoice }) (*plain[rest.Asked], error) {
		s, err := terminal(ctx)
		if err != nil {
			return nil, err
		}
		k, err := kindOf(in.Body.Kind)
		if err != nil {
			return nil, err
		}
		p, err := m.ChooseProof(ctx, s, k, in.Body.Again, addressOf(ctx))
		if err != nil {
			return nil, noChoice(err)
		}
		return asking(askedOf(p.Kinds, p.Asked))
	})
	addSession(x, "cancel-proof", "POST", "/session/proof/cancel", "Do not wait for a phone any more: the request is withdrawn, the session stays", 0, func(ctx context.Context, m *session.Sessions, _ *empty) (*empty, error) {
		s, err := terminal(ctx)
		if err != nil {
			return nil, err
		}
		return nil, m.LeaveProof(ctx, s, addressOf(ctx))
	})
	addSession(x, "prove-session", "POST", "/session/proof", "Give the second factor again", http.StatusOK, func(ctx context.Context, m *session.Sessions, in *struct{ Body rest.Proof }) (*plain[rest.Fresh], error) {
		defer in.Body.Code.Wipe()
		s, err := terminal(ctx)
		if err != nil {
			return nil, err
		}
		k, err := kindOf(in.Body.Kind)
		if err != nil {
			return nil, err
		}
		next, still, err := m.StepUp(ctx, s, k, in.Body.Code.Bytes, addressOf(ctx))
		switch {
		case err != nil:
			return nil, noChoice(err)
		case still != nil:
			return reply(rest.Fresh{Asked: askedOf(still.Kinds, still.Asked)}, nil)
		}
		now := x.desk.Clock.Now().UTC()
		return reply(rest.Fresh{Secret: rest.Hide(next), FreshAt: now, Until: now.Add(session.FreshFor)}, nil)
	})

	sessions := func(ctx context.Context, list []session.Session) *plain[rest.Page[rest.Session]] {
		out := rest.Page[rest.Session]{Items: []rest.Session{}}
		for _, s := range list {
			out.Items = append(out.Items, *sessionOf(&s, session.From(ctx)))
		}
		return &plain[rest.Page[rest.Session]]{out}
	}
	addSession(x, "list-own-sessions", "GET", "/me/sessions", "List your sessions", 0, func(ctx context.Context, m *session.Sessions, _ *empty) (*plain[rest.Page[rest.Session]], error) {
		a, err := actor(ctx)
		if err != nil {
			return nil, err
		}
		if !a.Can("self") {
			return nil, fault.New(fault.Forbidden, nil)
		}
		list, err := m.List(ctx, a, a.UserID)
		return sessions(ctx, list), err
	})
	addSession(x, "list-sessions", "GET", "/sessions", "List the sessions of everybody, the youngest first", 0, func(ctx context.Context, m *session.Sessions, in *Paged) (*plain[rest.Page[rest.Session]], error) {
		a, err := actor(ctx)
		if err != nil {
			return nil, err
		}
		before := in.After
		if before != "" {
			before = bare(session.SessionPrefix, in.After)
		}
		show := in.Limit
		if show <= 0 {
			show = rest.DefaultPage
		}
		list, err := m.ListAll(ctx, a, before, show+1)
		if err != nil {
			return nil, err
		}
		more := len(list) > show
		if more {
			list = list[:show]
		}
		out := sessions(ctx, list)
		if more {
			out.Body.Next = out.Body.Items[show-1].ID
		}
		return out, nil
	})
	addSession(x, "revoke-session", "DELETE", "/sessions/{session}", "End a session, your own or as the help desk another's", 0, func(ctx context.Context, m *session.Sessions, in *struct {
		Session string `path:"session" maxLength:"64"`
	},
	) (*empty, error) {
		a, err := actor(ctx)
		if err != nil {
			return nil, err
		}
		return nil, m.Revoke(ctx, a, bare(session.SessionPrefix, in.Session))
	})
	// The user is looked up by the desk, which asks for the right first.
	subject := func(ctx context.Context, right, ref string) (desk.Actor, string, error) {
		a, err := actor(ctx)
		if err != nil {
			return a, "", err
		}
		id, err := x.desk.UserID(ctx, a, right, ref)
		return a, id, err
	}
	addSession(x, "list-user-sessions", "GET", "/users/{user}/sessions", "List a user's sessions at console, portal and API", 0, func(ctx context.Context, m *session.Sessions, in *UserPath) (*plain[rest.Page[rest.Session]], error) {
		a, id, err := subject(ctx, "read", in.User)
		if err != nil {
			return nil, err
		}
		list, err := m.List(ctx, a, id)
		return sessions(ctx, list), err
	})
	addSession(x, "revoke-user-sessions", "DELETE", "/users/{user}/sessions", "Sign a user out everywhere: sessions, and for another also MFA windows, API tokens and certificates", http.StatusOK, func(ctx context.Context, m *session.Sessions, in *UserPath) (*plain[rest.SignedOut], error) {
		a, id, err := subject(ctx, "helpdesk", in.User)
		if err != nil {
			return nil, err
		}
		n, err := m.RevokeAll(ctx, a, id, a.Session)
		return reply(rest.SignedOut{Count: n.Sessions, Windows: n.Windows, Tokens: n.Tokens, Certificates: n.Certificates}, err)
	})

	addSession(x, "list-api-tokens", "GET", "/tokens", "List your API tokens, or with all those of everybody", 0, func(ctx context.Context, m *session.Sessions, in *struct {
		Paged
		All bool `query:"all" doc:"Of everybody; needs the right to read"`
	},
	) (*plain[rest.Page[rest.APIToken]], error) {
		a, err := actor(ctx)
		if err != nil {
			return nil, err
		}
		list, err := m.ListTokens(ctx, a, in.All)
		if err != nil {
			return nil, err
		}
		// They are few: a page is cut from the whole list, which is in order of ids.
		slices.SortFunc(list, func(a, b session.Token) int { return strings.Compare(a.ID, b.ID) })
		out := rest.Page[rest.APIToken]{Items: []rest.APIToken{}}
		show := in.Limit
		if show <= 0 {
			show = rest.DefaultPage
		}
		for _, t := range list {
			b := tokenBody(t)
			if in.After != "" && b.ID <= in.After {
				continue
			}
			if len(out.Items) == show {
				out.Next = out.Items[show-1].ID
				break
			}
			out.Items = append(out.Items, b)
		}
		return reply(out, nil)
	})
	addSession(x, "make-api-token", "POST", "/tokens", "Make an API token", http.StatusCreated, func(ctx context.Context, m *session.Sessions, in *struct{ Body rest.NewAPIToken }) (*plain[rest.APIToken], error) {
		s, err := own(ctx)
		if err != nil {
			return nil, err
		}
		var span time.Duration
		if in.Body.ValidFor != "" {
			if span, err = time.ParseDuration(in.Body.ValidFor); err != nil || span < time.Hour || span > 8760*time.Hour {
				return nil, fault.New(fault.Invalid, nil).With("valid_for", "%q is not allowed; allowed are durations such as 720h, from 1h to 8760h", text.CleanN(in.Body.ValidFor, 64))
			}
		}
		t, raw, err := m.MakeToken(ctx, s, addressOf(ctx), session.NewToken{Name: in.Body.Name, Scopes: in.Body.Scopes, Role: in.Body.Role, For: span})
		if err != nil {
			return nil, err
		}
		out := tokenBody(t)
		out.Token = rest.Hide(raw)
		return reply(out, nil)
	})
	addSession(x, "revoke-api-token", "DELETE", "/tokens/{apitoken}", "Revoke an API token", 0, func(ctx context.Context, m *session.Sessions, in *struct {
		Token string `path:"apitoken" maxLength:"64"`
	},
	) (*empty, error) {
		a, err := actor(ctx)
		if err != nil {
			return nil, err
		}
		return nil, m.RevokeToken(ctx, a, bare(rest.APITokenPrefix, in.Token))
	})

	addSession(x, "list-approvals", "GET", "/approvals", "List what a second owner was asked for within the last day", 0, func(ctx context.Context, m *session.Sessions, _ *empty) (*plain[rest.Page[rest.Approval]], error) {
		a, err := actor(ctx)
		if err != nil {
			return nil, err
		}
		list, err := m.ListApprovals(ctx, a)
		out := rest.Page[rest.Approval]{Items: []rest.Approval{}}
		for _, p := range list {
			out.Items = append(out.Items, approvalOf(p))
		}
		return reply(out, err)
	})
	addSession(x, "ask-approval", "POST", "/approvals", "Ask a second owner for an approval", http.StatusCreated, func(ctx context.Context, m *session.Sessions, in *struct{ Body rest.NewApproval }) (*plain[rest.Approval], error) {
		s, err := own(ctx)
		if err != nil {
			return nil, err
		}
		p, err := m.Ask(ctx, s, addressOf(ctx), in.Body.Action, in.Body.Subject, in.Body.Reason)
		return reply(approvalOf(p), err)
	})
	addSession(x, "decide-approval", "POST", "/approvals/{approval}/decide", "Give or deny an approval", http.StatusOK, func(ctx context.Context, m *session.Sessions, in *struct {
		Approval string `path:"approval" maxLength:"64"`
		Body     rest.Verdict
	},
	) (*plain[rest.Approval], error) {
		s, err := own(ctx)
		if err != nil {
			return nil, err
		}
		p, err := m.Decide(ctx, s, addressOf(ctx), bare(session.ApprovalPrefix, in.Approval), in.Body.Approve)
		return reply(approvalOf(p), err)
	})
	addSession(x, "show-setup-code", "GET", "/setup-code", "Show the code that makes the first owner, where there is none yet", 0, func(ctx context.Context, m *session.Sessions, _ *empty) (*plain[rest.SetupCode], error) {
		a, err := actor(ctx)
		if err != nil {
			return nil, err
		}
		code, err := m.SetupCode(ctx, a)
		return reply(rest.SetupCode{Wanted: !code.Empty(), Code: rest.Hide(code)}, err)
	})
}
