/*
 * strict.pml
 *	  The cache protocol of docs/cache-protocol.md with redis_mode = strict.
 *
 * One session, CHANGES changes of it, READERS readers that fill the cache,
 * the worker, and Redis with everything that can happen to it.  The property,
 * asserted wherever it could break: what Redis holds, if a reader may use it,
 * is not older than the last change that was acknowledged.  A read runs in
 * Redis after it began, so this is what a read that begins after the
 * acknowledgement finds.
 *
 * What is abstracted, always so that the model can do more than reality:
 *
 * - A command of the worker is carried out and answered, or carried out and
 *   its answer lost, or lost, or left on its way ("stray") to be carried out
 *   at any later time.  So there is no separate partition: nothing needs to
 *   get through, ever.  A stray tombstone only ever removes, so that strays
 *   of the epoch alone are kept, two at a time.
 * - Leases, values, tombstones and the epoch may vanish at any time: expiry,
 *   eviction, FLUSHALL, a restart with nothing.
 * - Time: the only clock that safety rests on is the end of the epoch.  Its
 *   passing (of the latest end that was ever sent) is one event, which can
 *   happen at any time.  From then on neither the key nor what is stray
 *   counts, as all carry an absolute end that is not later; and the worker
 *   knows.  A renewal changes nothing else: it is a compare-and-set, so it
 *   makes no key.  It is modelled where its end is relative.
 * - The worker may be killed at any time and forgets all but the outbox.  A
 *   kill of the server is that, and the abort of what has not committed.
 * - A reader may stop anywhere; its fill may come as late as can be.  Readers
 *   go on for ever.  A nonce is the reader's number: it is never twice in use,
 *   as a reader is done with one before it takes the next.
 *
 * Each of the macros below takes something away from the protocol; run.sh
 * expects every one of them to be found out.
 *
 *	BLIND_FILL		fill with SET, whatever the key holds
 *	NO_XMAX			fill although somebody is changing the row
 *	NO_EPOCH		readers do not look at the epoch
 *	EPOCH_REUSED	a lapsed epoch is published again
 *	RELATIVE		the epoch's end counts from when Redis gets the command
 *	NO_WAIT			commit at once when Redis cannot be reached
 *	EPOCH_LATE		seal under the epoch seen after the row was read
 *	EARLY_TOMBSTONE	fence before the row is marked as being changed
 *	FORGETFUL		a new worker takes its predecessor's epoch for ended
 */
#ifndef READERS
#define READERS	2
#endif
#ifndef CHANGES
#define CHANGES	2
#endif
#ifndef EPOCHS
#define EPOCHS	3			/* published at most */
#endif
#define UNKNOWN	99			/* the worker's epoch, after it was restarted */

mtype = { nothing, lease, value, tombstone };
mtype = { none, asked_key, asked_epoch, acknowledged, dead };

/* Redis */
mtype key = nothing;
byte key_nonce = 0;			/* of a lease */
byte key_epoch = 0;			/* of a value */
byte key_version = 0;
byte epoch = 0;				/* 0: no such key */
bool beyond = false;		/* RELATIVE: it outlives what the worker thinks */

/* on its way to Redis: 0 or an epoch to publish */
byte stray[2] = 0;
#ifdef RELATIVE
byte stray_renewal = 0;
#endif

/* PostgreSQL */
byte committed = 0;			/* version of the row */
bool pending = false;		/* xmax of a transaction in progress */
byte acked = 0;				/* version whose commit was acknowledged */
bool outbox[CHANGES + 1] = false;	/* committed, tombstone not acknowledged */
mtype fence = none;

/* the worker; last is no memory of it, but chance */
byte current = 0;			/* epoch that may be alive; 0: all have ended */
byte last = 0;

#ifdef NO_EPOCH
#define COUNTS	(key == value)
#else
#define COUNTS	(key == value && epoch != 0 && key_epoch == epoch)
#endif
#ifdef BLIND_FILL
#define HELD	true
#else
#define HELD	(key == lease && key_nonce == _pid)
#endif
#ifdef NO_EPOCH
#define FREE	(key == nothing)
#else
#define FREE	(epoch != 0 && (key == nothing || (key == value && key_epoch != epoch)))
#endif
#ifdef USELESS
/* not a change of the protocol: that the last change is served must happen */
#define CHECK	assert(!(COUNTS && acked == CHANGES && key_version == acked))
#else
#define CHECK	assert(!COUNTS || key_version >= acked)
#endif

inline clear_key()
{
	key = nothing; key_nonce = 0; key_epoch = 0; key_version = 0
}

inline put_tombstone()
{
	key = tombstone; key_nonce = 0; key_epoch = 0; key_version = 0
}

inline publish(id)
{
	epoch = id;
	CHECK
}

