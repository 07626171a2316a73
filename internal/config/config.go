// Package config reads the settings of a program: command-line flags over a TOML file over defaults.
//
// It promises: a key of the file has the name of its flag; the environment has no say; a file with mistakes is refused
// as a whole, with every mistake told at once, each naming the key, what is wrong with the value and what would be
// right; an unknown key is a mistake and comes with the key that was probably meant.
//
// A program describes its settings once, as a struct:
//
//	type Settings struct {
//		Data    string        `flag:"data" usage:"folder of the database and keys"`
//		Listen  string        `flag:"listen" check:"hostport" usage:"address for people"`
//		Window  time.Duration `flag:"window" min:"0s" max:"24h" usage:"…"`
//		Log     string        `flag:"log" oneof:"text|json|auto" usage:"…"`
//		Proxies []string      `flag:"proxy-from" check:"cidr" usage:"…"`
//	}
//
// The values that the struct holds when it is bound are the defaults:
//
//	s := Settings{Data: "/var/lib/latchkey/server", Log: "auto"}
//	config.Bind(cmd.Flags(), &s)
//	…
//	err := config.Load(cmd.Flags(), &s, file)
//
// Field types: string, bool, int, int64, uint16, float64, time.Duration (in the file a text such as "8h"), []string,
// and any type whose pointer implements encoding.TextMarshaler and encoding.TextUnmarshaler. Checks: hostport, cidr, path
// (absolute), url, name (text.ValidName), nonempty; an empty text passes all but nonempty.
package config

import (
	"encoding"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"latchkey/internal/text"
)

// Problem is one mistake in the settings.
type Problem struct {
	Line    int    // in the file, 0 when the value came from a flag or the place is unknown
	Field   string // name of key and flag
	Fault   string // what is wrong with it
	Allowed string // what would be right
}

func (p Problem) String() string {
	s := ""
	if p.Line > 0 {
		s = fmt.Sprintf("line %d: ", p.Line)
	}
	if p.Field != "" {
		s += p.Field + ": "
	}
	s += p.Fault
	if p.Allowed != "" {
		s += "; " + p.Allowed
	}
	return s
}

// Error is every mistake that was found, in the order of the file and then of the flags.
type Error struct {
	File     string // "" when no file was read
	Problems []Problem
}

func (e *Error) Error() string {
	from := e.File
	if from == "" {
		from = "settings"
	}
	if len(e.Problems) == 1 {
		return from + ": " + e.Problems[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d mistakes", from, len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.String())
	}
	return b.String()
}

// Checker is implemented by settings that have rules between fields. It is called once everything else is right.
type Checker interface{ Check() []Problem }

// field is one setting.
type field struct {
	name  string
	usage string
	v     reflect.Value // addressable
	tag   reflect.StructTag
	flag  *pflag.Flag
}

var (
	durationType    = reflect.TypeFor[time.Duration]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// fields lists the settings of the struct that dst points to; a wrong struct is a mistake of the programmer and
// panics at once.
func fields(dst any) []*field {
	p := reflect.ValueOf(dst)
	if p.Kind() != reflect.Pointer || p.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("config: %T is no pointer to a struct", dst))
	}
	s := p.Elem()
	var out []*field
	for i := range s.NumField() {
		sf := s.Type().Field(i)
		name, ok := sf.Tag.Lookup("flag")
		switch {
		case sf.Anonymous && sf.Type.Kind() == reflect.Struct:
			out = append(out, fields(s.Field(i).Addr().Interface())...)
			continue
		case !ok:
			continue
		case !supported(sf.Type):
			panic(fmt.Sprintf("config: field %s has type %s", sf.Name, sf.Type))
		}
		out = append(out, &field{name: name, usage: sf.Tag.Get("usage"), v: s.Field(i), tag: sf.Tag})
	}
	return out
}

func supported(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Uint16, reflect.Float64:
		return true
	case reflect.Slice:
		return t.Elem().Kind() == reflect.String
	}
	return false
}

