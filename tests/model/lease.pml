/* SPDX-License-Identifier: MIT */
/*
 * The essence of src/lease for Spin: one slice, two hosts that are holders and dispatchers, one store
 * that can be cut off, lost and restored from a backup; agents that crash and start again.
 *
 * Time is not counted.  What the C core derives from clocks stands here as order: a deadline of one's
 * own (old = 1) comes before anybody else acts on it (old = 2); what a lapsed host still has in flight
 * ends before the quarantine does.  The simulator checks that the figures keep that order.
 *
 * -DNO_x leaves out a guard; the checker must then find what goes wrong:
 *   NO_REGISTRATION  announce what was loaded before registering
 *   NO_CONFIRMATION  use a grant that not every dispatcher has confirmed
 *   NO_INCARNATION   count tables loaded from a former incarnation as confirmed
 *   NO_QUARANTINE    free at once
 *   NO_DEADLINE      hooks go on after the lease has ended
 *   NO_EPOCH         do not write higher epochs back into a restored store
 *   NO_BARRIER       look for ports in use while calls are under way
 *   NO_VOTE          go on without the store and without most of the site
 * Site authority has a model of its own, move.pml.
 *
 * Each line printed is one event: tests/model/replay.c drives the C core with them.
 */
#define FREE 0
#define GRANTED 1
#define ACTIVE 2
#define DRAINING 3
#define QUARANTINE 4
#define NOBODY 2

#ifndef GRANTS
#define GRANTS 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef CUTS
#define CUTS 1
#endif
#ifndef REACH
#define REACH false /* true: "every slice becomes usable again", shown by a run that gets there */
#endif
#ifndef ROLLBACKS
#define ROLLBACKS 1
#endif

/* The store. */
byte state, holder = NOBODY, epoch;
bool settled = true;
bool registered[2], expired[2], asserted[2] = true;
bool confirmed[2]; /* the record as it is now */
/* Its backup. */
bool has_backup, b_registered[2];
byte b_state, b_holder, b_epoch;

/* What each host has seen, its agent's state, its kernel. */
bool alive[2] = true, cut[2], knows[2]; /* knows: has a view of the present incarnation */
byte v_state[2], v_holder[2] = NOBODY, v_epoch[2]; /* what its kernel has loaded, too */
byte o_state[2], o_epoch[2]; /* what it wrote itself, seen or not */
bool is_new[2];   /* ... is the record as it is now */
bool is_after[2]; /* ... was read after it registered */
bool ghost[2];    /* its revision of a former incarnation passes for a later one of this */
byte old[2], old_dispatch[2]; /* lease of ownership, of dispatching: 0 fresh, 1 over, 2 seen by others */
bool is_registered[2], announced[2];
byte own[2]; /* 0 none 1 waits 2 uses 3 cleared 4 looks 5 empty */
bool draws[2], in_use[2], under_way[2], attracts[2];

bool gone; /* the holder did not give it back itself: its lease ran out */
byte grants, crashes, cuts, rollbacks;

#define OTHER(h) (1 - h)
#define REACHES(h) (alive[h] && !cut[h])
#define OWNER(s, h) ((s) == GRANTED || (s) == ACTIVE || (s) == DRAINING -> (h) : NOBODY)
#define TABLE(h) OWNER(v_state[h], v_holder[h])
#define USES(h) (draws[h] || in_use[h])
#define NEWER(e, t) ((e) > epoch || ((e) == epoch && (t) != FREE && state != FREE && (t) > state))

inline check()
{
	assert(!(REACH && epoch == 2 && holder == 1 && draws[1] && expired[0]));
	assert(!(USES(0) && USES(1)));
	assert(!(draws[0] && attracts[0] && TABLE(0) != 0));
	assert(!(draws[0] && attracts[1] && TABLE(1) != 0));
	assert(!(draws[1] && attracts[0] && TABLE(0) != 1));
	assert(!(draws[1] && attracts[1] && TABLE(1) != 1))
}

