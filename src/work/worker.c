/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The launcher, and a worker for each database that has the extension.
 *
 * The launcher is connected to no database.  It keeps a slot in shared memory
 * for each, and starts a worker where something is due.  A worker does one
 * pass and leaves, so that nobody who wants to drop, rename or copy the
 * database waits for long: findings of transactions that rolled back, touches
 * to be written, dead sessions, partitions, re-sealing, each in transactions
 * of its own, for PASS_MS at the most.
 *
 * While session_manager.redis_mode is not off, the launcher also keeps a worker
 * of another kind in each database that has the extension, see cache/worker.c.
 * These stay, and the server has only so many places for workers.  Where passes
 * that are due find none, caches give theirs up, one after the other: without
 * a cache sessions work, without passes the tables grow.
 *
 * Nothing runs during recovery or a binary upgrade.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "utils/varlena.h"

#include "batch.h"
#include "compat.h"
#include "guc.h"
#include "keys/keyring.h"
#include "schema.h"
#include "session/authenticate.h"
#include "session/finding.h"
#include "session/lifecycle.h"
#include "session/touch.h"
#include "shared.h"
#include "work/contain.h"
#include "work/partition.h"
#include "work/reseal.h"
#include "work/restore.h"
#include "work/sweep.h"
#include "work/worker.h"

/* How many workers are at work at once, whatever the number of databases. */
#define MAX_WORKERS		2

/* How long a pass may take, and how long a database is left alone after it. */
#define PASS_MS			1000
#define GAP_MS			200

/* How often the launcher looks for new databases, and a failed pass is retried. */
#define LOOK_MS			2000
#define RETRY_MS		3000

/* How long a database is left alone by the worker that speaks to Redis. */
#define CACHE_GAP_MS	300

/* How long passes find no place before a cache gives up its own, and how long
 * until it may try again. */
#define STARVED_MS		5000
#define PLACES_MS		(10 * 60 * 1000)

/* What DROP DATABASE sets datconnlimit to before it is past return. */
#define INVALID_DATABASE_LIMIT	(-2)

#define TOUCH_BATCH		1024

/*
 * The sweep begins anew when what it took to walk over the dead last is no
 * more than one part in so many, in a backlog every five minutes at the most.
 */
#define WALK_SHARE		20
#define SWEEP_ANEW_US	(5 * USECS_PER_MINUTE)

PGDLLEXPORT void sm_launcher_main(Datum arg);
PGDLLEXPORT void sm_worker_main(Datum arg);

/* A worker that the launcher has started. */
typedef struct Running
{
	BackgroundWorkerHandle *handle; /* NULL: none */
	Oid			database;
	int64		started_at;		/* by sm_clock() */
} Running;

/* A database that is due for a pass. */
typedef struct Due
{
	int64		since;			/* by sm_clock() */
	SmDatabase *database;
} Due;

/* A pass of a worker through its database. */
typedef struct Pass
{
	int64		started_at;		/* by sm_clock() */
	bool		full;			/* not only for findings and touches */
	bool		unfinished;
	bool		failed;			/* a step of it did, as a whole */
	bool		may_maintain;	/* full, and no dump is being restored */
	Oid			maintained;		/* the session_events of which that is true */
	bool		served;			/* the extension is there and ours */
} Pass;

/* A finding that is being carried out. */
typedef struct Carried
{
	const SmSchema *schema;
	const SmFinding *finding;
	bool		done;			/* or somebody is writing to the session */
} Carried;

/* Touches that are written together. */
typedef struct Touches
{
	const SmSchema *schema;
	const SmTouch *touches;
	bool	   *written;
	int			n;
} Touches;

static Running running[MAX_WORKERS];

/* The workers that speak to Redis, by the database's slot. */
static struct
{
	BackgroundWorkerHandle *handle; /* NULL: none */
	int64		ended_at;		/* by sm_clock() */
}			cache_workers[SM_MAX_DATABASES];

/* How many of these there may be, as far as is known, and until when. */
static int	cache_places = SM_MAX_DATABASES;
static int64 cache_places_until;	/* by sm_clock() */

/* Since when passes have found no place, by sm_clock(); 0: they find one. */
static int64 starved_since = 0;

