/*-------------------------------------------------------------------------
 *
 * writer.c
 *	  What a transaction that changes sessions does for the cache: records them,
 *	  and before its commit leaves them in the outbox and waits at its fence.
 *
 * Why this suffices is in the header of cache.c.  Nothing that runs after the
 * commit can fail: it sets a latch.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "cache/fence.h"
#include "cache/writer.h"

/* What this transaction has changed. */
static struct
{
	bool		any;
	bool		everything;
	Oid			outbox;
	int			n;
	int			allocated;
	pg_uuid_t  *ids;			/* in TopTransactionContext */
	bool		in_outbox;		/* left something there */
}			changed;

static void at_xact_end(XactEvent event, void *arg);
static bool cache_must_know(const SmSchema *schema);
static void allocate_ids(void);
static void before_commit(void);
static void sort_ids(void);
static int	compare_ids(const void *a, const void *b);
static void fill_outbox(void);
static void wait_at_fences(void);

/*
 * Register for the ends of transactions.  Called once, from _PG_init.
 */
void
sm_cache_writer_init(void)
{
	if (process_shared_preload_libraries_in_progress)
		RegisterXactCallback(at_xact_end, NULL);
}

/*
 * Record that a session has been changed.  Must be called when the change is in
 * the table already: whoever finds the cache off here has stamped the row
 * before the first epoch, and so before anybody could cache it.
 */
void
sm_cache_session_changed(const SmSchema *schema, const pg_uuid_t *session_id)
{
	if (!cache_must_know(schema) || changed.everything)
		return;
	if (changed.n > 0 &&
		memcmp(&changed.ids[changed.n - 1], session_id, sizeof(pg_uuid_t)) == 0)
		return;
	if (changed.n == changed.allocated && changed.n > SM_CACHE_MAX_IDS)
	{
		sort_ids();
		if (changed.n > SM_CACHE_MAX_IDS)
		{
			changed.everything = true;
			return;
		}
	}
	if (changed.n == changed.allocated)
		allocate_ids();
	changed.ids[changed.n++] = *session_id;
}

/*
 * Record a change that concerns more than single rows.
 */
void
sm_cache_everything_changed(const SmSchema *schema)
{
	if (cache_must_know(schema))
		changed.everything = true;
}

/*
 * Has a relation no triggers but those by which others' writes are recorded?
 */
bool
sm_cache_only_trigger(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	if (triggers == NULL)
		return true;
	for (int i = 0; i < triggers->numtriggers; i++)
		if (strcmp(triggers->triggers[i].tgname, "session_cache_row") != 0 &&
			strcmp(triggers->triggers[i].tgname, "session_cache_truncate") != 0)
			return false;
	return true;
}

static void
at_xact_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (changed.any)
				before_commit();
			return;
		case XACT_EVENT_PRE_PREPARE:
			if (changed.any)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot prepare a transaction that has changed sessions"),
						 errdetail("The cache must be told when it commits."),
						 errhint("Commit it without PREPARE TRANSACTION, or set session_manager.redis_mode to off.")));
			return;
		case XACT_EVENT_COMMIT:
			if (changed.in_outbox)
			{
				pg_atomic_fetch_add_u32(&sm_cache->commits, 1);
				sm_cache_wake_worker();
			}
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	sm_fence_leave();
	if (changed.any)
		memset(&changed, 0, sizeof(changed));
}

/* False if nobody caches; otherwise the transaction has something to tell. */
static bool
cache_must_know(const SmSchema *schema)
{
	if (!sm_cache_in_use())
		return false;
	changed.any = true;
	changed.outbox = schema->outbox;
	return true;
}

static void
allocate_ids(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	changed.allocated = Max(16, changed.allocated * 2);
	changed.ids = changed.ids == NULL ?
		palloc(changed.allocated * sizeof(pg_uuid_t)) :
		repalloc(changed.ids, changed.allocated * sizeof(pg_uuid_t));
	MemoryContextSwitchTo(old);
}

/* Make sure that the cache does not serve what this transaction changes. */
static void
before_commit(void)
{
	uint32		mode = pg_atomic_read_u32(&sm_cache->mode);
	int64		epoch_end;

	/* switched off since: then the last epoch is dead */
	if (mode == SM_REDIS_OFF)
		return;
	if (!changed.everything && changed.n > 0)
	{
		sort_ids();
		changed.everything = (changed.n > SM_CACHE_MAX_IDS);
	}
	if (changed.everything)
	{
		LOCKTAG		tag;

		sm_cache_lock_tag(&tag);
		(void) LockAcquire(&tag, ShareLock, false, false);
	}
	if (sm_cache_epoch_is_over(&epoch_end))
	{
		sm_count(SM_CACHE_DEAD_COMMITS);
		return;
	}
	fill_outbox();
	if (mode == SM_REDIS_STRICT)
		wait_at_fences();
}

/* Sort the ids, and keep each once. */
static void
sort_ids(void)
{
	int			n = 1;

	qsort(changed.ids, changed.n, sizeof(pg_uuid_t), compare_ids);
	for (int i = 1; i < changed.n; i++)
		if (compare_ids(&changed.ids[i], &changed.ids[n - 1]) != 0)
			changed.ids[n++] = changed.ids[i];
	changed.n = n;
}

static int
compare_ids(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(pg_uuid_t));
}

/* Leave the ids to the worker, should the transaction commit. */
static void
fill_outbox(void)
{
	Relation	rel = try_relation_open(changed.outbox, RowExclusiveLock);
	TupleTableSlot *slot;
	int			n = changed.everything ? 1 : changed.n;

	/* the extension was dropped in this very transaction */
	if (rel == NULL)
		return;
	slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	for (int i = 0; i < n; i++)
	{
		ExecClearTuple(slot);
		for (int a = 0; a < RelationGetDescr(rel)->natts; a++)
			slot->tts_isnull[a] = true;
		if (!changed.everything)
		{
			slot->tts_values[Anum_outbox_session_id - 1] = UUIDPGetDatum(&changed.ids[i]);
			slot->tts_isnull[Anum_outbox_session_id - 1] = false;
		}
		slot->tts_values[Anum_outbox_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
		slot->tts_isnull[Anum_outbox_at - 1] = false;
		ExecStoreVirtualTuple(slot);
		simple_table_tuple_insert(rel, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	changed.in_outbox = true;
}

/*
 * Wait until every session has its tombstone, or none can be served.  All
 * the fences of a transaction are as old as the first, so that many of them
 * do not make the wait longer.
 */
static void
wait_at_fences(void)
{
	int64		since = sm_clock();
	bool		told = true;

	sm_count(SM_CACHE_WAITS);
	if (changed.everything)
		told = sm_fence_wait(NULL, -1, since);
	else
		for (int i = 0; i < changed.n && told; i += SM_FENCE_IDS)
			told = sm_fence_wait(&changed.ids[i],
								 Min(SM_FENCE_IDS, changed.n - i), since);
	if (!told)
		sm_count(SM_CACHE_DEAD_COMMITS);
}