inline see(h)
{
	v_state[h] = state; v_holder[h] = holder; v_epoch[h] = epoch;
	is_new[h] = true; is_after[h] = true; ghost[h] = false
}

/* A host's own transaction: it knows the outcome. */
inline write_own(s, h)
{
	write(s, h); o_state[h] = s; o_epoch[h] = epoch
}

/* From now on tables must have been read after this to be announced. */
inline settle()
{
	if
	:: !settled && asserted[0] && asserted[1] ->
		settled = true; is_after[0] = false; is_after[1] = false
	:: else
	fi
}

inline write(s, w)
{
	state = s; holder = w; is_new[0] = false; is_new[1] = false;
	confirmed[0] = ghost[0] && confirmed[0]; confirmed[1] = ghost[1] && confirmed[1]
}

/* Every registered dispatcher has confirmed the slice's record, in this incarnation. */
#ifdef NO_CONFIRMATION
#define CONFIRMED(d) true
#else
#define CONFIRMED(d) (!registered[d] || (asserted[d] && confirmed[d]))
#endif
#ifdef NO_EPOCH
#define SETTLED true
#define REMEMBERS false
#else
#define SETTLED settled
#define REMEMBERS true
#endif
#ifdef NO_INCARNATION
#define KEPT true
#else
#define KEPT false
#endif
#ifdef NO_REGISTRATION
#define LOADED_ENOUGH(h) true
#else
#define LOADED_ENOUGH(h) is_after[h]
#endif
#ifdef NO_BARRIER
#define PASSED_BARRIER(h) true
#else
#define PASSED_BARRIER(h) (!under_way[h])
#endif
#ifdef NO_VOTE
#define NEEDS_VOTE false
#else
#define NEEDS_VOTE true
#endif
#ifdef NO_DEADLINE
#define ENDS false
#else
#define ENDS true
#endif
#ifdef NO_QUARANTINE
#define WAITS false
#else
#define WAITS true
#endif
#define MAY(h) (REACHES(h) && knows[h] && !expired[h] && old[h] == 0 && SETTLED)

inline stop(h)
{
	own[h] = 0; draws[h] = false
}

inline forget(h)
{
	alive[h] = false; knows[h] = false; own[h] = 0; is_registered[h] = false;
	announced[h] = false; attracts[h] = false; under_way[h] = false;
	is_new[h] = false; is_after[h] = false; ghost[h] = false;
	v_state[h] = FREE; v_holder[h] = NOBODY; v_epoch[h] = 0;
	/* What the hooks still have is in pinned maps, with its epoch. */
	o_state[h] = (USES(h) -> ACTIVE : FREE); o_epoch[h] = (USES(h) -> o_epoch[h] : 0)
}