static void launcher_gone(int code, Datum arg);
static void find_databases(List **all, List **chosen);
static bool is_chosen(const char *name);
static List *used_slots(void);
static void review_slots(List *used, List *all, List *chosen);
static void hasten_passes(void);
static void collect_workers(void);
static bool is_running(Oid database);
static void tend_caches(List *chosen, int64 now, int64 *next);
static bool start_background(const char *function, const char *type,
							 Oid database, BackgroundWorkerHandle **handle);
static int64 due_at(SmDatabase *database);
static int64 retry_gap(SmDatabase *database);
static int	compare_due(const void *a, const void *b);
static void start_passes(Due *due, int n, int64 now);
static bool start_worker(SmDatabase *database);
static void review_places(bool starved, int64 now);
static void set_place_wanted(SmDatabase *database, bool wanted);
static void worker_gone(int code, Datum arg);
static void run_pass(Pass *pass);
static void run_step(Pass *pass, SmStep step, const char *what,
					 void (*work) (Pass *pass));
static void look_for_extension(Pass *pass);
static const SmSchema *begin_batch(Pass *pass, const char *activity);
static bool pass_is_over(Pass *pass);
static void carry_out_findings(Pass *pass);
static void carry_out_one(void *arg);
static bool carry_out(const SmSchema *schema, const SmFinding *finding);
static void flush_touches(Pass *pass);
static bool write_touches(const SmSchema *schema, const SmTouch *touches,
						  bool *written, int n);
static void write_each(void *arg);
static bool write_touch(const SmSchema *schema, const SmTouch *touch);
static void look_for_restore(Pass *pass);
static void sweep_database(Pass *pass);
static void maintain_partitions(Pass *pass);
static void reseal_database(Pass *pass);

/*
 * Register the launcher.  Called once, from _PG_init.
 */
