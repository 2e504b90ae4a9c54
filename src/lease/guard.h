/* SPDX-License-Identifier: MIT */
/*
 * The conditions on which the protocol's safety rests, each under a name.  The simulator compiles
 * the core with PS_MUTANT defined as the variable that says which one to leave out, and must then
 * catch what follows; without PS_MUTANT a guard is its condition and nothing else.
 */
#ifndef PS_LEASE_GUARD_H
#define PS_LEASE_GUARD_H

#define PS_LEASE_GUARDS(X)                                                                    \
	X(REGISTRATION, "registration", "announce only what was loaded after registering")    \
	X(CONFIRMATION, "confirmation", "use a grant only when all dispatchers confirmed it") \
	X(INCARNATION, "incarnation", "believe a confirmation only of the present store")     \
	X(LOADED, "loaded", "confirm what the kernel has, not what was read")                 \
	X(QUARANTINE, "quarantine", "give a slice away only after its quarantine")            \
	X(DEADLINE, "deadline", "tell the kernel when a lease ends")                          \
	X(EPOCH, "epoch", "write higher epochs back into a restored store")                   \
	X(SETTLED, "settled", "grant in a restored store only when all have re-asserted")     \
	X(BARRIER, "barrier", "wait for calls under way before looking for ports in use")     \
	X(WITHDRAWN, "withdrawn", "deregister only after traffic has stopped coming")         \
	X(EVIDENCE, "evidence", "evict only what half of the site has outlived")              \
	X(VOTE, "vote", "go on without a store only with most of the site")                   \
	X(SITE, "site", "grant only addresses that are here to stay")

#define PS_LEASE_GUARD_ENUM(name, label, text) PS_LEASE_GUARD_##name,
enum ps_lease_guard {
	PS_LEASE_GUARD_NONE,
	PS_LEASE_GUARDS(PS_LEASE_GUARD_ENUM) PS_LEASE_GUARD_MAX
};
#undef PS_LEASE_GUARD_ENUM

#ifdef PS_MUTANT
extern int PS_MUTANT;
#define PS_GUARD(name, condition) (PS_MUTANT == PS_LEASE_GUARD_##name || (condition))
#else
#define PS_GUARD(name, condition) (condition)
#endif
/* True when the guard is left out and the wrong thing is to be done. */
#define PS_LACKS(name) PS_GUARD(name, false)

#endif
