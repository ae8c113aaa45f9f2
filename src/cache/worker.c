/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The worker that keeps a database's cache in Redis honest.
 *
 * One for each database that has the extension, while
 * session_manager.redis_mode is not off.  Unlike the workers that sweep it
 * stays connected.  So that nobody who wants to drop, rename or copy the
 * database waits for it, it looks ten times a second whether somebody holds
 * the lock that they all take, and leaves; the launcher sends another.  It
 * holds no lock and no snapshot between its transactions, which are short.
 *
 * Here is the loop, and what decides when an epoch is made: link.c has the
 * connection, epoch.c the epoch, tombstone.c sends what commits wait for, and
 * outbox.c what has been committed.  Why what they do suffices is in the
 * header of cache.c.  The rules are those of epoch.c, and:
 *
 * - Nothing is made or renewed while something waits for Redis for longer than
 *	 SM_CACHE_PATIENCE_US: a fence, a row of the outbox, an answer.
 * - No epoch is made while the outbox has a row that is committed.
 *
 * The worker never waits for the network alone, see redis.c.  An error from
 * Redis ends the connection; the next one is tried soon.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "cache/cache.h"
#include "cache/epoch.h"
#include "cache/link.h"
#include "cache/outbox.h"
#include "cache/server.h"
#include "cache/tombstone.h"
#include "cache/transaction.h"
#include "compat.h"
#include "batch.h"

PGDLLEXPORT void sm_cache_worker_main(Datum arg);

#define MS				INT64CONST(1000)	/* of sm_clock() */

#define LOOP_US			(500 * MS)	/* a turn of the loop takes this at most */
#define WAITERS_US		(100 * MS)	/* does somebody wait for the database? */
#define RETRY_US		(10 * MS)
#define FAREWELL_US		(100 * MS)

static struct
{
	MemoryContext loop_context;
	int64		look_for_waiters_at;
	bool		keys_are_heeded;	/* see keys_are_heeded() */
}			worker;

static void start_cache_worker(void);
static void worker_gone(int code, Datum arg);
pg_noreturn static void leave_database(void);
static void apply_settings(void);
static bool cache_enabled(void);
static bool someone_waits_for_database(void);
static void connect_to_redis(int64 now);
static void connection_dropped(void);
static void read_outbox(void);
static void tend_epoch(void);
static void finish_cache(void);
static void make_epoch(void);
static bool nothing_waits(void);
static bool keys_are_heeded(void);

/*
 * The worker of one database.
 */
void
sm_cache_worker_main(Datum arg)
{
	sm_batch_connect(DatumGetObjectId(arg));
	pqsignal(SIGTERM, sm_cache_handle_sigterm);
	start_cache_worker();
	apply_settings();

	for (;;)
	{
		int64		now = sm_clock();

		MemoryContextSwitchTo(worker.loop_context);
		MemoryContextReset(worker.loop_context);

		CHECK_FOR_INTERRUPTS();
		sm_link_wake_by(now + LOOP_US);
		if (ShutdownRequestPending)
			leave_database();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			apply_settings();
		}
		if (now >= worker.look_for_waiters_at)
		{
			if (someone_waits_for_database())
				leave_database();
			worker.look_for_waiters_at = now + WAITERS_US;
		}
		sm_link_wake_by(worker.look_for_waiters_at);

		connect_to_redis(now);
		sm_epoch_await_former();
		sm_tombstone_send_for_fences();
		if (sm_outbox_has_news())
			sm_outbox_read_soon();
		if (cache_enabled() && sm_clock() >= sm_outbox_read_at())
			read_outbox();
		if (cache_enabled())
			sm_link_wake_by(sm_outbox_read_at());
		tend_epoch();
		sm_link_wait();
	}
}

static void
start_cache_worker(void)
{
	char	   *database;
	bool		first;

	worker.loop_context = AllocSetContextCreate(TopMemoryContext,
												"session_manager cache worker",
												ALLOCSET_DEFAULT_SIZES);
	StartTransactionCommand();
	database = get_database_name(MyDatabaseId);
	sm_link_init(database ? database : "?", connection_dropped);
	CommitTransactionCommand();
	sm_epoch_init(sm_outbox_read_at_once);
	sm_outbox_init();

	/* a launcher that was started again does not know of its former workers */
	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	first = (sm_cache->worker == NULL);
	if (first)
	{
		sm_cache->worker = MyLatch;
		sm_cache->back_soon = false;
		sm_cache->link = SM_LINK_DOWN;
		strlcpy(sm_cache->problem, "not connected yet",
				sizeof(sm_cache->problem));
	}
	LWLockRelease(sm_shared->cache_lock);
	if (!first)
		proc_exit(0);
	before_shmem_exit(worker_gone, (Datum) 0);
	pgstat_report_activity(STATE_IDLE, NULL);
}