void
sm_worker_init(void)
{
	BackgroundWorker worker;

	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "session_manager", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "sm_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "session_manager launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "session_manager launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

/*
 * The launcher.
 */
void
sm_launcher_main(Datum arg)
{
	MemoryContext loop;
	bool		complained = false;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	sm_shared->launcher = MyLatch;
	LWLockRelease(sm_shared->lock);
	before_shmem_exit(launcher_gone, (Datum) 0);

	loop = AllocSetContextCreate(TopMemoryContext, "session_manager launcher",
								 ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		List	   *used;
		List	   *all;
		List	   *chosen;
		ListCell   *lc;
		Due		   *due;
		int			n_due = 0;
		int64		now;
		int64		next;

		CHECK_FOR_INTERRUPTS();
		if (ShutdownRequestPending)
			proc_exit(1);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			hasten_passes();
		}

		MemoryContextReset(loop);
		MemoryContextSwitchTo(loop);
		used = used_slots();
		find_databases(&all, &chosen);
		review_slots(used, all, chosen);
		collect_workers();
		if (list_length(chosen) > SM_MAX_DATABASES && !complained)
			ereport(LOG,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("session_manager looks after %d of %d databases",
							SM_MAX_DATABASES, list_length(chosen)),
					 errhint("Name those with the extension in \"session_manager.databases\", and restart the server.")));
		complained = list_length(chosen) > SM_MAX_DATABASES;

		(void) sm_clock_in_doubt();
		now = sm_clock();
		next = now + LOOK_MS * INT64CONST(1000);
		tend_caches(chosen, now, &next);
		due = palloc((list_length(chosen) + 1) * sizeof(Due));
		foreach(lc, chosen)
		{
			SmDatabase *database = sm_shared_slot(lfirst_oid(lc), true);
			int64		since;

			if (database == NULL || is_running(database->oid))
				continue;
			since = due_at(database);
			if (since <= now)
			{
				due[n_due].since = since;
				due[n_due++].database = database;
			}
			else
				next = Min(next, since);
		}
		start_passes(due, n_due, now);

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Max(10, (next - now) / 1000),
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/*
 * A worker: one pass through the database that the launcher names.
 */
void
sm_worker_main(Datum arg)
{
	Pass		pass = {0};

	sm_batch_connect(DatumGetObjectId(arg));
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	sm_database->worker_pid = MyProcPid;
	pass.started_at = sm_clock();
	pass.full = (sm_database->state == SM_DB_UNKNOWN ||
				 sm_database->next_pass <= pass.started_at);
	LWLockRelease(sm_shared->lock);
	before_shmem_exit(worker_gone, (Datum) 0);

	run_pass(&pass);
	proc_exit(0);
}

static void
launcher_gone(int code, Datum arg)
{
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	sm_shared->launcher = NULL;
	LWLockRelease(sm_shared->lock);
}

/* All databases, and those to look after; templates are for copying. */
static void
find_databases(List **all, List **chosen)
{
	MemoryContext caller = CurrentMemoryContext;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	*all = *chosen = NIL;
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old = MemoryContextSwitchTo(caller);

		*all = lappend_oid(*all, database->oid);
		if (database->datallowconn && !database->datistemplate &&
			database->datconnlimit != INVALID_DATABASE_LIMIT &&
			is_chosen(NameStr(database->datname)))
			*chosen = lappend_oid(*chosen, database->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
}

/* Is a database one of session_manager.databases, or is that empty? */
static bool
is_chosen(const char *name)
{
	List	   *names;
	ListCell   *lc;

	if (sm_databases[0] == '\0')
		return true;
	if (!SplitIdentifierString(pstrdup(sm_databases), ',', &names))
		return false;
	foreach(lc, names)
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	return false;
}

/* The databases that have a slot. */
static List *
used_slots(void)
{
	Oid			oids[SM_MAX_DATABASES];
	int			n = 0;
	List	   *used = NIL;

	LWLockAcquire(sm_shared->lock, LW_SHARED);
	for (int i = 0; i < SM_MAX_DATABASES; i++)
		if (OidIsValid(sm_shared->databases[i].oid))
			oids[n++] = sm_shared->databases[i].oid;
	LWLockRelease(sm_shared->lock);
	for (int i = 0; i < n; i++)
		used = lappend_oid(used, oids[i]);
	return used;
}

/*
 * Give up the slots of databases that are gone, and let the others know
 * whether workers look after them.
 *
 * A database that had a slot before the list of databases was read, and is not
 * in the list, is gone.  One that got its slot afterwards may be newer than the
 * list, and in use.
 */
static void
review_slots(List *used, List *all, List *chosen)
{
	ListCell   *lc;

	foreach(lc, used)
		if (!list_member_oid(all, lfirst_oid(lc)))
			sm_shared_free(lfirst_oid(lc));

	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SM_MAX_DATABASES; i++)
	{
		SmDatabase *database = &sm_shared->databases[i];

		if (!OidIsValid(database->oid) || database->worker_pid != 0 ||
			!list_member_oid(all, database->oid))
			continue;
		if (!list_member_oid(chosen, database->oid))
		{
			if (database->state != SM_DB_WITHOUT)
				database->state = SM_DB_NOT_CHOSEN;
		}
		else if (database->state == SM_DB_NOT_CHOSEN)
		{
			database->state = SM_DB_UNKNOWN;
			database->next_pass = 0;
		}
	}
	LWLockRelease(sm_shared->lock);
}

/* A shorter sweep_interval holds at once. */
static void
hasten_passes(void)
{
	int64		latest = sm_clock() + (int64) sm_sweep_interval * USECS_PER_SEC;

	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SM_MAX_DATABASES; i++)
		sm_shared->databases[i].next_pass = Min(sm_shared->databases[i].next_pass, latest);
	LWLockRelease(sm_shared->lock);
}

/* Look which workers have ended. */
static void
collect_workers(void)
{
	for (int i = 0; i < MAX_WORKERS; i++)
	{
		SmDatabase *database;
		pid_t		pid;

		if (running[i].handle == NULL ||
			GetBackgroundWorkerPid(running[i].handle, &pid) != BGWH_STOPPED)
			continue;
		pfree(running[i].handle);
		running[i].handle = NULL;

		database = sm_shared_slot(running[i].database, false);
		if (database == NULL)
			continue;
		LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
		database->worker_pid = 0;
		/* failed before it could say when to come again */
		if (database->last_pass < running[i].started_at)
		{
			database->last_pass_at = GetCurrentTimestamp();
			database->last_pass = sm_clock();
			database->next_pass = database->last_pass + retry_gap(database);
		}
		LWLockRelease(sm_shared->lock);
	}
}

static bool
is_running(Oid database)
{
	for (int i = 0; i < MAX_WORKERS; i++)
		if (running[i].handle != NULL && running[i].database == database)
			return true;
	return false;
}

/*
 * How long to wait after a pass that failed, or did not get to maintenance,
 * longer each time.  The lock is held.
 */
static int64
retry_gap(SmDatabase *database)
{
	int64		gap = (RETRY_MS * INT64CONST(1000)) << Min(database->failed_passes, 10);

	database->failed_passes++;
	return Min(gap, Max(RETRY_MS * INT64CONST(1000),
						(int64) sm_sweep_interval * USECS_PER_SEC));
}