inline world(h)
{
	if
	/* --- the store's news, renewal --- */
	:: REACHES(h) && knows[h] && (!is_new[h] || !is_after[h]) ->
		see(h); printf("EV deliver %d\n", h)
	:: REACHES(h) && !expired[h] && knows[h] && (old[h] > 0 || old_dispatch[h] > 0) &&
	   registered[h] == is_registered[h] ->
		old[h] = 0; old_dispatch[h] = 0; printf("EV renew %d\n", h)
	:: REACHES(h) && !knows[h] && v_epoch[h] == 0 && o_epoch[h] == 0 && !is_registered[h] ->	/* a new agent reads */
		see(h); knows[h] = true; asserted[h] = true; confirmed[h] = false;
		registered[h] = false; expired[h] = false; old[h] = 0; old_dispatch[h] = 0;
		settle(); printf("EV join %d\n", h)
	:: REACHES(h) && knows[h] && !attracts[h] &&
	   (expired[h] || (is_registered[h] && !registered[h])) ->
		own[h] = (expired[h] -> 0 : own[h]); draws[h] = draws[h] && !expired[h];
		is_registered[h] = false; announced[h] = false; registered[h] = false;
		expired[h] = false; old[h] = 0; old_dispatch[h] = 0;
		printf("EV rejoin %d\n", h)
	/* --- a restored store --- */
	:: REACHES(h) && !knows[h] && (v_epoch[h] > 0 || o_epoch[h] > 0 || is_registered[h]) ->
		if
		:: REMEMBERS && NEWER(o_epoch[h], o_state[h]) ->
			epoch = o_epoch[h]; write(o_state[h], h)
		:: else
		fi;
		if
		:: REMEMBERS && NEWER(v_epoch[h], v_state[h]) ->
			epoch = v_epoch[h]; write(v_state[h], v_holder[h])
		:: else
		fi;
		registered[h] = is_registered[h];
		asserted[h] = true; knows[h] = true; old[h] = 0; old_dispatch[h] = 0;
		is_new[h] = false; is_after[h] = false; ghost[h] = KEPT; confirmed[h] = KEPT;
		settle(); printf("EV assert %d\n", h)
	/* --- dispatcher --- */
	:: MAY(h) && !is_registered[h] && old_dispatch[h] == 0 ->
		registered[h] = true; is_registered[h] = true; is_after[h] = false;
		confirmed[h] = false; printf("EV register %d\n", h)
	:: REACHES(h) && knows[h] && registered[h] && is_registered[h] && !confirmed[h] && is_new[h] ->
		confirmed[h] = true; printf("EV confirm %d\n", h)
	:: alive[h] && knows[h] && is_registered[h] && !announced[h] && old_dispatch[h] == 0 &&
	   registered[h] && SETTLED && LOADED_ENOUGH(h) ->
		announced[h] = true; attracts[h] = true; printf("EV announce %d\n", h)
	/* --- holder --- */
	:: MAY(h) && state == FREE && v_state[h] == FREE && v_epoch[h] == epoch && own[h] == 0 &&
	   grants < GRANTS ->
		grants++; epoch++; write_own(GRANTED, h); own[h] = 1; printf("EV grant %d\n", h)
	:: MAY(h) && own[h] == 0 && is_new[h] && holder == h && state == GRANTED ->
		own[h] = 1; printf("EV adopt %d\n", h)
	:: MAY(h) && own[h] == 0 && is_new[h] && holder == h && (state == ACTIVE) &&
	   CONFIRMED(0) && CONFIRMED(1) ->
		own[h] = 2; draws[h] = true; in_use[h] = true; printf("EV adopt %d\n", h)
	:: MAY(h) && own[h] == 0 && is_new[h] && holder == h && state == DRAINING ->
		own[h] = 3; draws[h] = false; printf("EV adopt %d\n", h)
	:: MAY(h) && own[h] == 1 && state == GRANTED && holder == h && CONFIRMED(0) && CONFIRMED(1) ->
		write_own(ACTIVE, h); own[h] = 2; draws[h] = true; in_use[h] = true;
		printf("EV activate %d\n", h)
	:: alive[h] && own[h] == 2 && !under_way[h] ->
		own[h] = 3; draws[h] = false; printf("EV clear %d\n", h)
	:: alive[h] && own[h] == 2 && draws[h] && !under_way[h] ->
		under_way[h] = true; own[h] = 3; draws[h] = false; printf("EV clear_busy %d\n", h)
	:: MAY(h) && own[h] >= 3 && state == ACTIVE && holder == h ->
		write_own(DRAINING, h); printf("EV drain %d\n", h)
	:: alive[h] && own[h] == 3 && PASSED_BARRIER(h) ->
		own[h] = 4; printf("EV barrier %d\n", h)
	:: alive[h] && own[h] == 4 && !in_use[h] -> own[h] = 5; printf("EV emptied %d\n", h)
	:: MAY(h) && own[h] == 5 && state == DRAINING && holder == h ->
		write_own(QUARANTINE, h); own[h] = 0; printf("EV give %d\n", h)
	/* --- kernel --- */
	:: under_way[h] -> under_way[h] = false; in_use[h] = true; printf("EV connect %d\n", h)
	:: in_use[h] && !draws[h] -> in_use[h] = false; printf("EV hang_up %d\n", h)
	/* --- time --- */
	:: (cut[h] || !alive[h]) && old_dispatch[h] == 0 ->
		old_dispatch[h] = 1;
		/* With the other one, which has not renewed either, it is most of the site. */
		if
		:: alive[h] && alive[OTHER(h)] && cut[OTHER(h)] && old_dispatch[OTHER(h)] > 0
		:: alive[h] && !NEEDS_VOTE
		:: else -> attracts[h] = false; announced[h] = false
		fi;
		printf("EV dispatch_over %d\n", h)
	:: (cut[h] || !alive[h]) && old_dispatch[h] == 1 && REACHES(OTHER(h)) &&
	   old_dispatch[OTHER(h)] == 0 ->
		old_dispatch[h] = 2;
		/* It has heard that the other renewed. */
		attracts[h] = attracts[h] && !NEEDS_VOTE; announced[h] = attracts[h];
		registered[h] = false; printf("EV evict %d\n", h)
	:: (cut[h] || !alive[h]) && old_dispatch[h] == 2 && old[h] == 0 ->
		old[h] = 1;
		draws[h] = draws[h] && !ENDS; own[h] = (draws[h] -> own[h] : 0);
		under_way[h] = under_way[h] && !ENDS;
		printf("EV deadline %d\n", h)
	:: old[h] == 1 && !expired[h] && REACHES(OTHER(h)) && knows[OTHER(h)] && SETTLED &&
	   (cut[h] || !alive[h]) ->
		old[h] = 2; expired[h] = true; registered[h] = false; printf("EV expire %d\n", h)
	:: expired[h] && holder == h && OWNER(state, holder) == h && REACHES(OTHER(h)) &&
	   knows[OTHER(h)] && SETTLED ->
		write(QUARANTINE, h); gone = true; printf("EV reclaim %d\n", h)
	:: REACHES(h) && knows[h] && state == QUARANTINE && SETTLED ->
		/* Of an expired holder, delivery and guard ended before this. */
		in_use[holder] = in_use[holder] && (draws[holder] || !WAITS || !gone);
		gone = false;
		write(FREE, holder); printf("EV free %d\n", h)
	/* --- faults --- */
	:: alive[h] && crashes < CRASHES ->
		crashes++; forget(h); printf("EV crash %d\n", h)
	:: !alive[h] -> alive[h] = true; draws[h] = (draws[h] && old[h] == 0); printf("EV start %d\n", h)
	:: alive[h] && !cut[h] && cuts < CUTS -> cuts++; cut[h] = true; printf("EV cut %d\n", h)
	:: cut[h] -> cut[h] = false; printf("EV heal %d\n", h)
	fi
}

