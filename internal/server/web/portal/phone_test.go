package portal_test

import (
	"html"
	"regexp"
	"strings"
	"testing"
	"time"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/push"
	"latchkey/internal/server/push/phonetest"
	"latchkey/internal/server/web/words"
	"latchkey/internal/text"
)

var (
	phoneLink = regexp.MustCompile(regexp.QuoteMeta(desktest.People) + `/authenticator/#e=[A-Za-z0-9_\-]+`)
	phoneCode = regexp.MustCompile(`hx-get="(/me/(?:enrol/)?phone/pho_[0-9a-f\-]+)"`)
)

// shown are the link and the place to look of a page that shows a code.
func (r *rig) shown(a answer) (link, look string) {
	r.Helper()
	text := html.UnescapeString(a.body)
	l, c := phoneLink.FindString(text), phoneCode.FindStringSubmatch(text)
	if l == "" || c == nil {
		r.Fatalf("no code is shown: %d\n%s", a.status, a.body)
	}
	return l, c[1]
}

// phone has a new phone bring the code.
func (r *rig) phone(link, name string) *phonetest.Phone {
	r.Helper()
	p, err := phonetest.New(r.people.Client(), r.clock)
	r.must(err)
	p.Base = r.people.URL
	r.must(p.Enrol(r.Context(), link, name))
	return p
}

func TestM3APhoneIsSetUpInThePortal(t *testing.T) {
	onBoth(t, func(r *rig) {
		b, app := r.enrolled("anna", rest.RoleNone)
		b.get("/me/phone").is(200).has(words.PhoneBefore, words.PhoneShow)
		link, look := r.shown(b.post("/me/phone").is(200).has(words.PhoneOnce, `<svg xmlns="http://www.w3.org/2000/svg" class="qr"`))
		b.get(look).is(200).has(words.PhoneWaiting).lacks("#e=")
		p := r.phone(link, "my Pixel")
		b.get(look).is(200).has(words.PhoneCame)
		b.post(look + "/came").goes("/me/factors")
		b.get("/me/factors").is(200).has("my Pixel", words.PhoneKind, words.PhoneOn)
		b.get("/me/factors/"+rest.FactorPrefix+p.Device).is(200).has(words.PhonePlatform, "Android", words.PhoneNotNotified)

		// It takes a fresh factor, and somebody else sees nothing of it.
		r.clock.off += 6 * time.Minute
		b.get("/me/phone").goes("/stepup?next=%2Fme%2Fphone")
		if a := b.post("/me/phone"); a.status == 200 {
			t.Error("a code without a fresh factor")
		}
		bert, _ := r.enrolled("bert", rest.RoleNone)
		bert.get(look).is(404)

		// A code that has run out says so.
		b.post("/stepup", "kind", "totp", "code", app.code(), "next", "/me/phone").goes("/me/phone")
		_, look = r.shown(b.post("/me/phone").is(200))
		r.clock.off += push.CodeLife
		b.get(look).is(200).has(words.PhoneOver)
		if n := strings.Count(r.types("anna"), "factor.added"); n != 2 {
			t.Errorf("%d factors were added", n)
		}
	})
}

func TestM3APhoneIsTheFirstFactor(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.user("anna", rest.RoleNone)
		b := r.browser().begins("anna")
		b.post("/signin/code", "kind", "enrol", "code", r.enrolCode("anna"))
		b.get("/me/enrol").is(200).has(words.PhoneInstead, "/me/enrol/phone")
		if a := b.get("/me/phone"); a.status == 200 {
			t.Error("the page of further phones opens")
		}
		link, look := r.shown(b.post("/me/enrol/phone").is(200))
		// Nothing has come yet: the session stays what it is.
		if a := b.post(look + "/came"); a.to == "/me/enrol/codes" {
			t.Error("the session is a whole one without a factor")
		}
		r.phone(link, "first")
		b.get(look).is(200).has(words.PhoneCame)
		before := b.cookies["__Host-latchkey"]
		b.post(look + "/came").goes("/me/enrol/codes")
		if b.cookies["__Host-latchkey"] == before {
			t.Error("the session has the secret that it had before the enrolment")
		}
		b.get("/me/factors").is(200).has("first", words.PhoneKind)
	})
}

// What the phone shows of a sign-in at this door is what stands in the browser's address
// bar, not a name that only Latchkey knows; and it follows the setting.
func TestS12APhoneShowsWhichSiteIsSignedInTo(t *testing.T) {
	onBoth(t, func(r *rig) {
		b, _ := r.enrolled("anna", rest.RoleNone)
		link, _ := r.shown(b.post("/me/phone").is(200))
		p := r.phone(link, "Pixel")
		shows := func(door, machine string) {
			r.Helper()
			req, c, err := p.Next(r.Context(), 5*time.Second)
			r.must(err)
			if c.Machine != machine || c.Place != text.PlaceBrowser || c.Door != door {
				r.Errorf("the phone shows %q, %s, %s; want %q", c.Machine, c.Place, c.Door, machine)
			}
			r.must(p.Deny(r.Context(), req))
		}
		r.browser().begins("anna").post("/signin/choose", "kind", "push")
		shows("portal", "latchkey.test")
		at := "https://keys.example.org:8443"
		_, err := r.ChangeSettings(r.Context(), desk.Root(), rest.SettingsChange{PeopleURL: &at})
		r.must(err)
		r.browser().begins("anna").post("/signin/choose", "kind", "push")
		shows("portal", "keys.example.org:8443")
		r.clock.off += 6 * time.Minute
		b.post("/stepup/choose", "kind", "push")
		shows("step-up", "keys.example.org:8443")
	})
}

// Where the link leads nowhere, the page that shows it says so: before somebody stands
// there with a phone on which nothing opens.
func TestAnAddressThatPhonesDoNotReachIsSaidBesideTheCode(t *testing.T) {
	onBoth(t, func(r *rig) {
		b, _ := r.enrolled("anna", rest.RoleNone)
		b.post("/me/phone").is(200).lacks(words.PhonePlaceMine)
		for _, at := range []string{"https://127.0.0.1:8443", "https://localhost", "https://169.254.1.2", "https://keys:8443", "https://keys.local"} {
			_, err := r.ChangeSettings(r.Context(), desk.Root(), rest.SettingsChange{PeopleURL: &at})
			r.must(err)
			b.post("/me/phone").is(200).has(words.PhonePlaceMine + rest.PlaceRemark(at))
		}
	})
}