/* When a database wants a worker next, by sm_clock(). */
static int64
due_at(SmDatabase *database)
{
	int64		due;
	int64		retry_at = sm_finding_retry_at(database->oid);

	LWLockAcquire(sm_shared->lock, LW_SHARED);
	due = database->next_pass;
	switch (database->state)
	{
		case SM_DB_UNKNOWN:
		case SM_DB_OTHER_VERSION:
			break;
		case SM_DB_WITHOUT:
			/* a call of a function there sets it to unknown */
		case SM_DB_NOT_CHOSEN:
			due = PG_INT64_MAX;
			break;
		case SM_DB_SERVED:
			if (pg_atomic_read_u32(&database->wanted) != 0)
				due = 0;
			else if (pg_atomic_read_u64(&database->noted) !=
					 pg_atomic_read_u64(&database->flushed))
				due = Min(due, database->last_pass +
						  (int64) sm_flush_interval * USECS_PER_SEC);
			/* one that is new is wanted at once */
			if (retry_at != 0)
				due = Min(due, retry_at);
			break;
	}
	if (database->last_pass != 0)
		due = Max(due, database->last_pass + GAP_MS * INT64CONST(1000));
	LWLockRelease(sm_shared->lock);
	return due;
}

/* The one that has waited longest comes first. */
static int
compare_due(const void *a, const void *b)
{
	int64		x = ((const Due *) a)->since;
	int64		y = ((const Due *) b)->since;

	return (x > y) - (x < y);
}

/* Start workers in databases that are due, as far as there is room for them. */
static void
start_passes(Due *due, int n, int64 now)
{
	bool		at_work = false;
	int			started = 0;

	qsort(due, n, sizeof(Due), compare_due);
	while (started < n && start_worker(due[started].database))
	{
		set_place_wanted(due[started].database, false);
		started++;
	}
	for (int i = 0; i < MAX_WORKERS; i++)
		if (running[i].handle != NULL)
			at_work = true;
	/* who is at work makes room for the next */
	for (int i = started; i < n; i++)
		set_place_wanted(due[i].database, !at_work);
	review_places(started < n && !at_work, now);
}

/* False if there is no room for a worker: the end of another wakes us. */
static bool
start_worker(SmDatabase *database)
{
	Running    *slot = NULL;

	for (int i = 0; i < MAX_WORKERS && slot == NULL; i++)
		if (running[i].handle == NULL)
			slot = &running[i];
	if (slot == NULL)
		return false;
	slot->database = database->oid;
	slot->started_at = sm_clock();
	if (start_background("sm_worker_main", "session_manager worker",
						 database->oid, &slot->handle))
		return true;
	slot->handle = NULL;
	return false;
}

/*
 * Let a cache give up its place if passes have found none for some time, and
 * let one more have a place every now and then.
 */
static void
review_places(bool starved, int64 now)
{
	int			caches = 0;

	if (cache_places < SM_MAX_DATABASES && now >= cache_places_until)
	{
		cache_places++;
		cache_places_until = now + PLACES_MS * INT64CONST(1000);
	}
	if (!starved)
	{
		starved_since = 0;
		return;
	}
	if (starved_since == 0)
		starved_since = now;
	if (now < starved_since + STARVED_MS * INT64CONST(1000))
		return;
	/* those that an earlier launcher started among them */
	LWLockAcquire(sm_shared->cache_lock, LW_SHARED);
	for (int i = 0; i < SM_MAX_DATABASES; i++)
		if (cache_workers[i].handle != NULL ||
			sm_shared->databases[i].cache.worker != NULL)
			caches++;
	LWLockRelease(sm_shared->cache_lock);
	if (caches == 0)
		return;
	cache_places = caches - 1;
	cache_places_until = now + PLACES_MS * INT64CONST(1000);
	/* it takes the cache's worker a moment to leave */
	starved_since = now;
	ereport(LOG,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("a cache of session_manager is switched off, as its worker takes a place that others need"),
			 errhint("Raise max_worker_processes.")));
}

/* Note, for session_info, whether a pass waits for a place. */
static void
set_place_wanted(SmDatabase *database, bool wanted)
{
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	if (!wanted)
		database->place_wanted_at = 0;
	else if (database->place_wanted_at == 0)
		database->place_wanted_at = sm_clock();
	LWLockRelease(sm_shared->lock);
}

