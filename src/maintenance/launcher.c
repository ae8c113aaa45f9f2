/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The launcher, which starts workers in the databases that have the
 *	  extension.
 *
 * It is connected to no database.  It keeps a slot in shared memory for each,
 * and starts a worker where something is due, which does one pass and leaves,
 * see worker.c.
 *
 * While session_manager.redis_mode is not off, the launcher also keeps a
 * worker of another kind in each database that has the extension, see
 * cache/worker.c.  These stay, and the server has only so many places for
 * workers.  Where passes that are due find none, caches give theirs up, one
 * after the other: without a cache sessions work, without passes the tables
 * grow.
 *
 * Nothing runs during recovery or a binary upgrade.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "cache/cache.h"
#include "compat.h"
#include "guc.h"
#include "maintenance/launcher.h"
#include "maintenance/pass.h"
#include "session/finding.h"
#include "shared.h"

/* How many workers are at work at once, whatever the number of databases. */
#define MAX_WORKERS		2

/* How long a database is left alone after a pass. */
#define GAP_MS			200

/* How often the launcher looks for new databases. */
#define LOOK_MS			2000

/*
 * How long a database is left alone by the worker that speaks to Redis: after
 * it made way for somebody, and otherwise.
 */
#define CACHE_GAP_MS	300
#define CACHE_RETRY_MS	3000

/* How long passes find no place before a cache gives up its own, and how long
 * until it may try again. */
#define STARVED_MS		5000
#define PLACES_MS		(10 * 60 * 1000)

/* What DROP DATABASE sets datconnlimit to before it is past return. */
#define INVALID_DATABASE_LIMIT	(-2)

PGDLLEXPORT void sm_launcher_main(Datum arg);

/* A worker that the launcher has started. */
typedef struct Running
{
	BackgroundWorkerHandle *handle; /* NULL: none */
	Oid			database;
	int64		started_at;		/* by sm_clock() */
} Running;

/* A worker that speaks to Redis. */
typedef struct CacheWorker
{
	BackgroundWorkerHandle *handle; /* NULL: none */
	int64		ended_at;		/* by sm_clock() */
} CacheWorker;

/* A database that is due for a pass. */
typedef struct Due
{
	int64		since;			/* by sm_clock() */
	SmDatabase *database;
} Due;

/* What the launcher knows; times are by sm_clock(). */
static struct
{
	Running		running[MAX_WORKERS];
	CacheWorker cache_workers[SM_MAX_DATABASES];	/* by the database's slot */
	int			cache_places;	/* how many of these there may be */
	int64		cache_places_until; /* when there may be one more */
	int64		starved_since;	/* passes find no place; 0: they find one */
	int64		complained_at;	/* that there is no place */
	bool		complained_of_number;	/* of databases */
}			launcher = {.cache_places = SM_MAX_DATABASES};

static void launcher_gone(int code, Datum arg);
static int64 look_around(void);
static void complain_of_number(int n);
static void find_databases(List **all, List **chosen);
static bool is_chosen(const char *name);
static List *used_slots(void);
static void review_slots(List *used, List *all, List *chosen);
static void hasten_passes(void);
static void collect_workers(void);
static bool is_running(Oid database);
static void tend_caches(List *chosen, int64 now, int64 *next);
static void collect_cache_worker(CacheWorker *worker, int64 now);
static bool tell_cache(SmDatabase *database, const CacheWorker *worker,
					   SmDatabaseState state, bool wanted, bool has_place,
					   int64 *due);
static bool start_background(const char *function, const char *type,
							 Oid database, BackgroundWorkerHandle **handle);
static int64 due_at(SmDatabase *database);
static int	compare_due(const void *a, const void *b);
static void start_passes(Due *due, int n, int64 now);
static bool start_worker(SmDatabase *database);
static void review_places(bool starved, int64 now);
static void set_place_wanted(SmDatabase *database, bool wanted);

/*
 * Register the launcher.  Called once, from _PG_init.
 */
void
sm_launcher_init(void)
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
		next = look_around();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Max(10, (next - sm_clock()) / 1000),
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/*
 * Look at every database, and start the workers that are due.  Returns when to
 * look again, by sm_clock().
 */
static int64
look_around(void)
{
	List	   *used = used_slots();
	List	   *all;
	List	   *chosen;
	ListCell   *lc;
	Due		   *due;
	int			n_due = 0;
	int64		now;
	int64		next;

	find_databases(&all, &chosen);
	review_slots(used, all, chosen);
	collect_workers();
	complain_of_number(list_length(chosen));

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
	return next;
}

/* Say so, once, if there are more databases than slots. */
static void
complain_of_number(int n)
{
	if (n > SM_MAX_DATABASES && !launcher.complained_of_number)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("session_manager serves only %d of %d databases",
						SM_MAX_DATABASES, n),
				 errhint("List the databases that have the extension in \"session_manager.databases\", and restart the server.")));
	launcher.complained_of_number = n > SM_MAX_DATABASES;
}

static void
launcher_gone(int code, Datum arg)
{
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	sm_shared->launcher = NULL;
	LWLockRelease(sm_shared->lock);
}