// Bind registers a flag for every setting of dst, a pointer to a struct; what dst holds now are the defaults.
func Bind(fs *pflag.FlagSet, dst any) {
	for _, f := range fields(dst) {
		usage := f.usage
		if one := f.tag.Get("oneof"); one != "" {
			usage += " (" + strings.ReplaceAll(one, "|", ", ") + ")"
		}
		fl := fs.VarPF(&value{f}, f.name, f.tag.Get("short"), usage)
		if f.v.Kind() == reflect.Bool {
			fl.NoOptDefVal = "true"
		}
	}
}

// value is a setting as a flag.
type value struct{ f *field }

func (v *value) String() string {
	if v.f == nil { // pflag asks a zero value for its text
		return ""
	}
	return render(v.f.v)
}

func (v *value) Type() string {
	switch {
	case v.f.v.Type() == durationType:
		return "duration"
	case v.f.v.Kind() == reflect.Slice:
		return "list"
	case v.f.v.Kind() == reflect.Struct:
		return "text"
	case v.f.v.Kind() == reflect.Uint16 || v.f.v.Kind() == reflect.Int64:
		return "int"
	}
	return v.f.v.Kind().String()
}

// Set takes a value from the command line; lists are separated by commas. pflag puts the flag's name in front of the error.
func (v *value) Set(s string) error {
	if fault, allowed := v.f.setText(s); fault != "" {
		return fmt.Errorf("%s; %s", fault, allowed)
	}
	if fault, allowed := v.f.check(); fault != "" {
		return fmt.Errorf("%s; %s", fault, allowed)
	}
	return nil
}

func render(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case []string:
		return strings.Join(x, ",")
	case encoding.TextMarshaler:
		b, err := x.MarshalText()
		if err != nil {
			return ""
		}
		return string(b)
	case fmt.Stringer: // durations, among others
		return x.String()
	}
	if m, ok := v.Addr().Interface().(encoding.TextMarshaler); ok {
		if b, err := m.MarshalText(); err == nil {
			return string(b)
		}
	}
	return fmt.Sprint(v.Interface())
}

// setText puts a text into the field; the texts it returns are the fault and what is allowed, or empty.
func (f *field) setText(s string) (fault, allowed string) {
	if u, ok := f.v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(s)); err != nil {
			return text.CleanN(err.Error(), 300), f.allowed()
		}
		return "", ""
	}
	bad := fmt.Sprintf("%q is not %s", text.CleanN(s, 60), f.kind())
	switch {
	case f.v.Type() == durationType:
		d, err := time.ParseDuration(s)
		if err != nil {
			return bad, f.allowed()
		}
		f.v.SetInt(int64(d))
		return "", ""
	case f.v.Kind() == reflect.Slice:
		var list []string
		for _, e := range strings.Split(s, ",") {
			if e = strings.TrimSpace(e); e != "" {
				list = append(list, e)
			}
		}
		f.v.Set(reflect.ValueOf(list).Convert(f.v.Type()))
		return "", ""
	}
	switch f.v.Kind() {
	case reflect.String:
		f.v.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return bad, f.allowed()
		}
		f.v.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || f.v.OverflowInt(n) {
			return bad, f.allowed()
		}
		f.v.SetInt(n)
	case reflect.Uint16:
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return bad, f.allowed()
		}
		f.v.SetUint(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(s, 64)
		if err != nil || n != n || n-n != 0 {
			return bad, f.allowed()
		}
		f.v.SetFloat(n)
	}
	return "", ""
}

