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

#include "counters.h"

#define SM_MAX_DATABASES 1024

typedef enum SmDatabaseState
{
	SM_DB_UNKNOWN,				/* not looked at yet */
	SM_DB_WITHOUT,				/* does not have the extension */
	SM_DB_SERVED,
	SM_DB_OLDER_VERSION,		/* the extension is older than the library */
	SM_DB_NEWER_VERSION,
	SM_DB_NOT_CHOSEN			/* workers do not serve it */
} SmDatabaseState;

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
	pg_atomic_uint64 hurry;		/* when somebody waited for it, by sm_clock() */
	pg_atomic_uint64 recorded;	/* touches recorded, ever */
	pg_atomic_uint64 flushed;	/* of these, as of the last flush */
	TimestampTz stats_reset;
	pg_atomic_uint64 counters[SM_N_COUNTERS];
} SmDatabase;

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
	/* a database gets its slot, for which there is a share of zeroes */
	void		(*init) (void *share);
	/* this process has found its database's slot */
	void		(*attach) (void *share);
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
extern bool sm_shared_find_database(void);
extern void sm_shared_attach(void);
extern SmDatabase *sm_shared_slot(Oid oid, bool create);
extern void sm_shared_free(Oid oid);
extern void sm_shared_wake(void);
extern void sm_shared_hurry(void);
extern bool sm_shared_in_a_hurry(void);

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