/* All databases, and those to serve; templates are for copying. */
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
 * in the list, is gone.  One that got its slot afterwards may be newer than
 * the list, and in use.
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

		if (launcher.running[i].handle == NULL ||
			GetBackgroundWorkerPid(launcher.running[i].handle, &pid) != BGWH_STOPPED)
			continue;
		pfree(launcher.running[i].handle);
		launcher.running[i].handle = NULL;

		database = sm_shared_slot(launcher.running[i].database, false);
		if (database == NULL)
			continue;
		LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
		database->worker_pid = 0;
		/* failed before it could say when to come again */
		if (database->last_pass < launcher.running[i].started_at)
		{
			database->last_pass_at = GetCurrentTimestamp();
			database->last_pass = sm_clock();
			database->next_pass = database->last_pass + sm_pass_retry_gap(database);
		}
		LWLockRelease(sm_shared->lock);
	}
}

static bool
is_running(Oid database)
{
	for (int i = 0; i < MAX_WORKERS; i++)
		if (launcher.running[i].handle != NULL && launcher.running[i].database == database)
			return true;
	return false;
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
		case SM_DB_OLDER_VERSION:
		case SM_DB_NEWER_VERSION:
			break;
		case SM_DB_WITHOUT:
			/* a call of a function there sets it to unknown */
		case SM_DB_NOT_CHOSEN:
			due = PG_INT64_MAX;
			break;
		case SM_DB_SERVED:
			if (pg_atomic_read_u32(&database->wanted) != 0)
				due = 0;
			else if (pg_atomic_read_u64(&database->recorded) !=
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

/*
 * Start workers in databases that are due, as far as there is room for them.
 */
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
		if (launcher.running[i].handle != NULL)
			at_work = true;
	/* a worker that is running makes room for the next */
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
		if (launcher.running[i].handle == NULL)
			slot = &launcher.running[i];
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

	if (launcher.cache_places < SM_MAX_DATABASES && now >= launcher.cache_places_until)
	{
		launcher.cache_places++;
		launcher.cache_places_until = now + PLACES_MS * INT64CONST(1000);
	}
	if (!starved)
	{
		launcher.starved_since = 0;
		return;
	}
	if (launcher.starved_since == 0)
		launcher.starved_since = now;
	if (now < launcher.starved_since + STARVED_MS * INT64CONST(1000))
		return;
	/* those that an earlier launcher started among them */
	LWLockAcquire(sm_shared->cache_lock, LW_SHARED);
	for (int i = 0; i < SM_MAX_DATABASES; i++)
		if (launcher.cache_workers[i].handle != NULL ||
			sm_cache_of(&sm_shared->databases[i])->worker != NULL)
			caches++;
	LWLockRelease(sm_shared->cache_lock);
	if (caches == 0)
		return;
	launcher.cache_places = caches - 1;
	launcher.cache_places_until = now + PLACES_MS * INT64CONST(1000);
	/* it takes the cache's worker a moment to leave */
	launcher.starved_since = now;
	ereport(LOG,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("disabling a cache of session_manager because other workers need its place"),
			 errhint("Raise max_worker_processes.")));
}

/* Record, for session_info, whether a pass waits for a place. */
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
	int			places = launcher.cache_places;

	for (int i = 0; i < SM_MAX_DATABASES; i++)
	{
		SmDatabase *database = &sm_shared->databases[i];
		CacheWorker *worker = &launcher.cache_workers[i];
		SmDatabaseState state;
		bool		wanted;
		bool		has_place = true;
		int64		due;

		collect_cache_worker(worker, now);
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
		if (tell_cache(database, worker, state, wanted, has_place, &due) ||
			!wanted || state != SM_DB_SERVED)
			continue;
		if (now < due)
			*next = Min(*next, due);
		else if (!start_background("sm_cache_worker_main", "session_manager cache worker",
								   database->oid, &worker->handle))
			worker->handle = NULL;
	}
}

/* Look whether a database's cache worker has ended. */
static void
collect_cache_worker(CacheWorker *worker, int64 now)
{
	pid_t		pid;

	if (worker->handle != NULL &&
		GetBackgroundWorkerPid(worker->handle, &pid) == BGWH_STOPPED)
	{
		pfree(worker->handle);
		worker->handle = NULL;
		worker->ended_at = now;
	}
}

/*
 * Let writers and the cache's worker know whether there may be a cache.  True
 * if there is a worker; otherwise *due is when one may be started.
 */
static bool
tell_cache(SmDatabase *database, const CacheWorker *worker, SmDatabaseState state,
		   bool wanted, bool has_place, int64 *due)
{
	SmCache    *cache = sm_cache_of(database);
	bool		present;

	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	present = worker->handle != NULL || cache->worker != NULL;
	if (wanted && (state == SM_DB_SERVED || state == SM_DB_UNKNOWN))
		pg_atomic_write_u32(&cache->mode, sm_redis_mode);
	else if (!present && sm_clock() > cache->dead_at)
		pg_atomic_write_u32(&cache->mode, SM_REDIS_OFF);
	cache->unwanted = !wanted;
	cache->no_place = !has_place;
	*due = worker->ended_at +
		(cache->back_soon ? CACHE_GAP_MS : CACHE_RETRY_MS) * INT64CONST(1000);
	if (!wanted && cache->worker != NULL)
		SetLatch(cache->worker);
	LWLockRelease(sm_shared->cache_lock);
	return present;
}

/* Start a worker in a database.  False, having said so, if none is free. */
static bool
start_background(const char *function, const char *type, Oid database,
				 BackgroundWorkerHandle **handle)
{
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
		(launcher.complained_at == 0 || sm_clock() > launcher.complained_at + USECS_PER_MINUTE))
	{
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker is free for session_manager"),
				 errhint("Raise max_worker_processes.")));
		launcher.complained_at = sm_clock();
	}
	return started;
}
