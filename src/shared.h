/*-------------------------------------------------------------------------
 *
 * shared.h
 *	  Shared memory: what backends and workers know of each database.
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

#include "stats.h"

#define SM_MAX_DATABASES 1024

typedef enum SmDatabaseState
{
	SM_DB_UNKNOWN,				/* not looked at yet */
	SM_DB_WITHOUT,				/* does not have the extension */
	SM_DB_SERVED,
	SM_DB_OTHER_VERSION,		/* of the extension than the library's */
	SM_DB_NOT_CHOSEN			/* not to be looked after */
} SmDatabaseState;

/* A database.  All but the atomics is guarded by SmShared's lock. */
typedef struct SmDatabase
{
	Oid			oid;			/* InvalidOid: the slot is free */
	SmDatabaseState state;
	int			worker_pid;		/* 0 while no worker is in it */

	/* the last pass of a worker */
	TimestampTz last_pass_at;
	TimestampTz next_pass_at;
	int64		pass_us;
	int64		swept;			/* sessions deleted in it */
	int64		requeued;
	bool		unfinished;		/* there was more to do */

	/* re-sealing under the active key */
	int32		reseal_key;		/* 0: nothing to do */
	int64		resealed;		/* for that key, ever */
	int64		resealed_in_round;
	uint8		reseal_after[16];

	pg_atomic_uint32 wanted;	/* verdicts wait for a worker */
	pg_atomic_uint64 noted;		/* touches noted, ever */
	pg_atomic_uint64 flushed;	/* of these, as of the last flush */
	TimestampTz stats_reset;
	pg_atomic_uint64 counters[SM_N_COUNTERS];
} SmDatabase;

typedef struct SmShared
{
	LWLock	   *lock;
	LWLock	   *verdict_lock;
	Latch	   *launcher;		/* NULL while there is none */
	SmDatabase	databases[SM_MAX_DATABASES];
} SmShared;

/* NULL unless the library was preloaded */
extern SmShared *sm_shared;

/* this backend's database in it, or NULL */
extern SmDatabase *sm_database;

extern void sm_shared_init(void);
extern void sm_shared_attach(void);
extern SmDatabase *sm_shared_slot(Oid oid, bool create);
extern void sm_shared_free(SmDatabase *database);
extern void sm_shared_wake(void);

extern bool sm_worker_comes(void);

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