/*
 * See to it that each database that may have a cache has a worker for it, and
 * that writers know.  They learn that there is no cache any more when no epoch
 * can be alive.
 */
static void
tend_caches(List *chosen, int64 now, int64 *next)
{
	int			places = cache_places;

	for (int i = 0; i < SM_MAX_DATABASES; i++)
	{
		SmDatabase *database = &sm_shared->databases[i];
		SmDatabaseState state;
		bool		wanted;
		bool		has_place = true;
		bool		present;
		pid_t		pid;
		int64		due;

		if (cache_workers[i].handle != NULL &&
			GetBackgroundWorkerPid(cache_workers[i].handle, &pid) == BGWH_STOPPED)
		{
			pfree(cache_workers[i].handle);
			cache_workers[i].handle = NULL;
			cache_workers[i].ended_at = now;
		}

		LWLockAcquire(sm_shared->lock, LW_SHARED);
		state = database->state;
		wanted = OidIsValid(database->oid) && list_member_oid(chosen, database->oid) &&
			sm_redis_mode != SM_REDIS_OFF;
		LWLockRelease(sm_shared->lock);
		if (!OidIsValid(database->oid))
			continue;
		if (wanted && state == SM_DB_SERVED)
		{
			has_place = places-- > 0;
			wanted = has_place;
		}

		LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
		present = cache_workers[i].handle != NULL || database->cache.worker != NULL;
		if (wanted && (state == SM_DB_SERVED || state == SM_DB_UNKNOWN))
			pg_atomic_write_u32(&database->cache.mode, sm_redis_mode);
		else if (!present && sm_clock() > database->cache.dead_at)
			pg_atomic_write_u32(&database->cache.mode, SM_REDIS_OFF);
		database->cache.unwanted = !wanted;
		database->cache.no_place = !has_place;
		due = cache_workers[i].ended_at +
			(database->cache.back_soon ? CACHE_GAP_MS : RETRY_MS) * INT64CONST(1000);
		if (!wanted && database->cache.worker != NULL)
			SetLatch(database->cache.worker);
		LWLockRelease(sm_shared->cache_lock);

		if (!wanted || state != SM_DB_SERVED || present)
			continue;
		if (now < due)
			*next = Min(*next, due);
		else if (!start_background("sm_cache_worker_main", "session_manager cache worker",
								   database->oid, &cache_workers[i].handle))
			cache_workers[i].handle = NULL;
	}
}

/* Start a worker in a database.  False, having said so, if none is free. */
static bool
start_background(const char *function, const char *type, Oid database,
				 BackgroundWorkerHandle **handle)
{
	static int64 complained_at = 0;
	BackgroundWorker worker;
	MemoryContext old;
	bool		started;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "session_manager", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_name, BGW_MAXLEN, "%s for database %u", type, database);
	strlcpy(worker.bgw_type, type, sizeof(worker.bgw_type));
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;

	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(old);
	if (!started &&
		(complained_at == 0 || sm_clock() > complained_at + USECS_PER_MINUTE))
	{
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker is free for session_manager"),
				 errhint("Raise max_worker_processes.")));
		complained_at = sm_clock();
	}
	return started;
}

static void
worker_gone(int code, Datum arg)
{
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	sm_database->worker_pid = 0;
	LWLockRelease(sm_shared->lock);
}

static void
run_pass(Pass *pass)
{
	int64		now;
	uint64		deleted = pg_atomic_read_u64(&sm_database->counters[SM_SWEPT]);
	uint64		requeued = pg_atomic_read_u64(&sm_database->counters[SM_REQUEUED]);

	pg_atomic_write_u32(&sm_database->wanted, 0);
	run_step(pass, SM_STEP_SWEEP, "look for itself", look_for_extension);
	run_step(pass, SM_STEP_FINDINGS, "record findings of rolled-back transactions",
			 carry_out_findings);
	run_step(pass, SM_STEP_TOUCHES, "write last-seen times", flush_touches);
	if (pass->full)
		run_step(pass, SM_STEP_SWEEP, "look for a restore", look_for_restore);
	if (pass->may_maintain)
	{
		run_step(pass, SM_STEP_SWEEP, "delete dead sessions", sweep_database);
		run_step(pass, SM_STEP_PARTITIONS, "maintain partitions of session_events",
				 maintain_partitions);
		run_step(pass, SM_STEP_RESEALING, "re-seal sessions", reseal_database);
	}
	pgstat_report_activity(STATE_IDLE, NULL);

	now = sm_clock();
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	sm_database->last_pass_at = GetCurrentTimestamp();
	sm_database->last_pass = now;
	/* what a restore or a missing key holds up is not to wait for the interval */
	if (pass->failed || (pass->full && pass->served && !pass->may_maintain))
		sm_database->next_pass = now + retry_gap(sm_database);
	else if (pass->full)
	{
		sm_database->next_pass = pass->unfinished ? now :
			now + (int64) sm_sweep_interval * USECS_PER_SEC;
		sm_database->failed_passes = 0;
	}
	if (pass->full)
	{
		sm_database->pass_us = now - pass->started_at;
		sm_database->swept = pg_atomic_read_u64(&sm_database->counters[SM_SWEPT]) - deleted;
		sm_database->requeued = pg_atomic_read_u64(&sm_database->counters[SM_REQUEUED]) - requeued;
		sm_database->unfinished = pass->unfinished;
	}
	LWLockRelease(sm_shared->lock);
}

