package browser

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// Patience is how long a page may take to become what is waited for: far longer than it should, because the tests share
// two cores with others.
const Patience = 30 * time.Second

// Browser is one Chromium.
type Browser struct {
	ctx context.Context
}

// Start starts a browser that lives as long as the test; more are further settings, such as of a camera.
func Start(t testing.TB, more ...chromedp.ExecAllocatorOption) *Browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("these tests need Chromium (Debian package chromium): %v", err)
	}
	dir, err := os.MkdirTemp("", "latchkey-browser-")
	if err != nil {
		t.Fatal(err)
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(dir), chromedp.IgnoreCertErrors, chromedp.WSURLReadTimeout(time.Minute), chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("no-pings", true), chromedp.Flag("disable-domain-reliability", true),
		// Names are resolved nowhere.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"), chromedp.Flag("no-proxy-server", true),
		chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) {
			cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "TZ=Europe/Berlin", "HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "XDG_CACHE_HOME=" + dir}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		}))
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // root has none in Chromium
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(opts, more...)...)
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithErrorf(func(string, ...any) {}))
	over := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		stop()
		close(over)
		_ = os.RemoveAll(dir)
	})
	// The browser is killed with the thread that has started it (Pdeathsig), and threads of a test end when it goes into
	// the network of a machine and back: it gets one of its own.
	started := make(chan error, 1)
	go func() {
		goruntime.LockOSThread()
		started <- chromedp.Run(ctx)
		<-over
	}()
	if err := <-started; err != nil {
		t.Fatalf("Chromium does not start: %v", err)
	}
	return &Browser{ctx}
}

// Page is a window with cookies of its own.
type Page struct {
	t    testing.TB
	ctx  context.Context
	base string // https://127.0.0.1:port

	mu       sync.Mutex
	quiet    bool // what comes now is the test's own doing
	faults   []string
	expected []string
	weight   map[network.RequestID]float64
	document int64 // status of the page
}

// Open makes a window for the server at base, and opens nothing yet.
func (b *Browser) Open(t testing.TB, base string) *Page {
	t.Helper()
	// Cookies of its own, in a window of its own: a tab needs a window, which a new browser context does not have.
	whole := cdp.WithExecutor(b.ctx, chromedp.FromContext(b.ctx).Browser)
	own, err := target.CreateBrowserContext().WithDisposeOnDetach(true).Do(whole)
	if err != nil {
		t.Fatalf("make a browser context: %v", err)
	}
	id, err := target.CreateTarget("about:blank").WithBrowserContextID(own).WithNewWindow(true).Do(whole)
	if err != nil {
		t.Fatalf("open a window: %v", err)
	}
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithTargetID(id))
	p := &Page{t: t, ctx: ctx, base: base, weight: map[network.RequestID]float64{}}
	t.Cleanup(func() {
		if t.Failed() {
			p.dump()
		}
		for _, f := range p.Faults() {
			t.Errorf("in the browser: %s", f)
		}
		cancel()
	})
	chromedp.ListenTarget(ctx, p.listen)
	p.do("open a window", network.Enable(), cdplog.Enable(), runtime.Enable(), audits.Enable(), page.Enable())
	return p
}

// Cookie gives the window a cookie of the server.
func (p *Page) Cookie(name, value string) {
	p.t.Helper()
	p.do("set a cookie", network.SetCookie(name, value).WithURL(p.base+"/").WithPath("/").WithSecure(true).WithHTTPOnly(true))
}

// In is the same window for a subtest.
func (p *Page) In(t testing.TB, do func(p *Page)) {
	was := p.t
	p.t = t
	defer func() { p.t = was }()
	do(p)
}

