/*-------------------------------------------------------------------------
 *
 * cache.c
 *	  A cache of sessions in Redis that serves none that has been changed: how
 *	  it works and why, and the state that its parts share.
 *
 * Applications cache sessions, because only they hold tokens; see
 * docs/cache-protocol.md for what they do.  A value in the cache counts only
 * while the epoch that it was stored under is the one in Redis.  The
 * database's cache worker makes epochs, keeps them alive for two seconds at a
 * time, and writes tombstones over values.  Transactions that change sessions
 * do this:
 *
 * - Whatever changes what session_get returns is recorded, once it is in the
 *	 table: by store.c for the extension's own writes, by triggers for
 *	 everybody else's.  A record too many is harmless, so a rollback to a
 *	 savepoint takes none back.  columns.c says which changes these are.
 * - Before the commit, if an epoch may be alive, the records become rows of
 *	 session_outbox, which the worker acts on when it sees them committed
 *	 (writer.c, outbox.c).
 * - In strict mode the transaction then waits until the worker has tombstones
 *	 in Redis for its sessions, or until no epoch can be alive (fence.c).
 * - A transaction that changes more than SM_CACHE_MAX_IDS sessions, or changes
 *	 what many mean (TRUNCATE, a key revoked), asks for the end of the epoch
 *	 instead.
 *
 * Why no reader is served the old content once the transaction has returned:
 *
 * 1. A reader stores a value only over its own lease, which it took before it
 *	  asked PostgreSQL, and under the epoch of the lease.
 * 2. session_get says "cacheable" of a row only if no transaction that is
 *	  still in progress has stamped it.  Rows are stamped before they are
 *	  recorded.  So a reader that asked after the fence began stores nothing of
 *	  what we changed, whatever becomes of tombstones and epochs meanwhile:
 *	  eviction, FLUSHALL and expired tombstones lose nothing.
 * 3. What a reader stored, or had a lease to store, before that: either a
 *	  tombstone has overwritten the value or the lease, on the connection that
 *	  the epoch was made on, so after it; or the epoch is dead.  A dead epoch
 *	  never comes back: each has a fresh random id, is renewed only while Redis
 *	  still has it, and carries an absolute end by the clock of Redis, so that
 *	  a delayed packet cannot make it longer.
 * 4. An epoch's end is known here without asking anybody: dead_at in shared
 *	  memory, by a clock that cannot be set, is moved *before* a renewal is
 *	  sent, and lies SM_EPOCH_MAX_US after.  So it holds when the worker is
 *	  killed, hangs, or was never there.  Shared memory that is initialized
 *	  again begins with dead_at that far ahead, for the epoch of a server that
 *	  crashed a moment ago.
 * 5. So that this wait ends, the worker renews and makes nothing while a fence
 *	  is older than SM_CACHE_PATIENCE_US: no epoch is alive 2.35 seconds after
 *	  the fence began, so a commit waits for 2.4 seconds at most.
 * 6. A new connection makes its first epoch when dead_at is over.  So nothing
 *	  that is still under way on an old one, nor another Redis server that has
 *	  taken the place of the first, knows an epoch that lives.
 * 7. Without a live epoch nothing has to be recorded in Redis: the next epoch is
 *	  another.  Then no row is left in the outbox and nobody waits, so an
 *	  outage of Redis costs revocations 2.4 seconds at most, once, and no
 *	  space.
 * 8. A revoked key changes no session's row, so 2 does not hold for it.  Such
 *	  a transaction holds the cache's lock until its end, which is after all
 *	  backends can know of it; the worker makes an epoch only while it holds
 *	  that lock exclusively, so none begins before that end.
 * 9. A mode may be switched on while transactions run that saw it off: they
 *	  had stamped their rows when they looked, see sm_cache_session_changed,
 *	  which was before the first epoch; the worker waits for those that revoke
 *	  keys.
 *
 * 10. Other buckets may be revoked elsewhere, where nobody tells this worker.
 *	  So a changed setting "shard" ends the epoch, and from before the next
 *	  one session_get says "cacheable" only where it goes by the new setting.
 *	  session_info's cache_shard tells when nothing older is served, which is
 *	  when another server may take buckets over.
 * 11. Servers may share a Redis by mistake, and copies of a server the ids of
 *	  their sessions.  A value counts under one epoch, a server publishes its
 *	  own under a random name, and a reader fills a value only if the row names
 *	  the installation whose epoch its lease is of.
 *
 * What becomes of a crash or a cut connection at each step:
 *
 * - Rows stamped, nothing told: the transaction aborts, the values are right.
 * - Outbox filled, fence requested: the same, and at worst tombstones too
 *	 many, for a minute.
 * - The worker is killed while somebody waits: the server restarts, 4.  It
 *	 ends, hangs or is cut off, Redis is paused, killed, or refuses to write:
 *	 dead_at ends the wait, and 6 the epoch.  Redis restarts empty: the same,
 *	 as the connection is gone.
 * - Acknowledged, not committed: the tombstone is evicted, flushed, or expires
 *	 while the commit waits for a standby: 2.  A crash either aborts the
 *	 transaction or leaves values that were overwritten.
 * - Committed, before the worker has sent tombstones again: the outbox
 *	 survives, the epoch does not, and the worker makes the next one when the
 *	 outbox is empty.  In async mode this is when values go, or their epoch
 *	 dies.
 * - dead_at moved, the renewal not sent: somebody waits for longer than
 *	 needed.
 * - A renewal or a new epoch is sent, and delayed or its answer lost: dead_at
 *	 allows for it, its end is absolute, a renewal expects its own id.
 * - The deletion of an epoch is sent and not answered: dead_at.
 *
 * What remains: a Redis that comes back with old content while an epoch in it
 * is alive (a lagging replica that is promoted, a snapshot that is restored),
 * for the rest of that life; and clocks of Redis that are set back.
 * docs/deployment.md says how to avoid both.
 *
 * Async mode leaves out the wait, and so bounds staleness: the worker stops
 * renewing when a row has waited for SM_CACHE_PATIENCE_US.
 *
 * Locks: cache_lock for the fences and the state of the cache.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#include "cache/cache.h"
#include "keys/crypto.h"

/* Of advisory locks, beside those of locks.c: the cache has one of its own. */
#define CACHE_LOCK_SPACE	0x5350