// setTOML puts a value of the file into the field. Unlike a flag, a file has types, and they must fit.
func (f *field) setTOML(x any) (fault, allowed string) {
	wrong := func() (string, string) {
		if n, ok := x.(int64); ok && f.v.Type() != durationType && (f.v.CanInt() || f.v.CanUint()) {
			if n < 0 {
				return show(x) + " is too small", f.allowed()
			}
			return show(x) + " is too big", f.allowed()
		}
		if n, ok := x.(float64); ok && f.v.CanFloat() {
			return fmt.Sprint(n) + " is no amount", f.allowed()
		}
		return fmt.Sprintf("%s is %s, not %s", show(x), tomlKind(x), f.kind()), f.allowed()
	}
	textual := f.v.Type() == durationType || f.v.Addr().Type().Implements(textUnmarshaler) || f.v.Kind() == reflect.String
	if textual {
		s, ok := x.(string)
		if !ok {
			return wrong()
		}
		return f.setText(s)
	}
	switch f.v.Kind() {
	case reflect.Bool:
		b, ok := x.(bool)
		if !ok {
			return wrong()
		}
		f.v.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, ok := x.(int64)
		if !ok || f.v.OverflowInt(n) {
			return wrong()
		}
		f.v.SetInt(n)
	case reflect.Uint16:
		n, ok := x.(int64)
		if !ok || n < 0 || n > 65535 {
			return wrong()
		}
		f.v.SetUint(uint64(n))
	case reflect.Float64:
		switch n := x.(type) {
		case float64:
			if n != n || n-n != 0 {
				return wrong()
			}
			f.v.SetFloat(n)
		case int64:
			f.v.SetFloat(float64(n))
		default:
			return wrong()
		}
	case reflect.Slice:
		list, ok := x.([]any)
		if !ok {
			return wrong()
		}
		out := make([]string, 0, len(list))
		for i, e := range list {
			s, ok := e.(string)
			if !ok {
				return fmt.Sprintf("entry %d, %s, is %s, not a text", i+1, show(e), tomlKind(e)), f.allowed()
			}
			out = append(out, s)
		}
		f.v.Set(reflect.ValueOf(out).Convert(f.v.Type()))
	}
	return "", ""
}

// kind says what the field takes.
func (f *field) kind() string {
	switch {
	case f.v.Type() == durationType:
		return "a duration"
	case f.v.Kind() == reflect.String || f.v.Addr().Type().Implements(textUnmarshaler):
		return "a text"
	}
	switch f.v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list of texts"
	case reflect.Float64:
		return "a number"
	case reflect.Uint16:
		return "a whole number from 0 to 65535"
	default:
		return "a whole number"
	}
}

// allowed says what would be right, as exactly as the tags tell.
func (f *field) allowed() string {
	if a := f.tag.Get("allowed"); a != "" {
		return "allowed is " + a
	}
	if one := f.tag.Get("oneof"); one != "" {
		return "allowed is " + oneOf(strings.Split(one, "|"))
	}
	s := f.kind()
	switch f.tag.Get("check") {
	case "hostport":
		s = `an address such as "127.0.0.1:8443" or ":8443"`
	case "cidr":
		s = `a network such as "10.0.0.0/8" or one address`
	case "path":
		s = "an absolute path"
	case "url":
		s = `an address such as "http://proxy.example:3128"`
	case "name":
		s = "a name"
	case "nonempty":
		s += " that is not empty"
	}
	if f.v.Kind() == reflect.Slice && f.tag.Get("check") != "" {
		s = "a list, each " + s
	}
	if f.v.Type() == durationType {
		s += ` such as "90s", "15m" or "8h"`
	}
	lo, hi := f.tag.Get("min"), f.tag.Get("max")
	switch {
	case lo != "" && hi != "":
		s += " from " + lo + " to " + hi
	case lo != "":
		s += " of at least " + lo
	case hi != "":
		s += " of at most " + hi
	}
	return "allowed is " + s
}

func oneOf(s []string) string {
	q := make([]string, len(s))
	for i := range s {
		q[i] = strconv.Quote(s[i])
	}
	if len(q) == 1 {
		return q[0]
	}
	return strings.Join(q[:len(q)-1], ", ") + " or " + q[len(q)-1]
}

