package main

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestConverse(t *testing.T) {
	program := []string{"sh", "-c", `stty -echo; printf 'Password: '; read p; echo; stty echo
		printf 'One-time code: '; read c; [ "$p/$c" = "geheim/123456" ] || { echo denied; exit 1; }; echo welcome`}
	for _, c := range []struct {
		name    string
		answers []answer
		allowed bool
		said    int
		shows   string
	}{
		{"right answers", []answer{{passwordPrompt, "geheim", "the password"}, {to: codePrompt, say: "123456"}}, true, 2, "welcome"},
		{"a wrong answer", []answer{{passwordPrompt, "geheim", "the password"}, {to: codePrompt, say: "000000"}}, false, 2, "denied"},
		{"more answers than prompts", []answer{{to: passwordPrompt, say: "x"}, {to: codePrompt, say: "1"}, {to: codePrompt, say: "2"}}, false, 2, "denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := converse(context.Background(), 10*time.Second, program, c.answers)
			if err != nil {
				t.Fatal(err)
			}
			if got.allowed != c.allowed || got.said != c.said || got.shows(c.shows) != nil {
				t.Errorf("got %+v", got)
			}
			if strings.Contains(got.screen, "geheim") {
				t.Errorf("the password is on the screen:\n%s", got.screen)
			}
		})
	}
	start := time.Now()
	if _, err := converse(context.Background(), time.Second, []string{"sh", "-c", "printf 'Colour: '; read x"}, []answer{{to: codePrompt, say: "1"}}); err == nil {
		t.Error("a prompt that nobody answers did not end the conversation")
	}
	if time.Since(start) > 8*time.Second {
		t.Error("the limit was not kept")
	}
}