func (p *Page) listen(ev any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fault := func(format string, a ...any) {
		if !p.quiet {
			p.faults = append(p.faults, fmt.Sprintf(format, a...))
		}
	}
	switch e := ev.(type) {
	case *runtime.EventExceptionThrown:
		fault("a script failed: %s", e.ExceptionDetails.Error())
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning || e.Type == runtime.APITypeAssert {
			var words []string
			for _, a := range e.Args {
				words = append(words, string(a.Value)+a.Description)
			}
			fault("the console says (%s): %s", e.Type, strings.Join(words, " "))
		}
	case *cdplog.EventEntryAdded:
		if e.Entry.Level == cdplog.LevelError || e.Entry.Level == cdplog.LevelWarning {
			fault("the browser says (%s): %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *audits.EventIssueAdded:
		if d := e.Issue.Details; d != nil && d.ContentSecurityPolicyIssueDetails != nil {
			fault("the content security policy stopped %s (%s)", d.ContentSecurityPolicyIssueDetails.BlockedURL, d.ContentSecurityPolicyIssueDetails.ViolatedDirective)
		}
	case *network.EventRequestWillBeSent:
		if u := e.Request.URL; !strings.HasPrefix(u, p.base+"/") && !strings.HasPrefix(u, "data:") && !strings.HasPrefix(u, "blob:") && u != "about:blank" {
			p.faults = append(p.faults, "a request to another place: "+u)
		}
	case *network.EventResponseReceived:
		if e.Type == network.ResourceTypeDocument {
			p.document = e.Response.Status
		}
	case *network.EventLoadingFinished:
		p.weight[e.RequestID] += e.EncodedDataLength
	case *page.EventJavascriptDialogOpening:
		fault("a dialog of the browser opened: %s", e.Message)
	}
}

// Expect lets faults that hold the text be, from now on: an error page is an error in the browser's eyes, too.
func (p *Page) Expect(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = append(p.expected, text)
}

// Faults takes what was noticed since it was asked last.
func (p *Page) Faults() (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		known := false
		for _, e := range p.expected {
			known = known || strings.Contains(f, e)
		}
		if !known {
			out = append(out, f)
		}
	}
	p.faults = nil
	return out
}

// Weight is what was loaded since it was asked last, in octets on the wire, headers with it.
func (p *Page) Weight() (n float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.weight {
		n += w
	}
	p.weight = map[network.RequestID]float64{}
	return n
}

// do runs actions, within Patience.
func (p *Page) do(what string, actions ...chromedp.Action) {
	p.t.Helper()
	if err := p.try(actions...); err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
}

func (p *Page) try(actions ...chromedp.Action) error {
	// The first Run of a window must not have a deadline: it would end the window.
	if chromedp.FromContext(p.ctx).Target == nil {
		return chromedp.Run(p.ctx, actions...)
	}
	ctx, cancel := context.WithTimeout(p.ctx, Patience)
	defer cancel()
	return chromedp.Run(ctx, actions...)
}

// Eval evaluates an expression of the page, which may be a promise; dst may be nil.
func (p *Page) Eval(expression string, dst any) {
	p.t.Helper()
	if err := p.eval(expression, dst); err != nil {
		p.t.Fatalf("%.200s: %v", expression, err)
	}
}

func (p *Page) eval(expression string, dst any) error {
	return p.try(chromedp.Evaluate(expression, dst, func(e *runtime.EvaluateParams) *runtime.EvaluateParams { return e.WithAwaitPromise(true) }))
}

// Visit opens a path of the server and wants the status.
func (p *Page) Visit(path string, status int64) {
	p.t.Helper()
	p.do("open "+path, chromedp.Navigate(p.base+path))
	p.settle()
	p.mu.Lock()
	got := p.document
	p.mu.Unlock()
	if got != status {
		p.t.Fatalf("%s answers %d, not %d: %.500s", path, got, status, p.Text())
	}
}

// settle waits until the page is loaded and its scripts have run.
func (p *Page) settle() {
	p.t.Helper()
	p.Until("the page is loaded", `document.readyState === "complete"`)
}

// Until waits until an expression is true.
func (p *Page) Until(what, expression string) {
	p.t.Helper()
	var err error
	for end := time.Now().Add(Patience); ; time.Sleep(25 * time.Millisecond) {
		ok := false
		// Between two pages there is nothing to ask.
		if err = p.eval(expression, &ok); err == nil && ok {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("not within %v: %s (%s); last error %v; at %s:\n%.1500s", Patience, what, expression, err, p.Path(), p.Text())
		}
	}
}

// See waits until the page shows a text. Its first letter may be a capital on the page: badges begin with one, whatever
// their word.
func (p *Page) See(text string) {
	p.t.Helper()
	p.Until("the page shows "+quote(text), `((want) => {
		if (document.body === null) return false;
		const shown = document.body.innerText.replace(/\s+/g, " ");
		return shown.includes(want) || shown.includes(want.charAt(0).toUpperCase() + want.slice(1));
	})(`+quote(text)+`)`)
}

// At waits until the page has the path; a query does not matter.
func (p *Page) At(path string) {
	p.t.Helper()
	p.Until("the page is "+path, "location.pathname === "+quote(path)+" && document.readyState === 'complete'")
}

// Path is that of the page.
func (p *Page) Path() string {
	var href string
	if p.eval("location.href", &href) != nil {
		return ""
	}
	u, err := url.Parse(href)
	if err != nil {
		return href
	}
	return u.RequestURI()
}

// Text is what the page shows.
func (p *Page) Text() string {
	var s string
	_ = p.eval("document.body ? document.body.innerText : ''", &s)
	return s
}

// dump leaves a picture and the page behind, for whoever looks into a failure.
func (p *Page) dump() {
	dir := filepath.Join(Artifacts(), "failed")
	if os.MkdirAll(dir, 0o755) != nil {
		return
	}
	name := filepath.Join(dir, strings.NewReplacer("/", "-", " ", "-").Replace(p.t.Name()))
	var png []byte
	var html string
	if p.try(chromedp.CaptureScreenshot(&png)) == nil {
		_ = os.WriteFile(name+".png", png, 0o644)
	}
	if p.eval("document.documentElement.outerHTML", &html) == nil {
		_ = os.WriteFile(name+".html", []byte(html), 0o644)
	}
	p.t.Logf("at %s; a picture and the page are in %s.*", p.Path(), name)
}
