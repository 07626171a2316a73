// Package tpm is everything Latchkey asks of a TPM 2.0. It has two halves that
// share only definitions and never a process:
//
//   - The machine's half talks to a chip, a firmware TPM or an emulator through
//     one type, [Device]. It opens the TPM for each operation and leaves nothing
//     loaded behind.
//   - The server's half (authority.go, attest.go) computes Names, policies,
//     permits and wrapped keys and checks attestations. It is pure computation,
//     runs on any system and needs no TPM.
//
// # What it keeps for a machine
//
//   - a verifier per (user, machine, generation): an HMAC key, known to the
//     server and held by the TPM, that answers "is this one-time code right?"
//     while nobody is home. The TPM computes the HMAC only in a session that
//     proves, in this order, the user's password on an index that counts wrong
//     passwords and locks at its limit (TPM_NT_PIN_FAIL), a use on an index that
//     counts uses and stops at its limit (TPM_NT_PIN_PASS), and that the command
//     is TPM2_HMAC and nothing else. Both tallies can be written only with a
//     signature of the server, made for one session of the TPM, one index Name
//     and one value;
//   - one monotonic counter, by which an old copy of the machine's files is
//     noticed, and an attestation key that certifies it to the server;
//   - the machine's state key, sealed; and the machine's own signing key, which
//     never leaves the TPM and serves as the private key of its certificate.
//
// # What it promises
//
//   - Wrong passwords and uses are counted by the TPM before it answers. They
//     survive the death of the agent and the power.
//   - Passwords, use values, codes, HMACs and sealed keys never cross the bus in
//     the clear: sessions are salted to a key of the TPM whose Name was recorded.
//   - An answer is one of the errors of errors.go. What is busy, slow, gone or
//     broken is never told as a wrong password, and a wrong password never as one
//     of those.
//   - Nothing hangs: a command may take [CommandTime], an operation
//     [OperationTime] or [SetupTime], then it ends with [ErrUnavailable].
//   - One operation at a time in a process for one TPM. While a server is asked
//     for a permit nobody waits for the TPM.
//
// What it cannot promise: root can use whatever root's agent can use; it can
// delete an index (noticed, never undone) and let the machine lie about a plain
// yes or no. A virtual TPM that is put back to a snapshot takes its counters
// back. A PolicySecret ticket taken with the right password stands for that
// password until the next start of the TPM, but each use of it still counts.
//
// Rows of behaviour.md that live here: O7, O8, O9 (the counter), O10 (the TPM's
// tallies), O17 (a crashed TPM), W5 (which boot it is), E4 (the machine's key).
package tpm
