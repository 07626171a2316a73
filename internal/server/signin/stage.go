package signin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"latchkey/internal/policy"
	"latchkey/internal/server/facts"
	"latchkey/internal/wire"
)

// stage is where a conversation stands: one type per stage, and each holds only
// what that stage needs. What is not one of them is denied.
type stage interface{ name() string }

type (
	// judging: the beginning is written down, nothing has been answered yet.
	judging struct{}
	// awaitPassword: mode=full began without one.
	awaitPassword struct{}
	// awaitChoice: more than one kind is left to choose from.
	awaitChoice struct {
		Kinds []policy.Factor `json:"kinds"`
	}
	// awaitCode: a code of this kind. Asked is the prompt of one for which something
	// was sent.
	awaitCode struct {
		Kind  policy.Factor `json:"kind"`
		Asked *wire.Prompt  `json:"asked,omitempty"`
	}
	// awaitAnswer: an answer of this kind that comes another way.
	awaitAnswer struct {
		Kind policy.Factor `json:"kind"`
	}
	// awaitEnrolCode: the code of the help desk that opens enrolment (E1).
	awaitEnrolCode struct {
		Kind policy.Factor `json:"kind"`
	}
	// awaitFirstCode: the enrolment code was right, the seed is on the screen.
	awaitFirstCode struct {
		Kind    policy.Factor `json:"kind"`
		CodeID  string        `json:"code_id"` // of the enrolment code, spent together with the first code
		Pending []byte        `json:"pending"`
	}
	// awaitNewPassword: the second factor is behind us (S9).
	awaitNewPassword struct{}
	// awaitNewPassword2: the first entry is kept as a hash.
	awaitNewPassword2 struct {
		Proposal []byte `json:"proposal"`
	}
	// awaitOfflineChoice: everything is judged; enrol this machine, yes or not now (O4).
	awaitOfflineChoice struct{}

	allowed   struct{ Offline bool }
	ignored   struct{}
	denied    struct{}
	abandoned struct{}
)

func (judging) name() string            { return "judging" }
func (awaitPassword) name() string      { return "await-password" }
func (awaitChoice) name() string        { return "await-choice" }
func (awaitCode) name() string          { return "await-code" }
func (awaitAnswer) name() string        { return stageAnswer }
func (awaitEnrolCode) name() string     { return "await-enrol-code" }
func (awaitFirstCode) name() string     { return "await-first-code" }
func (awaitNewPassword) name() string   { return "await-new-password" }
func (awaitNewPassword2) name() string  { return "await-new-password-again" }
func (awaitOfflineChoice) name() string { return "await-offline-choice" }
func (ignored) name() string            { return "left-to-machine" }
func (denied) name() string             { return "denied" }
func (abandoned) name() string          { return "abandoned" }

func (a allowed) name() string {
	if a.Offline {
		return facts.StageAllowedOffline
	}
	return facts.StageAllowed
}

const stageAnswer = "await-answer"

// talk is what a conversation has come to so far. It lies sealed in the table and
// holds no password and no code.
type talk struct {
	Opening opening `json:"opening"`

	UserID   string `json:"user_id,omitempty"`
	UserName string `json:"user_name,omitempty"`

	First    policy.First `json:"first,omitempty"`    // who judged the first factor
	Accepted bool         `json:"accepted,omitempty"` // the first factor was accepted
	Judged   bool         `json:"judged,omitempty"`   // the server has accepted the password

	Decision policy.Decision `json:"decision"`
	Policy   policy.Policy   `json:"policy"` // that applied
	Past     policy.Past     `json:"past"`   // what the decision stood on
	Reports  []policy.Report `json:"reports,omitempty"`

	Kinds []policy.Factor `json:"kinds,omitempty"` // that may be given
	Count int             `json:"count,omitempty"` // how many of them are asked
	Given []policy.Factor `json:"given,omitempty"` // accepted so far
	Lent  bool            `json:"lent,omitempty"`  // one of them was an administrator's word, not the user's own
	Spent []wire.Spent    `json:"spent,omitempty"`

	Change  string `json:"change,omitempty"`  // why a new password is due: must-change, expired, asked
	Changed bool   `json:"changed,omitempty"` // it was changed
	// The factors are asked for the change alone, where the policy asks for none.
	ForChange bool   `json:"for_change,omitempty"`
	Offline   string `json:"offline,omitempty"` // the person's answer: yes or no

	Wrong    int `json:"wrong,omitempty"`    // codes
	Mistakes int `json:"mistakes,omitempty"` // blanks, no choices, refused passwords
}

// opening is the beginning as the machine told it, without the password.
type opening struct {
	Purpose     string       `json:"purpose"`
	User        string       `json:"user"`
	Target      string       `json:"target,omitempty"`
	UID         *uint32      `json:"uid,omitempty"`
	Aliases     []string     `json:"aliases,omitempty"`
	Scope       policy.Scope `json:"scope"`
	Service     string       `json:"service"`
	TTY         string       `json:"tty,omitempty"`
	RHost       string       `json:"rhost,omitempty"`
	RemoteSeat  bool         `json:"remote_seat,omitempty"`
	Mode        string       `json:"mode"`
	First       policy.First `json:"first,omitempty"`
	Boot        string       `json:"boot,omitempty"`
	Unlock      bool         `json:"unlock,omitempty"`
	Can         []string     `json:"can,omitempty"`
	MachineAddr netip.Addr   `json:"machine_addr,omitempty"`
}

