/*
 * async.pml
 *	  The cache protocol of docs/cache-protocol.md with redis_mode = async: the
 *	  bound on how long a change can go unnoticed.
 *
 * Time is explicit here, in steps of half a second, as ages and as what is left
 * of lifetimes, so that it can go on for ever.  One session, one change of it
 * at any time, READERS readers that fill the cache, the worker and Redis.  The
 * property: from BOUND after the change has committed, Redis holds nothing
 * from before it that a reader may use.
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
 *	TIGHT		hope for half a second less: the bound is not a loose one
 */
#ifndef READERS
#define READERS	2
#endif
#define LIFE	4			/* of the epoch: 2 s */
#define PATIENCE 2			/* with an undelivered row: 1 s; the worker is stricter */
#ifdef TIGHT
#define BOUND	(LIFE + PATIENCE - 1)
#else
#define BOUND	(LIFE + PATIENCE)
#endif
#ifndef EPOCHS
#define EPOCHS	2
#endif

mtype = { nothing, lease, value, tombstone };

/* Redis */
mtype key = nothing;
byte key_nonce = 0;
byte key_epoch = 0;
bool key_old = false;		/* the value is from before the change */
byte epoch = 0;				/* 0: no such key */
byte epoch_left = 0;		/* of its life */

/* PostgreSQL */
bool committed = false;
byte age = 0;				/* of the change, BOUND at most */
bool outbox = false;

/* on its way: an epoch to publish or to renew, and what is left of its life */
byte stray = 0;
byte stray_left = 0;
bool stray_renews = false;

/* the worker */
byte last = 0;				/* epoch published last */
byte time_age = 0;			/* of what Redis's clock said, LIFE at most */

#ifdef NO_EPOCH
#define COUNTS	(key == value)
#define FREE	(key == nothing)
#else
#define COUNTS	(key == value && epoch != 0 && key_epoch == epoch)
#define FREE	(epoch != 0 && (key == nothing || (key == value && key_epoch != epoch)))
#endif
#ifdef BLIND_FILL
#define HELD	true
#else
#define HELD	(key == lease && key_nonce == _pid)
#endif
#define CHECK	assert(!(COUNTS && key_old && age >= BOUND))

inline put_key(to)
{
	key = to; key_nonce = 0; key_epoch = 0; key_old = false
}

inline end_epoch()
{
	epoch = 0; epoch_left = 0
}

/* a publication or renewal reaches Redis; renewals are compare-and-set */
inline arrive(id, left, renews)
{
	if
	:: !renews || epoch == id ->
#ifdef RELATIVE
		epoch = id;
		epoch_left = LIFE;
#else
		if
		:: left > 0 -> epoch = id; epoch_left = left
		:: left == 0 -> end_epoch()
		fi;
#endif
		CHECK
	:: else
	fi
}

active proctype Environment()
{
	do
	/* half a second */
	:: atomic { true ->
		if
		:: epoch_left > 1 -> epoch_left--
		:: epoch_left == 1 -> end_epoch()
		:: else
		fi;
		if
		:: stray_left > 0 -> stray_left--
		:: else
		fi;
		if
		:: time_age < LIFE -> time_age++
		:: else
		fi;
		if
		:: committed && age < BOUND -> age++
		:: else
		fi;
		CHECK }
	:: atomic { key != nothing -> put_key(nothing) }
	:: atomic { epoch != 0 -> end_epoch() }
	:: atomic { stray != 0 ->
		if
		:: arrive(stray, stray_left, stray_renews)
		:: skip					/* lost */
		fi;
		stray = 0; stray_left = 0; stray_renews = false }
	:: atomic { !committed -> committed = true; outbox = true }
	:: atomic { outbox -> outbox = false; put_key(tombstone) }
	od
}

active proctype Worker()
{
	bool renews;
	bool allowed;

	do
	:: time_age = 0;
		/* the look at the outbox, and at what the epoch key holds */
		atomic {
			renews = (epoch != 0 && epoch == last);
#ifdef NO_STOP
			allowed = true;
#else
			allowed = (!outbox || (renews && age <= PATIENCE));
#endif
			if
			:: allowed && !renews && last < EPOCHS -> last++
			:: allowed && !renews && last == EPOCHS -> allowed = false
			:: else
			fi }
#ifdef TIME_LATE
		time_age = 0;
#endif
		atomic {
			if
			:: allowed -> arrive(last, LIFE - time_age, renews)
			:: allowed && stray == 0 ->
				stray = last; stray_left = LIFE - time_age; stray_renews = renews
			:: true
			fi;
			time_age = LIFE; renews = false; allowed = false }
	od
}

active [READERS] proctype Reader()
{
	byte my_epoch;
	bool old;

	do
	:: atomic { FREE ->
			my_epoch = epoch;
			put_key(lease); key_nonce = _pid }
		old = !committed;
		atomic {
			if
			:: HELD ->
				key = value; key_nonce = 0; key_epoch = my_epoch; key_old = old;
				CHECK
			:: true
			fi;
			my_epoch = 0; old = false }
	od
}