SmCache    *sm_cache = NULL;

static void init_cache(void *share);
static void attach_cache(void *share);

static SmSharedPart cache_part = {
	.name = "session_manager_cache",
	.per_database = sizeof(SmCache),
	.init = init_cache,
	.attach = attach_cache
};

/*
 * Have the state of caches kept in shared memory.  Called once, from _PG_init.
 */
void
sm_cache_init(void)
{
	sm_shared_register(&cache_part);
}

static void
init_cache(void *share)
{
	SmCache    *cache = share;

	pg_atomic_init_u32(&cache->mode, sm_redis_mode);
	pg_atomic_init_u32(&cache->commits, 0);
	pg_atomic_init_u64(&cache->shard, sm_shard_hash);
	/* the server may have crashed a moment ago, and left an epoch alive */
	cache->dead_at = sm_shared->started_at + SM_EPOCH_MAX_US;
	sm_random(cache->installation, sizeof(cache->installation));
	cache->installation[6] = 0x40 | (cache->installation[6] & 0x0f);
	cache->installation[8] = 0x80 | (cache->installation[8] & 0x3f);
}

static void
attach_cache(void *share)
{
	sm_cache = share;
}

/*
 * The state of a database's cache.
 */
SmCache *
sm_cache_of(const SmDatabase *database)
{
	return sm_shared_of(&cache_part, database);
}

/*
 * Is no epoch alive in Redis, for certain?  Sets "end" to when that will be,
 * or has been.  The clock is read under the lock: an epoch that is found dead
 * must not be renewed.
 */
bool
sm_cache_epoch_is_over(int64 *end)
{
	bool		over;

	LWLockAcquire(sm_shared->cache_lock, LW_SHARED);
	*end = sm_cache->dead_at;
	over = sm_clock() > *end;
	LWLockRelease(sm_shared->cache_lock);
	return over;
}

/*
 * Wake this database's cache worker.  Also runs after a commit, so nothing in
 * here can fail.
 */
void
sm_cache_wake_worker(void)
{
	LWLockAcquire(sm_shared->cache_lock, LW_SHARED);
	if (sm_cache->worker != NULL)
		SetLatch(sm_cache->worker);
	LWLockRelease(sm_shared->cache_lock);
}

/*
 * The lock that a transaction holds which changes what sessions mean without
 * touching their rows, and that the worker takes to make an epoch.
 */
void
sm_cache_lock_tag(LOCKTAG *tag)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, 0, 0, CACHE_LOCK_SPACE);
}