// local tells whether the person sits at the machine. A host that is named is believed
// also of an agent that calls it a local seat.
func (o opening) local() bool {
	return o.Scope != policy.Remote && !o.RemoteSeat && !policy.Elsewhere(o.RHost)
}

// maxState bounds the plain form of a conversation's state in octets.
const maxState = 256 << 10

const stateVersion = 1

type envelope struct {
	Version int             `json:"v"`
	Stage   string          `json:"stage"`
	State   json.RawMessage `json:"state"`
	Talk    *talk           `json:"talk"`
}

func encodeState(t *talk, st stage) ([]byte, error) {
	state, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	return json.Marshal(envelope{stateVersion, st.name(), state, t})
}

var errState = errors.New("the state of the conversation is damaged or of another version")

// decodeState reads what encodeState wrote. Whatever is not exactly that is an
// error, and its conversation is denied.
func decodeState(b []byte) (*talk, stage, error) {
	if len(b) > maxState {
		return nil, nil, errState
	}
	var e envelope
	if err := strict(b, &e); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errState, err)
	}
	if e.Version != stateVersion || e.Talk == nil {
		return nil, nil, errState
	}
	st, err := decodeStage(e.Stage, e.State)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errState, err)
	}
	if err := e.Talk.check(st); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errState, err)
	}
	return e.Talk, st, nil
}

func strict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text behind the end")
	}
	return nil
}

func decodeStage(name string, b []byte) (stage, error) {
	switch name {
	case judging{}.name():
		return read[judging](b)
	case awaitPassword{}.name():
		return read[awaitPassword](b)
	case awaitChoice{}.name():
		return read[awaitChoice](b)
	case awaitCode{}.name():
		return read[awaitCode](b)
	case awaitAnswer{}.name():
		return read[awaitAnswer](b)
	case awaitEnrolCode{}.name():
		return read[awaitEnrolCode](b)
	case awaitFirstCode{}.name():
		return read[awaitFirstCode](b)
	case awaitNewPassword{}.name():
		return read[awaitNewPassword](b)
	case awaitNewPassword2{}.name():
		return read[awaitNewPassword2](b)
	case awaitOfflineChoice{}.name():
		return read[awaitOfflineChoice](b)
	}
	// The ended ones hold nothing and are never read back.
	return nil, fmt.Errorf("stage %q", name)
}

func read[S stage](b []byte) (stage, error) {
	var s S
	if err := strict(b, &s); err != nil {
		return nil, err
	}
	return s, nil
}

// check holds what must be true of every conversation: a stage behind the first
// factor is only reached with it accepted, one behind the second only with as many
// factors as were asked.
func (t *talk) check(st stage) error {
	if len(t.Given) > 4 || len(t.Kinds) > 16 || len(t.Spent) > 8 || len(t.Opening.Can) > maxCan || t.Wrong < 0 || t.Mistakes < 0 || t.Count < 0 || t.Count > 4 {
		return errors.New("out of bounds")
	}
	for i, g := range t.Given {
		if slices.Contains(t.Given[:i], g) {
			return errors.New("a factor is given twice")
		}
	}
	switch st := st.(type) {
	case judging, awaitPassword:
		if t.Accepted || len(t.Given) > 0 {
			return errors.New("more than nothing before the first factor")
		}
		return nil
	case awaitChoice:
		if len(st.Kinds) < 2 || len(st.Kinds) > 16 {
			return errors.New("a menu without a choice")
		}
		return t.behindFirst()
	case awaitCode:
		if st.Kind == "" {
			return errors.New("no kind of factor")
		}
		return t.behindFirst()
	case awaitAnswer:
		if st.Kind == "" {
			return errors.New("no kind of factor")
		}
		return t.behindFirst()
	case awaitEnrolCode:
		if st.Kind == "" {
			return errors.New("no kind of factor")
		}
		return t.behindFirst()
	case awaitFirstCode:
		if st.Kind == "" || st.CodeID == "" || len(st.Pending) == 0 {
			return errors.New("nothing to enrol")
		}
		return t.behindFirst()
	case awaitNewPassword:
		return t.behindSecond()
	case awaitNewPassword2:
		if len(st.Proposal) == 0 {
			return errors.New("no proposal")
		}
		return t.behindSecond()
	case awaitOfflineChoice:
		return t.behindSecond()
	}
	return fmt.Errorf("stage %T", st)
}

func (t *talk) behindFirst() error {
	if !t.Accepted || t.UserID == "" {
		return errors.New("the first factor was not accepted")
	}
	return nil
}

func (t *talk) behindSecond() error {
	if err := t.behindFirst(); err != nil {
		return err
	}
	if len(t.Given) < t.Count {
		return errors.New("a factor is missing")
	}
	return nil
}

// proven tells whether all that was asked for was given, with what the user holds.
func (t *talk) proven() bool { return t.Count > 0 && len(t.Given) >= t.Count && !t.Lent }

// mfa tells whether a full MFA was completed with what the user holds.
func (t *talk) mfa() bool { return t.proven() && !t.ForChange }

// left are the kinds that may still be given.
func (t *talk) left() []policy.Factor {
	return slices.DeleteFunc(slices.Clone(t.Kinds), func(k policy.Factor) bool { return slices.Contains(t.Given, k) })
}
