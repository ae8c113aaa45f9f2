/*
 * async.pml
 *	  The cache protocol of docs/cache-protocol.md with redis_mode = async: the
 *	  bound on how long a change can go unnoticed.
 *
 * Time is explicit here, in steps of half a second from the start to HORIZON.  One session, one
 * change of it at any time, READERS readers that fill the cache, the worker
 * and Redis.  The property: BOUND after the change has committed, Redis holds
 * nothing from before it that a reader may use.
 *
 * As in strict.pml, what is in Redis may vanish at any time, and a command of
 * the worker may be lost or come at any later time, so that nothing needs to
 * get through.  The worker's look at Redis's clock, its look at the outbox and
 * the arrival of what it sends can be any time apart.
 *
 * What can be taken away, and has to be found out:
 *
 *	NO_STOP		renew the epoch however old the outbox is
 *	RELATIVE	the epoch's end counts from when Redis gets the command
 *	TIME_LATE	ask for Redis's time after the look at the outbox
 *	NO_EPOCH	readers do not look at the epoch
 *	BLIND_FILL	fill with SET, whatever the key holds
 *	STRICT		hope for no delay at all: the bound is not a loose one
 */
#ifndef READERS
#define READERS	2
#endif
#define LIFE	4			/* of the epoch: 2 s */
#define PATIENCE 2			/* with an undelivered row of the outbox: 1 s */
#ifdef STRICT
#define BOUND	(LIFE + PATIENCE - 1)
#else
#define BOUND	(LIFE + PATIENCE)
#endif
#define HORIZON	11
#define EPOCHS	4

mtype = { nothing, lease, value, tombstone };

byte now = 0;

/* Redis */
mtype key = nothing;
byte key_nonce = 0;
byte key_epoch = 0;
bool key_old = false;		/* the value is from before the change */
byte epoch = 0;
byte epoch_end = 0;

/* PostgreSQL */
bool committed = false;
byte committed_at = 0;
bool outbox = false;

/* on its way: an epoch with its end, to publish or to renew */
byte stray = 0;
byte stray_end = 0;
bool stray_renews = false;

byte last = 0;				/* epoch published last */

#define EPOCH	((epoch != 0 && now < epoch_end) -> epoch : 0)
#ifdef NO_EPOCH
#define COUNTS	(key == value)
#define FREE	(key == nothing)
#else
#define COUNTS	(key == value && key_epoch == epoch && EPOCH != 0)
#define FREE	(EPOCH != 0 && (key == nothing || (key == value && key_epoch != EPOCH)))
#endif
#ifdef BLIND_FILL
#define HELD	true
#else
#define HELD	(key == lease && key_nonce == _pid)
#endif
#define CHECK	assert(!(COUNTS && key_old && committed && now >= committed_at + BOUND))

inline clear_key(to)
{
	key = to; key_nonce = 0; key_epoch = 0; key_old = false
}

inline arrive(id, end, renews)
{
	if
	:: (!renews || EPOCH == id) ->
		epoch = id;
#ifdef RELATIVE
		epoch_end = now + LIFE;
#else
		epoch_end = end;
#endif
		if
		:: now >= epoch_end -> epoch = 0; epoch_end = 0
		:: else
		fi;
		CHECK
	:: else
	fi
}

active proctype Environment()
{
	do
	:: atomic { now < HORIZON ->
		now++;
		if
		:: epoch != 0 && now >= epoch_end -> epoch = 0; epoch_end = 0
		:: else
		fi;
		CHECK }
	:: atomic { key != nothing -> clear_key(nothing) }
	:: atomic { epoch != 0 -> epoch = 0; epoch_end = 0 }
	:: atomic { stray != 0 ->
		if
		:: arrive(stray, stray_end, stray_renews)
		:: skip					/* lost */
		fi;
		stray = 0; stray_end = 0; stray_renews = false }
	:: atomic { !committed ->
		committed = true; committed_at = now; outbox = true }
	:: atomic { outbox -> outbox = false; clear_key(tombstone) }
	od
}

active proctype Worker()
{
	byte time;
	bool renews;
	bool allowed;

	do
	:: time = now;
		/* the look at the outbox, and at what the epoch key held */
		atomic {
			renews = (EPOCH != 0 && EPOCH == last);
			if
#ifdef NO_STOP
			:: allowed = true
#else
			:: allowed = (!outbox || (renews && now - committed_at <= PATIENCE))
#endif
			fi;
			if
			:: allowed && !renews && last < EPOCHS -> last++
			:: allowed && !renews && last == EPOCHS -> allowed = false
			:: else
			fi }
#ifdef TIME_LATE
		time = now;
#endif
		atomic {
			if
			:: allowed -> arrive(last, time + LIFE, renews)
			:: allowed && stray == 0 ->
				stray = last; stray_end = time + LIFE; stray_renews = renews
			:: skip
			fi;
			time = 0; renews = false; allowed = false }
	od
}

active [READERS] proctype Reader()
{
	byte my_epoch;
	bool old;

	do
	:: atomic { FREE ->
			my_epoch = epoch;
			clear_key(lease); key_nonce = _pid }
		old = !committed;
		atomic {
			if
			:: HELD ->
				key = value; key_nonce = 0; key_epoch = my_epoch; key_old = old;
				CHECK
			:: skip
			fi;
			my_epoch = 0; old = false }
	od
}
