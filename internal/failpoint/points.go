package failpoint

// The programs that have points.
const (
	Server = "latchkeyd"
	Agent  = "latchkey-agent"
)

// Point is a step at which a test may kill a program.
type Point struct {
	Name  string
	In    []string // the programs that reach it
	After string   // what has just happened; what comes next has not
}

var (
	server = []string{Server}
	agent  = []string{Agent}
	both   = []string{Server, Agent}
)

// Points are all steps. A test compares the list with the calls in the source, so that who kills at every one of these
// has killed at every one there is.
var Points = []Point{
	// The database: every change of the server goes through these.
	{"store.begun", server, "a transaction was begun and nothing is in it"},
	{"store.committing", server, "all changes of the batch and the chain's head are written, not committed"},
	{"store.committed", server, "the batch is on the disk, and none of its callers knows"},

	// A step of a sign-in.
	{"signin.claimed", server, "the step is claimed and counted on the disk, not judged"},
	{"signin.worked", server, "the password was compared, and nothing is written of it"},
	{"signin.judged", server, "the outcome is in the transaction, not committed"},
	{"signin.stored", server, "the outcome is on the disk, not answered"},
	{"signin.settled", server, "a step that took no comparing is on the disk, not answered"},
	{"signin.replayed", server, "a step with another body has ended the conversation, not answered"},
	{"signin.expired", server, "overdue conversations were ended"},

	// Offline data and what comes back of it.
	{"offline.policy", server, "a machine's policy file is signed, not sent"},
	{"offline.prepared", server, "a generation is allocated or extended, not answered"},
	{"offline.granted", server, "that a permit is given is on the disk, it is not signed"},
	{"offline.signed", server, "a permit is signed, not sent"},
	{"offline.bundled", server, "a bundle is signed, not sent"},
	{"offline.ready", server, "a generation counts as active, not answered"},
	{"offline.wiped", server, "a generation counts as wiped, not answered"},
	{"offline.journal.read", server, "a delivery was taken over, not committed"},
	{"offline.journal.kept", server, "a delivery is on the disk, not acknowledged"},

	// Machines come and go.
	{"enroll.signed", server, "the certificate of a joining machine is signed, the token is unspent"},
	{"enroll.joined", server, "a machine has joined, its certificate is not sent"},
	{"enroll.renewing", server, "a renewed certificate is signed and not in the database"},
	{"enroll.renewed", server, "a renewed certificate is in the database, not sent"},
	{"enroll.dismissed", server, "a machine is revoked in the transaction, not committed"},
	{"desk.dismissed", server, "a machine is revoked, and the administrator does not know"},
	{"agentapi.answering", server, "a machine's request is done, and no octet of the answer is sent"},

	// What the server does by itself.
	{"checkpoint.signed", server, "the head of the chain is signed, not written"},
	{"checkpoint.written", server, "a checkpoint is in the chain, not in the log"},
	{"keys.master", server, "the first start has made the master key, and no other"},
	{"keys.made", server, "the first start has made all keys, and no CA"},
	{"ca.made", server, "the first start has made the CA, and no default policy"},
	{"server.made", server, "the first start has made everything and serves nobody"},
	{"server.listening", server, "the doors are open, nobody is served and nothing says so"},

	// A file that is replaced.
	{"statefile.written", both, "the new content is on the disk under another name"},
	{"statefile.renamed", both, "the new content has its name, the folder is not synced"},

	// The machine's identity.
	{"agent.joined", agent, "the server has taken the machine, nothing is written"},
	{"identity.key", agent, "the machine key is written, the identity is not"},
	{"identity.written", agent, "the identity stands, older keys are not removed"},
	{"link.renewed", agent, "a renewed certificate came, nothing is written"},
	{"link.refused", agent, "a signed refusal came, nothing is written"},
	{"link.policy", agent, "a policy file came, nothing is written"},
	{"link.acknowledged", agent, "the server has acknowledged a delivery, the journal still holds it"},

	// A sign-in on the machine.
	{"conversation.accepted", agent, "the server has accepted, the ledger does not know"},
	{"conversation.spent", agent, "what the server has accepted is spent here too, the shim is not answered"},
	{"conversation.judged", agent, "the vault has judged, the shim is not answered"},
	{"conversation.recorded", agent, "an outcome without a check is written down, the shim is not answered"},

	// The vault.
	{"vault.attempt.counted", agent, "an attempt is written down, not judged"},
	{"vault.attempt.judged", agent, "an attempt is judged, its outcome is not written"},
	{"vault.journal.written", agent, "an entry is in the journal, the ledger does not know"},
	{"vault.journal.saved", agent, "the ledger knows all delivered entries, the journal still holds them"},
	{"vault.ledger.reserved", agent, "the TPM has reserved the next number, the ledger is the old one"},
	{"vault.ledger.written", agent, "the ledger has the next number, the TPM has not"},
	{"vault.ledger.counted", agent, "ledger and TPM have the same number again"},
	{"vault.policy.written", agent, "the new policy is in place, nothing is wiped for it"},
	{"vault.wipe.indices", agent, "a user's counters are out of the TPM, the files are there"},
	{"vault.wipe.files", agent, "a user's files are removed, the ledger still names them"},
	{"vault.refusal.written", agent, "the refusal is kept, nothing is wiped"},
	{"vault.state.ledger", agent, "a new state has its ledger, and no state file"},
	{"vault.lifted", agent, "the counters of a generation are lifted, the ledger does not know"},
	{"vault.extend.kept", agent, "new days are kept, the ledger does not know"},
	{"vault.enrol.wiped", agent, "the old generation is gone, the new one is not begun"},
	{"vault.enrol.defined", agent, "the counters are defined, without a value"},
	{"vault.enrol.activated", agent, "the counters have their values, the key is not imported"},
	{"vault.enrol.imported", agent, "the key is in the TPM or wrapped, its tags are not here"},
	{"vault.enrol.saved", agent, "the generation is usable here, the server does not know"},
}