inline leave_stray(id)
{
	if
	:: stray[0] == 0 -> stray[0] = id
	:: stray[0] != 0 && stray[1] == 0 -> stray[1] = id
	:: stray[0] != 0 && stray[1] != 0		/* lost */
	fi
}

inline next_epoch()
{
#ifdef EPOCH_REUSED
	if
	:: last == 0 -> last = 1
	:: last != 0
	fi;
#else
	last++;
#endif
	current = last
}

active proctype Environment()
{
	do
	:: atomic { key != nothing -> clear_key() }
	:: atomic { epoch != 0 -> epoch = 0; beyond = false }
	:: atomic { stray[0] != 0 ->
		publish(stray[0]);
		stray[0] = stray[1]; stray[1] = 0 }
	:: atomic { stray[1] != 0 ->
		publish(stray[1]);
		stray[1] = 0 }
#ifdef RELATIVE
	:: atomic { stray_renewal != 0 ->
		if
		:: stray_renewal == epoch -> beyond = true
		:: stray_renewal != epoch
		fi;
		stray_renewal = 0 }
#endif
	/* the latest end that the worker has sent passes */
	:: atomic { current != 0 ->
		current = 0;
#ifdef RELATIVE
		if
		:: !beyond -> epoch = 0
		:: beyond
		fi
#else
		epoch = 0;
		stray[0] = 0;
		stray[1] = 0
#endif
		}
	od
}

active proctype Worker()
{
	byte i;

	do
	/* publish: nothing is alive, or the renewal found the key gone */
	:: atomic { last < EPOCHS && current != UNKNOWN &&
			(current == 0 || epoch != current) ->
		i = 1;
		do
		:: i <= CHANGES && !outbox[i] -> i++
		:: else -> break
		od;
		if
		:: i > CHANGES ->
			next_epoch();
			if
			:: publish(current)
			:: leave_stray(current)
			:: skip
			fi
		:: else
		fi;
		i = 0 }
#ifdef RELATIVE
	:: atomic { current != 0 && current != UNKNOWN && stray_renewal == 0 ->
		stray_renewal = current }
#endif
	/* deliver the outbox */
	:: atomic { outbox[1] -> put_tombstone(); outbox[1] = false }
#if CHANGES > 1
	:: atomic { outbox[2] -> put_tombstone(); outbox[2] = false }
#endif
	/* a tombstone whose answer is lost */
	:: atomic { (outbox[1] || outbox[CHANGES] || fence == asked_key) -> put_tombstone() }
	/* the fence */
	:: atomic { fence == asked_key -> put_tombstone(); fence = acknowledged }
	:: atomic { fence == asked_epoch && last < EPOCHS && current != UNKNOWN ->
		next_epoch();
		if
		:: publish(current); fence = acknowledged
		:: leave_stray(current)
		fi }
	:: atomic { (fence == asked_key || fence == asked_epoch) && current == 0 ->
		fence = dead }
	/* killed; its successor does not know when the epoch ends */
	:: atomic { current != UNKNOWN ->
#ifdef FORGETFUL
		current = 0
#else
		current = UNKNOWN
#endif
		}
	od
}

active proctype Changer()
{
	byte change = 1;

	do
	:: change > CHANGES -> break
	:: change <= CHANGES ->
#ifndef EARLY_TOMBSTONE
		pending = true;
#endif
		atomic {
			if
			:: fence = asked_key
			:: fence = asked_epoch	/* many sessions at once */
			fi }
		if
		:: atomic { (fence == acknowledged || fence == dead) -> fence = none }
#ifdef NO_WAIT
		:: atomic { fence = none }
#endif
		/* an error, a cancel, a kill of the server */
		:: atomic { fence = none; pending = false; goto end }
		fi;
#ifdef EARLY_TOMBSTONE
		pending = true;
#endif
		atomic { committed = change; pending = false; outbox[change] = true }
		atomic { acked = change; CHECK }
		change++
	od;
end:
	skip
}

active [READERS] proctype Reader()
{
	byte my_epoch;
	byte my_version;
	bool settled;

	do
	/* acquire */
	:: atomic { FREE ->
			my_epoch = epoch;
			key = lease; key_nonce = _pid; key_epoch = 0; key_version = 0 }
		/* session_get */
		atomic { my_version = committed;
#ifdef NO_XMAX
			settled = true
#else
			settled = !pending
#endif
			}
		/* fill */
		atomic {
			if
			:: settled && HELD ->
#ifdef EPOCH_LATE
				my_epoch = epoch;
#endif
				key = value; key_nonce = 0; key_epoch = my_epoch; key_version = my_version;
				CHECK
			:: else
			:: skip				/* stopped, or the fill was lost */
			fi;
			my_epoch = 0; my_version = 0; settled = false }
	od
}
