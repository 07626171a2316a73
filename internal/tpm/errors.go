package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// The errors that a caller tells apart, with errors.Is. Where the TPM gave a
// return code it is wrapped beside them.
//
// About the TPM itself:
var (
	// ErrNone means that this machine has no TPM, or is told to use none.
	ErrNone = errors.New("this machine has no TPM")
	// ErrGone means that the TPM which the machine is told to use is not there:
	// no such device or socket, or nobody listens at it.
	ErrGone = errors.New("the TPM is gone")
	// ErrUnavailable means that the TPM is there and does not do its work: no
	// answer in time, a broken answer, or failure mode.
	ErrUnavailable = errors.New("the TPM does not answer")
	// ErrBusy means that the TPM, or another operation before this one, asks to
	// wait: out of slots, testing itself, sparing its memory (TPM_RC_NV_RATE). It
	// says nothing about a password. Try again.
	ErrBusy = errors.New("the TPM is busy")
	// ErrCleared means that this is not the TPM that the data was made for: it
	// was cleared, or another one took its place.
	ErrCleared = errors.New("the TPM was cleared or exchanged")
	// ErrOwner means that the owner hierarchy has a password that the agent does
	// not know, or is switched off.
	ErrOwner = errors.New("the TPM's owner hierarchy belongs to somebody else")
	// ErrNoSpace means that there is no room for another index.
	ErrNoSpace = errors.New("the TPM has no room for another index")
)

// About an index or a key in it:
var (
	// ErrWrongPassword means that the TPM refused the password and counted it.
	ErrWrongPassword = errors.New("wrong password")
	// ErrLocked means too many wrong passwords; the right one is refused too.
	// Only a server's lift helps.
	ErrLocked = errors.New("locked after too many wrong passwords")
	// ErrUsedUp means that no uses are left. Only a server's lift helps.
	ErrUsedUp = errors.New("all uses are spent")
	// ErrRemoved means that an index is not there; a verifier that had it can
	// never be used again.
	ErrRemoved = errors.New("the index was removed from the TPM")
	// ErrReplaced means that an index is not the enrolled one: it was defined
	// anew, or never activated.
	ErrReplaced = errors.New("the index in the TPM is not the enrolled one")
	// ErrTaken means that an index to be defined exists already.
	ErrTaken = errors.New("the index exists already")
	// ErrPermit means that the TPM refused the server's permit.
	ErrPermit = errors.New("the TPM refused the server's permit")
	// ErrRecord means that a record given to this package (a sealed state, a key,
	// a bundle) is damaged or of another kind.
	ErrRecord = errors.New("damaged record")
	// ErrNewer means that a record was written by a newer version of Latchkey.
	ErrNewer = errors.New("the record is of a newer version: update the agent")
	// ErrBootState means that a record is bound to a state of Secure Boot that
	// the machine is not in.
	ErrBootState = errors.New("the machine's boot state has changed")
)

// fail joins a typed error with the TPM's.
func fail(kind error, doing string, err error) error {
	return fmt.Errorf("%w: %s: %w", kind, doing, err)
}

// transient lists the answers by which a TPM only asks to try again. Those about
// references mean that the TPM was started again in the middle of an operation.
var transient = []tpm2.TPMRC{
	tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCCanceled, tpm2.TPMRCNVRate, tpm2.TPMRCNVUnavailable,
	tpm2.TPMRCMemory, tpm2.TPMRCObjectMemory, tpm2.TPMRCSessionMemory, tpm2.TPMRCSessionHandles, tpm2.TPMRCObjectHandles,
	tpm2.TPMRCContextGap, tpm2.TPMRCTooManyContexts,
	tpm2.TPMRCReferenceH0, tpm2.TPMRCReferenceH1, tpm2.TPMRCReferenceH2, tpm2.TPMRCReferenceH3, tpm2.TPMRCReferenceH4,
	tpm2.TPMRCReferenceH5, tpm2.TPMRCReferenceH6, tpm2.TPMRCReferenceS0, tpm2.TPMRCReferenceS1, tpm2.TPMRCReferenceS2,
	tpm2.TPMRCReferenceS3, tpm2.TPMRCReferenceS4, tpm2.TPMRCReferenceS5, tpm2.TPMRCReferenceS6,
}

// Transient tells whether err only asks to try again. Such an answer says
// nothing about the password.
func Transient(err error) bool {
	if errors.Is(err, ErrBusy) {
		return true
	}
	return isAny(err, transient)
}

// Absent tells whether err says that the TPM could not be reached at all, and
// so nothing about what is in it.
func Absent(err error) bool {
	return errors.Is(err, ErrGone) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNone)
}

// LockedOut tells whether err is the TPM's own lock-out, which is global and not
// of a password of ours. It passes with time, or the owner resets it.
func LockedOut(err error) bool { return errors.Is(err, tpm2.TPMRCLockout) }

func isAny(err error, codes []tpm2.TPMRC) bool {
	for _, rc := range codes {
		if errors.Is(err, rc) {
			return true
		}
	}
	return false
}

// classify gives the TPM's own codes that can come from any command their type.
// An error that has one keeps it.
func classify(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrBusy), errors.Is(err, ErrUnavailable):
		return err
	case isAny(err, transient):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case isAny(err, []tpm2.TPMRC{tpm2.TPMRCFailure, tpm2.TPMRCNeedsTest, tpm2.TPMRCInitialize, tpm2.TPMRCReboot, tpm2.TPMRCUpgrade}):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}
