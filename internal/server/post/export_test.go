package post

import (
	"context"
)

// What tests do by hand.
var (
	SendMail  = sendMail
	SendSMS   = sendSMS
	ParseBody = parseBody
	ParseURL  = parseURL
	Compose   = compose
)

// Fill makes the body of a message, or says what is wrong with the form.
func Fill(form, body string, values map[string]string) (string, error) {
	t, err := parseBody(form, body)
	if err != nil {
		return "", err
	}
	if form == NoBody {
		return "", nil
	}
	return t.fill(values, escapes[form]), nil
}

// FillURL makes an address.
func FillURL(s string, values map[string]string) (string, error) {
	t, _, err := parseURL(s, true)
	if err != nil {
		return "", err
	}
	return t.fill(values, escapeURL), nil
}

// Step sends one message of a channel, if there is one.
func (p *Post) Step(ctx context.Context, channel string) (bool, error) {
	return p.step(ctx, &line{channel: channel}, false)
}

// StepUrgent is what the worker for codes does.
func (p *Post) StepUrgent(ctx context.Context, channel string) (bool, error) {
	return p.step(ctx, &line{channel: channel}, true)
}

// Lease takes a message and dies.
func (p *Post) Lease(ctx context.Context, channel string) (string, error) {
	t, err := p.take(ctx, &line{channel: channel}, false)
	if err != nil || t == nil {
		return "", err
	}
	return t.row.ID, nil
}

// The bounds that tests count to.
const (
	MaxOfTicket  = maxOfTicket
	MaxOfUser    = maxOfUser
	MaxOfAddress = maxOfAddress
	MaxOfNew     = maxOfNew
	MaxOfMachine = maxOfMachine
	MaxUnproven  = maxUnproven

	MaxConfirmHour  = maxConfirmHour
	MaxConfirmDay   = maxConfirmDay
	MaxConfirmPlace = maxConfirmPlace

	Resend     = resend
	NoticeLife = noticeLife
)