/*
 * Take a step of a pass.  Should it fail as a whole, the others go on.
 */
static void
run_step(Pass *pass, SmStep step, const char *what, void (*work) (Pass *pass))
{
	if (!pass->served && work != look_for_extension)
		return;
	PG_TRY();
	{
		work(pass);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(TopMemoryContext);
		error = CopyErrorData();
		AbortCurrentTransaction();
		FlushErrorState();
		MemoryContextSwitchTo(TopMemoryContext);
		RESUME_INTERRUPTS();
		pass->failed = true;
		sm_failed(step, what, error);
	}
	PG_END_TRY();
}

static void
look_for_extension(Pass *pass)
{
	if (begin_batch(pass, "looking for session_manager") != NULL)
		sm_batch_end();
}

/* As sm_batch_begin, and note whether the database is to be looked after. */
static const SmSchema *
begin_batch(Pass *pass, const char *activity)
{
	const SmSchema *schema;

	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	schema = sm_batch_begin(activity);
	/* one that was made since, as by pg_restore --clean, is for the next pass */
	if (schema != NULL && pass->may_maintain && schema->events != pass->maintained)
	{
		sm_batch_end();
		pass->unfinished = true;
		schema = NULL;
	}
	pass->served = (schema != NULL);
	if (schema != NULL)
		sm_check_at_once();
	return schema;
}

/* Leave, rather than keep somebody waiting who wants the database? */
static bool
pass_is_over(Pass *pass)
{
	if (sm_clock() < pass->started_at + PASS_MS * INT64CONST(1000))
		return false;
	pass->unfinished = true;
	return true;
}

/*
 * What transactions found that rolled back: each in a transaction of its own,
 * so that no lock is held while another is waited for.
 */
static void
carry_out_findings(Pass *pass)
{
	SmFinding	finding;

	while (sm_finding_peek(MyDatabaseId, &finding))
	{
		Carried		carried = {
			.schema = begin_batch(pass, "recording findings of rolled-back transactions"),
			.finding = &finding
		};
		ErrorData  *error;

		if (carried.schema == NULL)
			break;
		error = sm_try(carry_out_one, &carried);
		if (error != NULL)
			sm_failed(SM_STEP_FINDINGS,
					  psprintf("record \"%s\" for session %s",
							   sm_event_name(finding.type),
							   DatumGetCString(DirectFunctionCall1(uuid_out,
																   UUIDPGetDatum(&finding.session_id)))),
					  error);
		sm_batch_end();
		if (error == NULL && carried.done)
			sm_finding_done(&finding);
		else
			sm_finding_later(&finding, error != NULL);
		if ((error == NULL && !carried.done) || pass_is_over(pass))
		{
			/* the next pass goes on */
			pg_atomic_write_u32(&sm_database->wanted, 1);
			break;
		}
	}
}

static void
carry_out_one(void *arg)
{
	Carried    *carried = arg;

	carried->done = carry_out(carried->schema, carried->finding);
}

