package portal

import (
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// A mail address or a number for codes (M6): a code that is sent there confirms it.

// address is what the page shows: the address to be typed, or the code that was sent to it.
type address struct {
	channel, typed string
	sent           *rest.PendingAddress
	faults         map[string]string
}

func (a address) path() string { return "/me/" + a.channel }

func addressRoutes() []ui.Route {
	var out []ui.Route
	for _, channel := range []string{rest.ChannelMail, rest.ChannelSMS} {
		out = append(out,
			ui.Route{Pattern: "GET /me/" + channel, Needs: ui.Person, Fresh: true, Serve: whole(func(r *ui.Request) error { return beginAddress(r, channel) })},
			ui.Route{Pattern: "POST /me/" + channel, Needs: ui.Person, Fresh: true, Serve: whole(func(r *ui.Request) error { return sendAddress(r, channel) })},
			ui.Route{Pattern: "POST /me/" + channel + "/confirm", Needs: ui.Person, Serve: whole(func(r *ui.Request) error { return confirmAddress(r, channel) })},
		)
	}
	return out
}

func addressFrame(channel string) ui.Page {
	p := ui.Page{
		Title: words.PostMyMail, Lead: words.PostMyLead, Section: "factors", Crumbs: []ui.Crumb{toFactors},
		Curl: curl("POST", "/me/addresses/"+channel, map[string]string{"address": "anna@example.org"}),
	}
	if channel == rest.ChannelSMS {
		p.Title, p.Curl = words.PostMySMS, curl("POST", "/me/addresses/"+channel, map[string]string{"address": "+49 170 1234567"})
	}
	return p
}

func beginAddress(r *ui.Request, channel string) error {
	a := address{channel: channel}
	if channel == rest.ChannelMail {
		me, err := r.Desk.Me(r.Context(), r.Actor())
		if err != nil {
			return err
		}
		a.typed = me.Mail
	}
	return r.Show(addressFrame(channel), addressPage(a))
}

func sendAddress(r *ui.Request, channel string) error {
	if _, err := r.Values(); err != nil {
		return err
	}
	a := address{channel: channel, typed: r.Value("address")}
	sent, err := r.Desk.BeginOwnAddress(r.Context(), r.Actor(), channel, rest.NewAddress{Address: a.typed})
	if err != nil && !ui.Refill(err) {
		return err
	}
	if err != nil {
		a.faults = ui.Faults(err)
		return r.ShowStatus(fault.Of(err).Status(), addressFrame(channel), addressPage(a))
	}
	a.sent = &sent
	return r.Show(addressFrame(channel), addressPage(a))
}

func confirmAddress(r *ui.Request, channel string) error {
	if _, err := r.Values(); err != nil {
		return err
	}
	a := address{channel: channel, sent: &rest.PendingAddress{Ticket: r.Value("ticket"), To: r.Value("to")}}
	_, err := r.Desk.ConfirmOwnAddress(r.Context(), r.Actor(), channel, rest.ConfirmAddress{Ticket: a.sent.Ticket, Code: rest.HideText(r.Value("code"))})
	if err != nil && !ui.Refill(err) {
		return err
	}
	if err != nil {
		a.faults = ui.Faults(err)
		return r.ShowStatus(fault.Of(err).Status(), addressFrame(channel), addressPage(a))
	}
	return r.Go("/me/factors", words.PostMyDone)
}
