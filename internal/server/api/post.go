package api

import (
	"context"
	"net/http"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/post"
)

func init() {
	for id, right := range map[string]string{
		"show-mail": "read", "change-mail": "own", "test-mail": "own", "show-mail-queue": "read",
		"show-sms": "read", "change-sms": "own", "test-sms": "own", "show-sms-queue": "read",
		"list-messages": "read", "retry-message": "change", "remove-message": "change",
		"add-mail": "change", "add-sms": "change",
		"begin-own-address": "self", "confirm-own-address": "self",
	} {
		rights[id] = right
	}
	for _, id := range []string{"change-mail", "change-sms", "test-mail", "test-sms", "add-mail", "add-sms", "retry-message", "remove-message"} {
		fresh[id] = true
	}
	secrets["begin-own-address"] = true
}

// posted is an answer with the tag of settings.
func posted[T any](v T, tag post.Tag, err error) (*tagged[T], error) {
	if err != nil {
		return nil, err
	}
	return &tagged[T]{ETag: `"` + string(tag) + `"`, Body: v}, nil
}

// posts registers what has to do with mails and text messages (M6).
func (x *door) posts() {
	d := x.desk
	add(x, op("show-mail", "GET", "/settings/mail", "How mails go out", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*tagged[rest.MailSettings], error) {
		return posted(d.MailSettings(ctx, a))
	})
	add(x, op("change-mail", "PATCH", "/settings/mail", "Change how mails go out", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Conditional
		Body rest.MailChange
	},
	) (*tagged[rest.MailSettings], error) {
		seen, err := in.tag()
		if err != nil {
			return nil, err
		}
		return posted(d.ChangeMailSettings(ctx, a, seen, in.Body))
	})
	add(x, op("show-sms", "GET", "/settings/sms", "How text messages go out", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*tagged[rest.SMSSettings], error) {
		return posted(d.SMSSettings(ctx, a))
	})
	add(x, op("change-sms", "PATCH", "/settings/sms", "Change how text messages go out", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Conditional
		Body rest.SMSChange
	},
	) (*tagged[rest.SMSSettings], error) {
		seen, err := in.tag()
		if err != nil {
			return nil, err
		}
		return posted(d.ChangeSMSSettings(ctx, a, seen, in.Body))
	})
	for _, c := range []struct{ channel, what string }{{rest.ChannelMail, "mail"}, {rest.ChannelSMS, "text message"}} {
		add(x, op("test-"+c.channel, "POST", "/settings/"+c.channel+"/test", "Send a "+c.what+" for trying out", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.TestMessage }) (*plain[rest.Tested], error) {
			return reply(d.TestChannel(ctx, a, c.channel, in.Body))
		})
		add(x, op("show-"+c.channel+"-queue", "GET", "/settings/"+c.channel+"/queue", "How many "+c.what+"s wait, have failed and were sent", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.Queue], error) {
			return reply(d.Queue(ctx, a, c.channel))
		})
		add(x, op("add-"+c.channel, "POST", "/users/{user}/factors/"+c.channel, "Give a user an address for codes by "+c.what, http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct {
			User string `path:"user" maxLength:"512" doc:"Name or id"`
			Body rest.NewAddress
		},
		) (*plain[rest.Factor], error) {
			return reply(d.AddAddress(ctx, a, in.User, c.channel, in.Body))
		})
	}

	add(x, op("list-messages", "GET", "/messages", "List mails and text messages of the queue, the youngest first", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Paged
		Channel string `query:"channel" maxLength:"16" doc:"mail or sms; absent: both"`
		State   string `query:"state" maxLength:"16" doc:"waiting, sent or failed; absent: all"`
	},
	) (*plain[rest.Page[rest.Message]], error) {
		return reply(d.ListMessages(ctx, a, in.Channel, in.State, in.After, in.Limit))
	})
	type MessagePath struct {
		Message string `path:"message" maxLength:"64" doc:"Id"`
	}
	add(x, op("retry-message", "POST", "/messages/{message}/retry", "Send a message again at once", http.StatusOK), func(ctx context.Context, a desk.Actor, in *MessagePath) (*plain[rest.Message], error) {
		return reply(d.RetryMessage(ctx, a, in.Message))
	})
	add(x, op("remove-message", "DELETE", "/messages/{message}", "Remove a message from the queue", http.StatusNoContent), func(ctx context.Context, a desk.Actor, in *MessagePath) (*empty, error) {
		return nil, d.RemoveMessage(ctx, a, in.Message)
	})

	type KindPath struct {
		Kind string `path:"kind" maxLength:"64" doc:"mail or sms"`
	}
	add(x, op("begin-own-address", "POST", "/me/addresses/{kind}", "Have a code sent to an address of your own", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct {
		KindPath
		Body rest.NewAddress
	},
	) (*plain[rest.PendingAddress], error) {
		return reply(d.BeginOwnAddress(ctx, a, in.Kind, in.Body))
	})
	add(x, op("confirm-own-address", "POST", "/me/addresses/{kind}/confirm", "Confirm an address with the code that was sent to it", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct {
		KindPath
		Body rest.ConfirmAddress
	},
	) (*plain[rest.Factor], error) {
		defer in.Body.Code.Wipe()
		return reply(d.ConfirmOwnAddress(ctx, a, in.Kind, in.Body))
	})
}