inline back_up()
{
	has_backup = true; b_state = state; b_holder = holder; b_epoch = epoch;
	b_registered[0] = registered[0]; b_registered[1] = registered[1];
	printf("EV backup 0\n")
}

inline roll_back()
{
	rollbacks++; state = b_state; holder = b_holder; epoch = b_epoch; settled = false;
	registered[0] = b_registered[0]; registered[1] = b_registered[1];
	confirmed[0] = false; confirmed[1] = false; asserted[0] = false; asserted[1] = false;
	is_new[0] = false; is_new[1] = false;
	expired[0] = false; expired[1] = false; knows[0] = false; knows[1] = false;
	printf("EV rollback 0\n")
}

active proctype plane()
{
end:	do
	:: atomic { world(0); check() }
	:: atomic { world(1); check() }
	:: atomic { ROLLBACKS > 0 && !has_backup && rollbacks == 0 -> back_up() }
	:: atomic { has_backup && rollbacks < ROLLBACKS -> roll_back(); check() }
	/* A restored store waits for hosts that are gone until their leases are over. */
	:: atomic { !settled && (asserted[0] || old[0] == 1) && (asserted[1] || old[1] == 1) ->
		/* ... and so are their connections. */
		in_use[0] = in_use[0] && asserted[0]; in_use[1] = in_use[1] && asserted[1];
		settled = true; is_after[0] = false; is_after[1] = false; printf("EV settle 0\n") }
	od
}
