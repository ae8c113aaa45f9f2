/*
 * shards.pml
 *	  The cache protocol of docs/cache-protocol.md with shards.
 *
 * Two servers, of which the second is a copy of the first, and one session,
 * which moves from the first to the second while it is read and changed.
 * Each server has a worker with an epoch of its own.  With SHARED, both use
 * one Redis by mistake, so that there is one key for both; otherwise each has
 * one.  strict.pml shows that a value under an epoch is not older than the
 * changes on the epoch's own server; here is what happens between servers, so
 * that the network, other readers and the rest are left out.
 *
 * The property: what a reader may use, whichever epoch's key it looks at, is
 * not older than the last change that was acknowledged anywhere.
 *
 * A reader may take the lease under one server's epoch and ask the other for
 * the row, as with an old map, or after a failover that it has not noticed.
 * A backend may learn of the changed setting "shard" long after the worker
 * has, or before.
 *
 * Each of the macros below takes something away from the protocol; run.sh
 * expects every one of them to be found out.
 *
 *	ANY_INSTALLATION	fill whichever server the row is from
 *	EPOCH_STAYS			a changed share does not end the epoch
 *	BACKEND_ALONE		"cacheable" does not ask which share the worker knows
 *	TOO_EARLY			the second server takes the session before the first
 *						server's epoch has ended
 */
#define CHANGES	2
#define EPOCHS	3			/* published at most, by both */
#define READERS	1

#ifdef SHARED
#define K(s)	0
#else
#define K(s)	(s)
#endif

mtype = { nothing, lease, value, tombstone };

/* Redis: a key in each, and the epochs by their servers' names; 0: none */
mtype key[2] = nothing;
byte key_nonce[2] = 0;
byte key_epoch[2] = 0;
byte key_version[2] = 0;
byte epoch[2] = 0;

/* PostgreSQL */
byte committed[2] = 0;		/* versions of the row and of its copy */
bool pending[2] = false;
byte acked = 0;
bool backend_holds = true;	/* a backend of the first, by its setting */
bool worker_holds = true;	/* the same of its worker */
bool narrowed = false;		/* the setting has been changed */
bool taken = false;			/* the second server holds the session */

byte last = 0;				/* epoch that was published */

#define COUNTS(s)	(key[K(s)] == value && epoch[s] != 0 && key_epoch[K(s)] == epoch[s])
#define HOLDS(s)	((s == 0 && backend_holds) || (s == 1 && taken))
#ifdef BACKEND_ALONE
#define AGREES(s)	true
#else
#define AGREES(s)	(s == 1 || worker_holds == backend_holds)
#endif
#ifdef TOO_EARLY
#define WORKER_KNOWS	true
#else
#define WORKER_KNOWS	!worker_holds
#endif
#ifdef ANY_INSTALLATION
#define FILLS(s, from)	true
#else
#define FILLS(s, from)	(s == from)
#endif
#ifdef USELESS
/* not a change of the protocol: the last change is served after the move */
#define CHECK	assert(!(taken && COUNTS(1) && acked == CHANGES && key_version[K(1)] == acked))
#else
#define CHECK	assert((!COUNTS(0) || key_version[K(0)] >= acked) && (!COUNTS(1) || key_version[K(1)] >= acked))
#endif

inline set_key(s, what, nonce, of_epoch, version)
{
	key[K(s)] = what; key_nonce[K(s)] = nonce;
	key_epoch[K(s)] = of_epoch; key_version[K(s)] = version
}

active proctype Environment()
{
	do
	:: atomic { key[0] != nothing -> set_key(0, nothing, 0, 0, 0) }
#ifndef SHARED
	:: atomic { key[1] != nothing -> set_key(1, nothing, 0, 0, 0) }
#endif
	:: atomic { epoch[0] != 0 -> epoch[0] = 0 }
	:: atomic { epoch[1] != 0 -> epoch[1] = 0 }
	od
}

active proctype Workers()
{
	do
	:: atomic { epoch[0] == 0 && last < EPOCHS -> last++; epoch[0] = last; CHECK }
	:: atomic { epoch[1] == 0 && last < EPOCHS -> last++; epoch[1] = last; CHECK }
	/* the first server's worker reads its settings again */
	:: atomic { narrowed && worker_holds ->
		worker_holds = false;
#ifndef EPOCH_STAYS
		epoch[0] = 0
#endif
		}
	od
}

/* The split: promote the copy when nothing writes to the session here. */
active proctype Split()
{
	narrowed = true;
	atomic { !pending[0] && !backend_holds && WORKER_KNOWS ->
		committed[1] = committed[0]; taken = true }
}

/* What changes the session runs where it is held, by a backend that knows. */
active proctype Changer()
{
	byte change = 1;
	byte at;

	do
	:: change > CHANGES -> break
	:: change <= CHANGES ->
		if
		:: atomic { backend_holds -> at = 0; pending[at] = true }
		:: atomic { taken -> at = 1; pending[at] = true }
		fi;
		/* the fence: a tombstone, or the end of the epoch */
		if
		:: atomic { set_key(at, tombstone, 0, 0, 0) }
		:: atomic { epoch[at] == 0 -> skip }
		fi;
		atomic { committed[at] = change; pending[at] = false }
		atomic { acked = change; CHECK }
		change++
	od
}

/* Another backend of the first server reads its settings again. */
active proctype Backend()
{
	atomic { narrowed -> backend_holds = false }
}

active [READERS] proctype Reader()
{
	byte s;					/* whose epoch, in whose Redis */
	byte from;				/* who answers */
	byte my_epoch;
	byte my_version;
	bool cacheable;

	do
	:: if
		:: s = 0
		:: s = 1
		fi;
		/* acquire, unless the key is not free: then all begins again */
		if
		:: atomic { epoch[s] != 0 && (key[K(s)] == nothing ||
				(key[K(s)] == value && key_epoch[K(s)] != epoch[s])) ->
				my_epoch = epoch[s];
				set_key(s, lease, _pid, 0, 0) }
			if
			:: from = 0
			:: from = 1
			fi;
			/* session_get, or SM005 */
			atomic {
				my_version = committed[from];
				cacheable = HOLDS(from) && AGREES(from) && !pending[from] }
			/* fill */
			atomic {
				if
				:: cacheable && FILLS(s, from) && key[K(s)] == lease && key_nonce[K(s)] == _pid ->
					set_key(s, value, 0, my_epoch, my_version);
					CHECK
				:: else
				:: skip
				fi;
				my_epoch = 0; my_version = 0; cacheable = false; from = 0 }
		:: else
		fi;
		s = 0
	od
}