static void
worker_gone(int code, Datum arg)
{
	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	sm_cache->worker = NULL;
	sm_cache->link = SM_LINK_NONE;
	sm_cache->epoch_at = 0;
	LWLockRelease(sm_shared->cache_lock);
}

/*
 * Exit, ending the epoch if Redis answers at once, so that nobody has to wait
 * until it dies by itself.
 */
static void
leave_database(void)
{
	int64		until = sm_clock() + FAREWELL_US;

	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	sm_cache->back_soon = true;
	LWLockRelease(sm_shared->cache_lock);
	sm_epoch_end();
	while (sm_epoch_state() == SM_EPOCH_ENDING && sm_clock() < until)
	{
		sm_link_wake_by(until);
		sm_link_wait();
	}
	proc_exit(0);
}

/* The settings have been read, perhaps again. */
static void
apply_settings(void)
{
	sm_link_configure();
	if (!sm_cache_shard_agrees())
	{
		LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
		sm_cache->former_shard = true;
		pg_atomic_write_u64(&sm_cache->shard, sm_shard_hash);
		LWLockRelease(sm_shared->cache_lock);
		sm_epoch_want_end();
	}
	if (sm_redis_mode != SM_REDIS_OFF)
		pg_atomic_write_u32(&sm_cache->mode, sm_redis_mode);
}

/* Should there be a cache of this database? */
static bool
cache_enabled(void)
{
	return sm_redis_mode != SM_REDIS_OFF &&
		!*(volatile bool *) &sm_cache->unwanted;
}

/*
 * Whoever drops, renames, moves or copies a database excludes the lock that a
 * connection takes as it begins, and then waits for others to go.
 */
static bool
someone_waits_for_database(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	(void) LockRelease(&tag, RowExclusiveLock, true);
	return false;
}

static void
connect_to_redis(int64 now)
{
	if (!sm_link_is_open() && cache_enabled() && now >= sm_link_retry_at() &&
		sm_link_open())
	{
		sm_server_inquire();
		sm_epoch_connect();
	}
	if (!sm_link_is_open())
		sm_link_wake_by(sm_link_retry_at());
}

static void
connection_dropped(void)
{
	sm_epoch_disconnect();
	sm_outbox_forget();
}

static void
read_outbox(void)
{
	if (!sm_outbox_read())
		leave_database();		/* the extension has been dropped */
}

/* Make, renew or end an epoch, as is due. */
static void
tend_epoch(void)
{
	if (!cache_enabled())
	{
		finish_cache();
		return;
	}
	if (sm_epoch_state() == SM_EPOCH_FORMER)
		return;
	sm_server_inquire_again(sm_clock());
	if (sm_epoch_state() == SM_EPOCH_NONE)
		make_epoch();
	else
		sm_epoch_tend(nothing_waits);
}

/*
 * The cache has been disabled.  When no epoch is alive, nobody caches, and
 * writers need not care any more.
 */
static void
finish_cache(void)
{
	sm_epoch_end();
	if (!sm_epoch_is_over())
		return;
	read_outbox();
	if (!sm_outbox_is_empty())
		return;
	pg_atomic_write_u32(&sm_cache->mode, SM_REDIS_OFF);
	sm_link_log(true, psprintf("session_manager has disabled the cache for database \"%s\"",
							   sm_link_database()));
	proc_exit(0);
}

/*
 * Make an epoch, unless there is something that the next one must come after.
 */
static void
make_epoch(void)
{
	LOCKTAG		tag;
	bool		made = false;

	sm_link_wake_by(sm_clock() + RETRY_US);
	if (!nothing_waits())
		return;
	if (!sm_outbox_is_empty() || sm_outbox_has_news())
		read_outbox();
	if (!sm_outbox_is_empty() || !keys_are_heeded())
		return;
	/* whoever revokes a key holds this until everybody can know */
	sm_cache_lock_tag(&tag);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return;
	if (sm_outbox_has_news())
		/* it may have been just they, and have left something in the outbox */
		sm_link_wake_by(0);
	else
		made = sm_epoch_make();
	(void) LockRelease(&tag, ExclusiveLock, true);
	if (made)
		sm_outbox_forget();
}

/* May an epoch be made or renewed, unless a fence waits? */
static bool
nothing_waits(void)
{
	int64		now = sm_clock();

	return !sm_link_is_overdue(now) && !sm_outbox_is_overdue(now);
}

/*
 * Has every transaction that is changing session_keys begun to do so while
 * the cache was enabled?  One that began before left no record for the cache,
 * and a revoked key marks no row of a session.
 */
static bool
keys_are_heeded(void)
{
	const SmSchema *schema;

	if (worker.keys_are_heeded)
		return true;
	schema = sm_cache_start_transaction("waiting for changes of keys");
	if (schema == NULL)
		return false;
	worker.keys_are_heeded = ConditionalLockRelationOid(schema->keys, ShareLock);
	sm_cache_end_transaction();
	return worker.keys_are_heeded;
}
