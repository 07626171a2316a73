// Package e2e tries Latchkey on the real programs: sshd, sudo, su, login and
// pamtester with the module that is shipped, in namespaces that each test makes
// for itself. With the build tag e2e it is also the harness for that:
//
//	m := e2e.NewMachine(t)              // own mounts, network, processes, users, /etc
//	m.AddUser("alice", "unix password")
//	m.PAM("login", m.Shipped("latchkey-full"))
//	r := m.Login("alice", e2e.Say("assword: ", "pw", "Code: ", code))
//	if !r.Opened { ... r.Output ... }
//
// Promises: nothing outside the namespaces changes (the test's temporary folder
// and a pseudo terminal apart); everything that a test started is gone when it
// ends; nothing waits without an end. It needs root with CAP_SYS_ADMIN and fails,
// saying so, where that is missing.
//
// The programs under test are those in bin/ (`make build`), the ones with a
// movable clock those in .cache/bin-test (`scripts/build --test`).
package e2e