// check holds the field's value against its tags.
func (f *field) check() (fault, allowed string) {
	if x := f.v.Interface(); f.v.Kind() == reflect.String || f.v.Kind() == reflect.Slice {
		list, isList := x.([]string)
		if !isList {
			list = []string{f.v.String()}
		}
		for i, s := range list {
			if fault := f.checkText(s); fault != "" {
				if isList {
					fault = fmt.Sprintf("entry %d: %s", i+1, fault)
				}
				return fault, f.allowed()
			}
		}
		return "", ""
	}
	lo, hi := f.tag.Get("min"), f.tag.Get("max")
	below, above := false, false
	switch {
	case f.v.Type() == durationType:
		d := time.Duration(f.v.Int())
		below, above = lo != "" && d < must(time.ParseDuration(lo)), hi != "" && d > must(time.ParseDuration(hi))
	case f.v.CanInt():
		below, above = lo != "" && f.v.Int() < must(strconv.ParseInt(lo, 10, 64)), hi != "" && f.v.Int() > must(strconv.ParseInt(hi, 10, 64))
	case f.v.CanUint():
		below, above = lo != "" && f.v.Uint() < must(strconv.ParseUint(lo, 10, 64)), hi != "" && f.v.Uint() > must(strconv.ParseUint(hi, 10, 64))
	case f.v.CanFloat():
		below, above = lo != "" && f.v.Float() < must(strconv.ParseFloat(lo, 64)), hi != "" && f.v.Float() > must(strconv.ParseFloat(hi, 64))
	}
	switch {
	case below:
		return render(f.v) + " is too small", f.allowed()
	case above:
		return render(f.v) + " is too big", f.allowed()
	}
	return "", ""
}

// maxText bounds every text: no setting needs more, and a log line must hold it.
const maxText = 4096

func (f *field) checkText(s string) string {
	quoted := strconv.Quote(text.CleanN(s, 60))
	switch {
	case len(s) > maxText:
		return fmt.Sprintf("it has %d bytes, more than %d", len(s), maxText)
	case strings.ContainsFunc(s, text.Invisible):
		return quoted + " holds control or invisible characters"
	}
	if one := f.tag.Get("oneof"); one != "" && !slices.Contains(strings.Split(one, "|"), s) {
		return quoted + " is not known"
	}
	check := f.tag.Get("check")
	if s == "" {
		if check == "nonempty" {
			return "it is empty"
		}
		return ""
	}
	switch check {
	case "":
	case "nonempty":
	case "hostport":
		host, port, err := net.SplitHostPort(s)
		if err != nil {
			return quoted + " is no address with a port"
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
			return quoted + " has no port from 0 to 65535"
		}
		if strings.ContainsAny(host, " /@") {
			return quoted + " has no host name"
		}
	case "cidr":
		if p, err := netip.ParsePrefix(s); err == nil {
			if p.Masked() != p {
				return fmt.Sprintf("%s has bits beyond its length (did you mean %s?)", quoted, p.Masked())
			}
		} else if _, err := netip.ParseAddr(s); err != nil {
			return quoted + " is no network"
		}
	case "path":
		if !filepath.IsAbs(s) {
			return quoted + " does not begin at the root"
		}
	case "url":
		u, err := url.Parse(s)
		if err != nil || u.Scheme == "" || u.Host == "" {
			return quoted + " is no URL"
		}
	case "name":
		if err := text.ValidName("it", s); err != nil {
			return err.(*text.NameError).Fault
		}
	default:
		panic("config: unknown check " + check)
	}
	return ""
}

// must is for the tags of our own structs.
func must[T any](v T, err error) T {
	if err != nil {
		panic("config: bad tag: " + err.Error())
	}
	return v
}

// show writes a value of the file in few words.
func show(x any) string {
	switch v := x.(type) {
	case string:
		return strconv.Quote(text.CleanN(v, 60))
	case map[string]any, []map[string]any, []any:
		return "this"
	default:
		return text.CleanN(fmt.Sprint(v), 60)
	}
}

func tomlKind(x any) string {
	switch x.(type) {
	case string:
		return "a text"
	case bool:
		return "true or false"
	case int64:
		return "a whole number"
	case float64:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	default:
		return "a date or time"
	}
}
