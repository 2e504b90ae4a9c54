/* SPDX-License-Identifier: MIT */
/*
 * One address, two sites, each with a store, dispatchers and a host that would hold a slice of it;
 * operators who move it to and fro.  src/lease/move.c in little: nobody holds it at both sites, and
 * while it is held at one, every site's dispatchers send its packets there.
 *
 * -DNO_SITE: the target does not wait for the authority's word that nobody holds it any more, and that
 * every site knows.
 */
#define HERE 0
#define LEAVING 1
#define MOVED 2

#ifndef MOVES
#define MOVES 3
#endif
#ifdef NO_SITE
#define AUTHORITY false
#else
#define AUTHORITY true
#endif

byte phase[2], at[2], target[2], epoch[2] = 1;
byte table[2];                 /* what the dispatchers of the site have loaded */
byte known[2] = 1;             /* up to which epoch */
bool holds[2], cut[2];         /* cut: the site's store cannot be reached from outside */
byte moves, read_epoch[2];     /* what each of two operators has read */

#define OTHER(s) (1 - s)

inline check()
{
	assert(!(holds[0] && holds[1]));
	assert(!(holds[0] && (table[0] != 0 || table[1] != 0)));
	assert(!(holds[1] && (table[0] != 1 || table[1] != 1)))
}

inline world(s)
{
	if
	:: phase[s] == HERE && at[s] == s && !cut[s] && read_epoch[0] == 0 -> read_epoch[0] = epoch[s]
	:: phase[s] == HERE && at[s] == s && !cut[s] && read_epoch[1] == 0 -> read_epoch[1] = epoch[s]
	:: read_epoch[0] > 0 && at[s] == s && !cut[s] && moves < MOVES ->
		if
		:: read_epoch[0] == epoch[s] && phase[s] == HERE ->
			moves++; phase[s] = LEAVING; target[s] = OTHER(s); epoch[s]++
		:: else
		fi;
		read_epoch[0] = 0
	:: read_epoch[1] > 0 && at[s] == s && !cut[s] && moves < MOVES ->
		if
		:: read_epoch[1] == epoch[s] && phase[s] == HERE ->
			moves++; phase[s] = LEAVING; target[s] = OTHER(s); epoch[s]++
		:: else
		fi;
		read_epoch[1] = 0
	:: phase[s] == LEAVING && !cut[s] ->	/* called off */
		phase[s] = HERE; target[s] = s; epoch[s]++
	:: phase[s] == HERE && at[s] == s && !holds[s] && known[s] == epoch[s] -> holds[s] = true
	:: holds[s] && phase[s] != HERE -> holds[s] = false
	:: phase[s] == LEAVING && (!holds[s] || !AUTHORITY) ->
		phase[s] = MOVED; at[s] = target[s]; epoch[s]++
	:: epoch[OTHER(s)] > epoch[s] && phase[OTHER(s)] != LEAVING && !cut[0] && !cut[1] ->
		phase[s] = phase[OTHER(s)]; at[s] = at[OTHER(s)]; target[s] = target[OTHER(s)];
		epoch[s] = epoch[OTHER(s)]
	:: known[s] != epoch[s] -> table[s] = at[s]; known[s] = epoch[s]
	:: phase[s] == MOVED && at[s] == s && !cut[0] && !cut[1] &&
	   ((epoch[OTHER(s)] == epoch[s] && known[0] == epoch[0] && known[1] == epoch[1]) || !AUTHORITY) ->
		phase[s] = HERE; epoch[s]++
	:: cut[s] = !cut[s]
	fi
}

active proctype plane()
{
end:	do
	:: atomic { world(0); check() }
	:: atomic { world(1); check() }
	od
}