/* False if somebody is writing to the session. */
static bool
carry_out(const SmSchema *schema, const SmFinding *finding)
{
	SmScan		scan;
	SmEvent		event = {.type = finding->type, .at = finding->at};
	JsonbParseState *detail = NULL;
	bool		found;

	sm_scan_by_id(&scan, schema, finding->session_id.data, RowExclusiveLock);
	found = sm_scan_next(&scan);
	if (finding->revoke)
	{
		bool		gone = !found;
		bool		locked = false;

		if (found && !scan.session.revoked)
			locked = sm_scan_lock(&scan, LockTupleNoKeyExclusive, LockWaitSkip);

		/* unless somebody has ended it since */
		if (gone || scan.session.revoked ||
			(locked &&
			 sm_session_life(schema, &scan.session, GetCurrentTimestamp()) != SM_LIFE_ACTIVE))
		{
			sm_scan_end(&scan);
			return true;
		}
		if (!locked)
		{
			sm_scan_end(&scan);
			return false;
		}
	}

	event.session_id = &finding->session_id;
	if (found)
	{
		event.user_id = scan.session.user_id;
		event.tenant_id = scan.session.tenant_id;
	}
	sm_client_restore(&finding->client, &event.client);
	if (finding->cause[0] != '\0')
	{
		detail = sm_detail_begin();
		sm_detail_cstring(&detail, "cause", finding->cause);
		sm_detail_int(&detail, "suppressed", finding->suppressed);
		event.detail = sm_detail_end(&detail);
	}
	sm_event(schema, &event);
	if (finding->revoke)
		sm_end_session(&scan, NULL, SM_EVENT_INVALIDATED,
					   cstring_to_text(sm_event_name(finding->type)));
	sm_scan_end(&scan);
	return true;
}

/* What session_get noted instead of writing it. */
static void
flush_touches(Pass *pass)
{
	uint64		noted = pg_atomic_read_u64(&sm_database->noted);
	SmTouch    *touches;
	bool	   *written;
	bool		all = true;
	bool		failed = false;
	int			position = 0;

	if (noted == pg_atomic_read_u64(&sm_database->flushed))
		return;
	touches = palloc(TOUCH_BATCH * sizeof(SmTouch));
	written = palloc(TOUCH_BATCH * sizeof(bool));
	while (position >= 0)
	{
		int			n = sm_touch_collect(MyDatabaseId, touches, TOUCH_BATCH, &position);
		const SmSchema *schema;

		if (n == 0)
			continue;
		schema = begin_batch(pass, "writing last-seen times");
		if (schema == NULL)
			break;
		/* losing these to a crash is what is promised anyway */
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		failed |= !write_touches(schema, touches, written, n);
		sm_batch_end();
		for (int i = 0; i < n; i++)
		{
			if (!written[i])
			{
				all = false;
				continue;
			}
			sm_touch_flushed(MyDatabaseId, &touches[i]);
			sm_count(SM_TOUCHES_FLUSHED);
		}
		if (position >= 0 && pass_is_over(pass))
		{
			/* the next pass, soon, finds what is left; what failed has to wait */
			if (!failed)
				pg_atomic_write_u32(&sm_database->wanted, 1);
			all = false;
			break;
		}
	}
	pfree(touches);
	pfree(written);
	if (pass->served && all)
		pg_atomic_write_u64(&sm_database->flushed, noted);
}

/*
 * Write touches all together, or one by one if that fails.  False if any has
 * failed.
 */
static bool
write_touches(const SmSchema *schema, const SmTouch *touches, bool *written, int n)
{
	Touches		all = {schema, touches, written, n};
	ErrorData  *error = sm_try(write_each, &all);
	bool		failed = false;

	if (error == NULL)
		return true;
	FreeErrorData(error);
	for (int i = 0; i < n; i++)
	{
		Touches		one = {schema, &touches[i], &written[i], 1};

		CHECK_FOR_INTERRUPTS();
		error = sm_try(write_each, &one);
		if (error == NULL)
			continue;
		failed = true;
		written[i] = false;
		sm_failed(SM_STEP_TOUCHES,
				  psprintf("write the last-seen time of session %s",
						   DatumGetCString(DirectFunctionCall1(uuid_out,
															   UUIDPGetDatum(&touches[i].session_id)))),
				  error);
	}
	return !failed;
}

static void
write_each(void *arg)
{
	Touches    *batch = arg;

	for (int i = 0; i < batch->n; i++)
		batch->written[i] = write_touch(batch->schema, &batch->touches[i]);
}

