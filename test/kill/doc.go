// Package kill ends the real programs with SIGKILL at every step that package
// failpoint names, and at moments that chance chooses, while people sign in, and
// compares what is left with a model of its own:
//
//   - no attempt is given back: what was judged stays counted, at the server and in
//     the vault (S10, O10);
//   - no code is accepted twice: on one machine never, online never, and where a
//     machine and the server could not meet the collision is an event (S10);
//   - no event that anybody was told of is lost, none is there twice, and the chain
//     is whole (O11, V4);
//   - nobody is told "wrong code" for a right one, nothing is called a damaged or
//     restored state that was only killed, no program ends by itself, and the next
//     sign-in works (O17).
//
// A run is a seed: LATCHKEY_KILL_SEED=N plays the same plan again, and
// LATCHKEY_KILL_POINTS=a,b,… only kills at these points. The programs are those
// of .cache/bin-test (scripts/build --test). Nothing needs root, and nothing
// outside of temporary folders and the loopback interface is touched.
package kill
