/*-------------------------------------------------------------------------
 *
 * shared.h
 *	  Shared memory: a slot for each database, a clock, and the parts that
 *	  other files keep in it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_SHARED_H
#define SM_SHARED_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/uuid.h"

#include "counters.h"

#define SM_MAX_DATABASES 1024

typedef enum SmDatabaseState
{
	SM_DB_UNKNOWN,				/* not looked at yet */
	SM_DB_WITHOUT,				/* does not have the extension */
	SM_DB_SERVED,
	SM_DB_OTHER_VERSION,		/* of the extension than the library's */
	SM_DB_NOT_CHOSEN			/* workers do not serve it */
} SmDatabaseState;

/*
 * An epoch lives two seconds in Redis from the moment it is asked for, and
 * rounding and what a clock may be off add less than a tenth of one.
 */
#define SM_EPOCH_MS		2000
#define SM_EPOCH_MAX_US	INT64CONST(2100000)

/* What the worker that speaks to Redis says of its connection. */
typedef enum SmLinkState
{
	SM_LINK_NONE,				/* no worker yet */
	SM_LINK_DOWN,
	SM_LINK_WAITING,			/* until the last epoch is dead for certain */
	SM_LINK_UP
} SmLinkState;

/*
 * The cache of a database's sessions.  All but the atomics is guarded by
 * SmShared's cache_lock.
 */
typedef struct SmCache
{
	pg_atomic_uint32 mode;		/* SmRedisMode, as writers are to heed it */
	uint8		installation[16];	/* names the epoch's key */
	int64		dead_at;		/* no epoch lives past this, by sm_clock() */
	Latch	   *worker;			/* NULL while there is none */
	bool		unwanted;		/* the worker is to go */
	bool		no_place;		/* for a worker: others need it */
	bool		back_soon;		/* it went so as to be in nobody's way */
	pg_atomic_uint32 commits;	/* that left something in the outbox */

	/* for session_info */
	SmLinkState link;
	char		problem[192];	/* why the connection is down */
	char		server[192];	/* what is known of the Redis server */
	char		warnings[256];	/* what about it endangers the cache */
	TimestampTz linked_at;
	TimestampTz epoch_at;		/* 0: no epoch */
	int64		restarts;		/* times that another Redis server was met */
} SmCache;

/* A database.  All but the atomics is guarded by SmShared's lock. */
typedef struct SmDatabase
{
	Oid			oid;			/* InvalidOid: the slot is free */
	SmDatabaseState state;
	int			worker_pid;		/* 0 while no worker is in it */

	/* the last pass of a worker */
	TimestampTz last_pass_at;	/* to be shown; 0: none yet */
	int64		last_pass;		/* by sm_clock() */
	int64		next_pass;		/* by sm_clock(); 0: at once */
	int64		pass_us;
	int64		swept;			/* sessions deleted in it */
	int64		requeued;
	bool		unfinished;		/* there was more to do */
	int64		place_wanted_at;	/* by sm_clock(); 0: no pass waits for one */
	int			failed_passes;	/* in a row */

	pg_atomic_uint32 wanted;	/* findings wait for a worker */
	pg_atomic_uint64 noted;		/* touches noted, ever */
	pg_atomic_uint64 flushed;	/* of these, as of the last flush */
	SmCache		cache;
	TimestampTz stats_reset;
	pg_atomic_uint64 counters[SM_N_COUNTERS];
} SmDatabase;

/* How many commits may wait for Redis at once, and sessions for one. */
#define SM_FENCES		256
#define SM_FENCE_IDS	60

/* Names one use of a place among the fences. */
typedef struct SmFenceTicket
{
	int			place;
	uint64		number;			/* never the same again */
} SmFenceTicket;

/* What a commit wants from Redis. */
typedef struct SmFence
{
	SmFenceTicket ticket;
	int			n;				/* of ids; -1: all sessions, the epoch must
								 * end */
	pg_uuid_t	ids[SM_FENCE_IDS];
} SmFence;

typedef enum SmFenceState
{
	SM_FENCE_FREE,
	SM_FENCE_WANTED,
	SM_FENCE_SENT,
	SM_FENCE_OPEN
} SmFenceState;

/* Where it waits.  Guarded by SmShared's cache_lock. */
typedef struct SmFencePlace
{
	SmFenceState state;
	Oid			database;
	int64		since;			/* by sm_clock() */
	Latch	   *owner;
	SmFence		fence;
} SmFencePlace;

/* What the wall clock is believed to show.  Guarded by SmShared's lock. */
typedef struct SmWallClock
{
	int64		offset;			/* from sm_clock() */
	int64		jump;			/* what it has jumped by, if in doubt */
	int64		doubted_since;	/* by sm_clock(); 0: not in doubt */
} SmWallClock;

typedef struct SmShared
{
	LWLock	   *lock;
	LWLock	   *cache_lock;
	Latch	   *launcher;		/* NULL while there is none */
	uint64		fence_number;	/* of the last ticket */
	SmFencePlace fences[SM_FENCES];
	int64		started_at;		/* by sm_clock() */
	SmWallClock wall_clock;
	SmDatabase	databases[SM_MAX_DATABASES];
} SmShared;

/*
 * A part of shared memory that belongs to the file which registers it: of a
 * size that "size" tells, or so many bytes for each database, zeroed when a
 * database gets its slot.
 */
typedef struct SmSharedPart
{
	const char *name;			/* of the memory, and of the tranche of locks */
	Size		(*size) (void);
	Size		per_database;	/* if there is no "size" */
	int			n_locks;
	/* called in every process; found: another one has filled the memory */
	void		(*start) (bool found);
	/* a database is gone */
	void		(*forget) (Oid database);
	/* across a clean restart; false if the file cannot be written or read */
	bool		(*save) (FILE *file);
	bool		(*load) (FILE *file);
	Size		saved_size;		/* changes with what "save" writes */

	/* set by shared.c; NULL unless the library was preloaded */
	void	   *memory;
	LWLockPadded *locks;
} SmSharedPart;

/* NULL unless the library was preloaded */
extern SmShared *sm_shared;

/* this backend's database in it, or NULL */
extern SmDatabase *sm_database;

extern void sm_shared_init(void);
extern void sm_shared_register(SmSharedPart *part);
extern void sm_shared_attach(void);
extern SmDatabase *sm_shared_slot(Oid oid, bool create);
extern void sm_shared_free(Oid oid);
extern void sm_shared_wake(void);

/* clock.c */
extern int64 sm_clock(void);
extern void sm_clock_startup(void);
extern bool sm_clock_in_doubt(void);

extern bool sm_worker_comes(void);

/* A database's share of a part that has one for each. */
static inline void *
sm_shared_of(const SmSharedPart *part, const SmDatabase *database)
{
	return (char *) part->memory +
		(database - sm_shared->databases) * part->per_database;
}

/* Count something that happened in this database. */
static inline void
sm_count_many(SmCounter counter, uint64 n)
{
	if (sm_database != NULL)
		pg_atomic_fetch_add_u64(&sm_database->counters[counter], (int64) n);
}

static inline void
sm_count(SmCounter counter)
{
	sm_count_many(counter, 1);
}

#endif							/* SM_SHARED_H */