/* False if somebody is writing to the session, or its key is away: then later. */
static bool
write_touch(const SmSchema *schema, const SmTouch *touch)
{
	SmScan		scan;
	SmChanges	changes = {0};
	bool		locked = true;

	sm_scan_by_id(&scan, schema, touch->session_id.data, RowExclusiveLock);
	if (sm_scan_next(&scan) && !scan.session.revoked &&
		/* what is bound to the rest of the row takes the key */
		(locked = sm_key_present(schema, scan.session.key_id)) &&
		(locked = sm_scan_lock(&scan, LockTupleNoKeyExclusive, LockWaitSkip)) &&
		!scan.session.revoked)
	{
		bool		newer = touch->seen > scan.stored_last_seen_at;
		SmClient	client = sm_no_client;
		TimestampTz first_use;

		sm_change(&changes, Anum_last_seen_at,
				  TimestampTzGetDatum(newer ? touch->seen : scan.stored_last_seen_at));
		first_use = sm_touch_first_use(touch, scan.session.rotated_at);
		if (scan.session.rotated && first_use != 0)
			sm_change(&changes, Anum_successor_used_at,
					  TimestampTzGetDatum(first_use));
		if (newer)
			sm_client_restore(&touch->client, &client);
		sm_change_client(&changes, &client);
		sm_scan_update(&scan, &changes);
	}
	sm_scan_end(&scan);
	return locked;
}

/* Not while a dump is being restored: notes what to wait for. */
static void
look_for_restore(Pass *pass)
{
	const SmSchema *schema = begin_batch(pass, "looking for a restore");
	const char *pending;

	if (schema == NULL)
		return;
	pending = sm_restore_pending(schema);
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	strlcpy(sm_database->waits_for, pending != NULL ? pending : "",
			sizeof(sm_database->waits_for));
	LWLockRelease(sm_shared->lock);
	pass->may_maintain = (pending == NULL);
	pass->maintained = schema->events;
	sm_batch_end();
	if (pass->may_maintain)
		sm_count(SM_SWEEPS);
}

/*
 * Dead sessions, in batches with a pause between them.
 *
 * While somebody holds an old snapshot, what was deleted stays in the index,
 * and whoever starts at its beginning passes all of it again.  So a pass goes
 * on where the last one was.  What is due has a smaller sweep_at than that only
 * if somebody was at it, has written it by hand, or if the clock was set back:
 * the sweep begins anew when it has come to an end, or for a long time has not,
 * unless walking over the dead would take too large a share of its time.
 */
static void
sweep_database(Pass *pass)
{
	int64		elapsed = sm_clock() - sm_database->sweep_began_at;
	bool		anew = sm_database->sweep_from.at > GetCurrentTimestamp() ||
		(elapsed >= WALK_SHARE * sm_database->sweep_walk_us &&
		 (!sm_database->sweep_unfinished || elapsed >= SWEEP_ANEW_US));
	SmSweepPosition from = {.at = DT_NOBEGIN};
	SmSweep		sweep = {.yields = true};
	int64		batch;
	int64		done;

	if (!anew)
		from = sm_database->sweep_from;
	do
	{
		int64		began_at = sm_clock();
		const SmSchema *schema = begin_batch(pass, "deleting dead sessions");
		/* one row tells how long the way to it was, and is not waited after */
		bool		measures = anew;

		if (schema == NULL)
			return;
		batch = measures ? 1 : sm_sweep_batch;
		done = sm_sweep(schema, batch, &from, &sweep);
		sm_batch_end();
		if (measures)
		{
			sm_database->sweep_began_at = began_at;
			sm_database->sweep_walk_us = sm_clock() - began_at;
			anew = false;
		}
		/* still the beginning if nothing was due */
		sm_database->sweep_from = from;
		sm_database->sweep_unfinished = (done == batch);
		if (done == batch && !measures && sm_sweep_pause > 0)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 sm_sweep_pause, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
	} while (done == batch && !pass_is_over(pass));
}

static void
maintain_partitions(Pass *pass)
{
	SmPartitionWork work = {0};
	bool		more;

	do
	{
		const SmSchema *schema = begin_batch(pass, "maintaining partitions of session_events");

		if (schema == NULL)
			return;
		/* a crash may undo a step, which is then done again */
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		more = sm_partitions_step(schema, PG_INT64_MAX, &work);
		sm_batch_end();
	} while (more && !pass_is_over(pass));
}

/* Seals under keys that are no longer the active one. */
static void
reseal_database(Pass *pass)
{
	bool		done = false;

	while (!done && !pass_is_over(pass))
	{
		const SmSchema *schema = begin_batch(pass, "re-sealing sessions under the active key");

		if (schema == NULL)
			return;
		done = sm_reseal_step(schema);
		sm_batch_end();
	}
}
