/*-------------------------------------------------------------------------
 *
 * cache.c
 *	  The PostgreSQL side of a cache of sessions in Redis: what a transaction
 *	  that changes sessions does before it commits.
 *
 * Applications cache sessions, because only they hold tokens; see
 * docs/cache-protocol.md for what they do.  A value in the cache counts only
 * while the epoch that it was stored under is the one in Redis.  The worker of
 * cache/worker.c makes epochs, keeps them alive for two seconds at a time, and
 * writes tombstones over values.  Here is what writers do for it:
 *
 * - Whatever changes what session_get returns is noted, once it is in the
 *	 table: by store.c for the extension's own writes, by triggers for everybody
 *	 else's.  A note too many is harmless, so that a rollback to a savepoint
 *	 takes none back.
 * - Before the commit, if an epoch may be alive, the notes become rows of
 *	 session_outbox, which the worker acts on when it sees them committed.
 * - In strict mode the transaction then waits until the worker has tombstones
 *	 in Redis for its sessions (a fence), or until no epoch can be alive.
 * - A transaction with more than SM_CACHE_MAX_IDS sessions, or that changes what
 *	 many mean (TRUNCATE, a key revoked), wants the epoch ended instead.
 *
 * Why no reader is served what was changed once the transaction has returned:
 *
 * 1. A reader stores a value only over its own lease, which it took before it
 *	  asked PostgreSQL, and under the epoch of the lease.
 * 2. session_get says "cacheable" of a row only if no transaction that is not
 *	  over has stamped it.  Rows are stamped before they are noted.  So a reader
 *	  that asked after the fence began stores nothing of what we changed,
 *	  whatever becomes of tombstones and epochs meanwhile: eviction, FLUSHALL
 *	  and expired tombstones lose nothing.
 * 3. What a reader stored, or had a lease to store, before that: either a
 *	  tombstone has overwritten the value or the lease, on the connection that
 *	  the epoch was made on, so after it; or the epoch is dead.  A dead epoch
 *	  never comes back: each has a fresh random id, is renewed only while Redis
 *	  still has it, and carries an absolute end by the clock of Redis, so that a
 *	  delayed packet cannot make it longer.
 * 4. An epoch's end is known here without asking anybody: dead_at in shared
 *	  memory, by a clock that cannot be set, is moved *before* a renewal is sent,
 *	  and lies SM_EPOCH_MAX_US after.  So it holds when the worker is killed,
 *	  hangs, or was never there.  Shared memory that is made anew begins with
 *	  dead_at that far ahead, for the epoch of a server that crashed a moment ago.
 * 5. So that this wait ends, the worker renews and makes nothing while a fence
 *	  is older than SM_CACHE_PATIENCE_US: no epoch is alive 2.35 seconds after the
 *	  fence began, so that a commit waits for 2.4 seconds at most.
 * 6. A new connection makes its first epoch when dead_at is over.  So nothing that
 *	  is still under way on an old one, nor another Redis server that has taken
 *	  the place of the first, knows an epoch that lives.
 * 7. Without a live epoch nothing has to be noted in Redis: the next epoch is
 *	  another.  Then no row is left in the outbox and nobody waits, so that an
 *	  outage of Redis costs revocations 2.4 seconds at most, once, and no space.
 * 8. A revoked key changes no session's row, so 2 does not hold for it.  Such
 *	  a transaction holds the cache's lock until its end, which is after all
 *	  backends can have heard of it; the worker makes an epoch only while it
 *	  holds that lock exclusively, so none begins before that end.
 * 9. With a mode switched on while transactions run that saw it off: they
 *	  had stamped their rows when they looked, see sm_cache_note, which was
 *	  before the first epoch; for those that revoke keys the worker waits.
 *
 * What becomes of a crash or a cut connection at each step:
 *
 * - Rows stamped, nothing told: the transaction aborts, the values are right.
 * - Outbox filled, fence asked for: the same, and at worst tombstones too many,
 *	 for a minute.
 * - The worker is killed while somebody waits: the server restarts, 4.  It
 *	 ends, hangs or is cut off, Redis is paused, killed, or refuses to write:
 *	 dead_at ends the wait, and 6 the epoch.  Redis restarts empty: the same,
 *	 as the connection is gone.
 * - Acknowledged, not committed: the tombstone is evicted, flushed, or expires
 *	 while the commit waits for a standby: 2.  A crash either aborts the
 *	 transaction or leaves values that were overwritten.
 * - Committed, before the worker has sent tombstones again: the outbox survives,
 *	 the epoch does not, and the worker makes the next one when the outbox is
 *	 empty.  In async mode this is when values go, or their epoch dies.
 * - dead_at moved, the renewal not sent: somebody waits for longer than needed.
 * - A renewal or a new epoch is sent, and delayed or its answer lost: dead_at
 *	 allows for it, its end is absolute, a renewal wants its own id.
 * - The end of an epoch is asked for and not answered: dead_at.
 *
 * What remains: a Redis that comes back with old content while an epoch in it
 * is alive (a lagging replica that is promoted, a snapshot that is restored),
 * for the rest of that life; and clocks of Redis that are set back.
 * docs/deployment.md says how to avoid both.
 *
 * Async mode leaves out the wait, and so bounds staleness: the worker stops
 * renewing when a row has waited for SM_CACHE_PATIENCE_US.
 *
 * Locks: cache_lock for the fences and the state of the cache.  Nothing that
 * runs after the commit can fail: it sets a latch.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "compat.h"
#include "sql/result.h"

PG_FUNCTION_INFO_V1(sm_session_cache_note);
PG_FUNCTION_INFO_V1(sm_session_cache_settings);

/* Beside those of store.c: in which an advisory lock collides with no other. */
#define CACHE_LOCK_SPACE	0x5350

/* The part of the idle timeout that a cached session may go unnoticed. */
#define IDLE_SHARE			4

/* Waiting for a place among the fences. */
#define FENCE_RETRY_MS		5

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
} notes;

/* Our place among the fences, while we wait in it. */
static SmFence *fence = NULL;

static void at_xact_end(XactEvent event, void *arg);
static void note_everything(const SmSchema *schema);
static bool note(const SmSchema *schema);
static bool session_differs(TupleDesc desc, HeapTuple before, HeapTuple after);
static bool key_differs(TupleDesc desc, HeapTuple before, HeapTuple after);
static bool column_differs(TupleDesc desc, HeapTuple before, HeapTuple after,
						   int attnum);
static void before_commit(void);
static void sort_notes(void);
static int	compare_ids(const void *a, const void *b);
static bool epoch_is_dead(void);
static void fill_outbox(void);
static void wait_for_fences(void);
static bool ask(const pg_uuid_t *ids, int n, int64 since);
static SmFence *take_place(const pg_uuid_t *ids, int n, int64 since);
static void leave_place(void);
static void wake_worker(bool committed);

/*
 * Ask to hear of the ends of transactions.  Called once, from _PG_init.
 */
void
sm_cache_init(void)
{
	if (process_shared_preload_libraries_in_progress)
		RegisterXactCallback(at_xact_end, NULL);
}

/*
 * Note that a session has been changed.  To be called when the change is in
 * the table already: whoever finds the cache off here has stamped the row
 * before the first epoch, and so before anybody could cache it.
 */
void
sm_cache_note(const SmSchema *schema, const pg_uuid_t *session_id)
{
	MemoryContext old;

	if (!note(schema) || notes.everything)
		return;
	if (notes.n > 0 &&
		memcmp(&notes.ids[notes.n - 1], session_id, sizeof(pg_uuid_t)) == 0)
		return;
	if (notes.n == notes.allocated)
	{
		if (notes.n > SM_CACHE_MAX_IDS)
			sort_notes();
		if (notes.n > SM_CACHE_MAX_IDS)
		{
			notes.everything = true;
			return;
		}
	}
	if (notes.n == notes.allocated)
	{
		old = MemoryContextSwitchTo(TopTransactionContext);
		notes.allocated = Max(16, notes.allocated * 2);
		notes.ids = notes.ids == NULL ? palloc(notes.allocated * sizeof(pg_uuid_t))
			: repalloc(notes.ids, notes.allocated * sizeof(pg_uuid_t));
		MemoryContextSwitchTo(old);
	}
	notes.ids[notes.n++] = *session_id;
}

/*
 * Has a relation no triggers but those by which others' writes are noted?
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

/*
 * The lock that a transaction holds which changes what sessions mean without
 * touching their rows, and that the worker takes to make an epoch.
 */
void
sm_cache_lock_tag(LOCKTAG *tag)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, 0, 0, CACHE_LOCK_SPACE);
}

/*
 * session_cache_note(): the triggers on user_sessions and session_keys
 */
Datum
sm_session_cache_note(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const SmSchema *schema;
	Relation	rel;
	TupleDesc	desc;
	HeapTuple	after = NULL;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("session_cache_note() was not called by a trigger")));
	if (sm_shared == NULL)
		PG_RETURN_POINTER(NULL);
	sm_shared_attach();
	if (!sm_cache_on())
		PG_RETURN_POINTER(NULL);

	rel = trigger->tg_relation;
	desc = RelationGetDescr(rel);
	schema = sm_schema_in(RelationGetNamespace(rel));
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		after = trigger->tg_newtuple;
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		note_everything(schema);
	else if (RelationGetRelid(rel) == schema->keys)
	{
		if (key_differs(desc, trigger->tg_trigtuple, after))
			note_everything(schema);
	}
	else if (RelationGetRelid(rel) == schema->sessions &&
			 session_differs(desc, trigger->tg_trigtuple, after))
	{
		Datum		id = heap_getattr(trigger->tg_trigtuple, Anum_session_id,
									  desc, &isnull);

		/* without an id it was never cached */
		if (!isnull)
			sm_cache_note(schema, DatumGetUUIDP(id));
	}
	PG_RETURN_POINTER(NULL);
}

/*
 * session_cache_settings()
 *
 * A cached session is used without anybody noticing.  It was cached by a read
 * at which its last use had been noted at most touch_interval, or half of the
 * idle timeout, ago; so a share of the timeout that is below the other half
 * keeps a session that is in use from idling out.
 */
Datum
sm_session_cache_settings(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID, UUIDOID, INTERVALOID};
	Datum		values[3];
	bool		nulls[3] = {false};
	const char *mode = "off";
	Interval   *max_age = palloc0(sizeof(Interval));

	(void) sm_schema_of_function(fcinfo->flinfo->fn_oid);
	if (sm_cache_on() && !RecoveryInProgress())
		mode = pg_atomic_read_u32(&sm_database->cache.mode) == SM_REDIS_STRICT ?
			"strict" : "async";
	max_age->time = (int64) sm_cache_ttl * USECS_PER_SEC;
	if (sm_idle_timeout > 0)
		max_age->time = Min(max_age->time,
							(int64) sm_idle_timeout * USECS_PER_SEC / IDLE_SHARE);
	values[0] = CStringGetTextDatum(mode);
	nulls[1] = (sm_database == NULL);
	if (sm_database != NULL)
		values[1] = UUIDPGetDatum((pg_uuid_t *) sm_database->cache.installation);
	values[2] = IntervalPGetDatum(max_age);
	return sm_result_row(fcinfo, types, lengthof(types), values, nulls);
}

static void
at_xact_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (notes.any)
				before_commit();
			return;
		case XACT_EVENT_PRE_PREPARE:
			if (notes.any)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot prepare a transaction that has changed sessions"),
						 errdetail("The cache has to hear of it when it commits."),
						 errhint("Commit it without PREPARE TRANSACTION, or set session_manager.redis_mode to off.")));
			return;
		case XACT_EVENT_COMMIT:
			if (notes.in_outbox)
				wake_worker(true);
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	if (fence != NULL)
		leave_place();
	if (notes.any)
		memset(&notes, 0, sizeof(notes));
}

/* Note a change that concerns more than single rows. */
static void
note_everything(const SmSchema *schema)
{
	if (note(schema))
		notes.everything = true;
}

/* False if there is nothing to note, because nobody caches. */
static bool
note(const SmSchema *schema)
{
	if (!sm_cache_on())
		return false;
	notes.any = true;
	notes.outbox = schema->outbox;
	return true;
}

/*
 * Does session_get return something else of a row, but for the time of the
 * last use and an end that is further away?
 */
static bool
session_differs(TupleDesc desc, HeapTuple before, HeapTuple after)
{
	static const int unimportant[] = {
		Anum_last_seen_at, Anum_sweep_at, Anum_ttl, Anum_ip, Anum_user_agent,
		Anum_successor_used_at, Anum_state_mac
	};

	if (after == NULL)
		return true;
	for (int attnum = 1; attnum <= Natts_user_sessions; attnum++)
	{
		bool		matters = true;

		for (int i = 0; i < (int) lengthof(unimportant); i++)
			if (unimportant[i] == attnum)
				matters = false;
		if (attnum == Anum_expires_at)
		{
			bool		isnull;

			matters = DatumGetTimestampTz(heap_getattr(after, attnum, desc, &isnull)) <
				DatumGetTimestampTz(heap_getattr(before, attnum, desc, &isnull));
		}
		if (matters && column_differs(desc, before, after, attnum))
			return true;
	}
	return false;
}

/* Is a key revoked, or something done that the functions never do? */
static bool
key_differs(TupleDesc desc, HeapTuple before, HeapTuple after)
{
	bool		isnull;
	Datum		state;

	if (after == NULL ||
		column_differs(desc, before, after, Anum_keys_key_id) ||
		column_differs(desc, before, after, Anum_keys_check_value))
		return true;
	state = heap_getattr(after, Anum_keys_state, desc, &isnull);
	return column_differs(desc, before, after, Anum_keys_state) &&
		(isnull || strcmp(TextDatumGetCString(state), "revoked") == 0);
}

static bool
column_differs(TupleDesc desc, HeapTuple before, HeapTuple after, int attnum)
{
	Form_pg_attribute attribute = TupleDescAttr(desc, attnum - 1);
	bool		was_null;
	bool		is_null;
	Datum		was = heap_getattr(before, attnum, desc, &was_null);
	Datum		is = heap_getattr(after, attnum, desc, &is_null);

	if (was_null || is_null)
		return was_null != is_null;
	return !datum_image_eq(was, is, attribute->attbyval, attribute->attlen);
}

/* See to it that the cache does not serve what this transaction changes. */
static void
before_commit(void)
{
	uint32		mode = pg_atomic_read_u32(&sm_database->cache.mode);

	/* switched off since: then the last epoch is dead */
	if (mode == SM_REDIS_OFF)
		return;
	if (!notes.everything && notes.n > 0)
	{
		sort_notes();
		notes.everything = (notes.n > SM_CACHE_MAX_IDS);
	}
	if (notes.everything)
	{
		LOCKTAG		tag;

		sm_cache_lock_tag(&tag);
		(void) LockAcquire(&tag, ShareLock, false, false);
	}
	if (epoch_is_dead())
	{
		sm_count(SM_CACHE_DEAD_COMMITS);
		return;
	}
	fill_outbox();
	if (mode == SM_REDIS_STRICT)
		wait_for_fences();
}

/* Sort the ids that are noted, each once. */
static void
sort_notes(void)
{
	int			n = 1;

	qsort(notes.ids, notes.n, sizeof(pg_uuid_t), compare_ids);
	for (int i = 1; i < notes.n; i++)
		if (compare_ids(&notes.ids[i], &notes.ids[n - 1]) != 0)
			notes.ids[n++] = notes.ids[i];
	notes.n = n;
}

static int
compare_ids(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(pg_uuid_t));
}

static bool
epoch_is_dead(void)
{
	bool		dead;

	LWLockAcquire(sm_shared->cache_lock, LW_SHARED);
	dead = sm_clock() > sm_database->cache.dead_at;
	LWLockRelease(sm_shared->cache_lock);
	return dead;
}

/* Leave the notes to the worker, should the transaction commit. */
static void
fill_outbox(void)
{
	Relation	rel = try_relation_open(notes.outbox, RowExclusiveLock);
	TupleTableSlot *slot;
	int			n = notes.everything ? 1 : notes.n;

	/* the extension was dropped in this very transaction */
	if (rel == NULL)
		return;
	slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	for (int i = 0; i < n; i++)
	{
		ExecClearTuple(slot);
		for (int a = 0; a < RelationGetDescr(rel)->natts; a++)
			slot->tts_isnull[a] = true;
		if (!notes.everything)
		{
			slot->tts_values[Anum_outbox_session_id - 1] = UUIDPGetDatum(&notes.ids[i]);
			slot->tts_isnull[Anum_outbox_session_id - 1] = false;
		}
		slot->tts_values[Anum_outbox_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
		slot->tts_isnull[Anum_outbox_at - 1] = false;
		ExecStoreVirtualTuple(slot);
		simple_table_tuple_insert(rel, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	notes.in_outbox = true;
}

/*
 * Wait until every session has its tombstone, or none can be served.  All
 * the fences of a transaction are as old as the first, so that many of them
 * do not make the wait longer.
 */
static void
wait_for_fences(void)
{
	int64		since = sm_clock();

	sm_count(SM_CACHE_WAITS);
	if (notes.everything)
	{
		if (!ask(NULL, -1, since))
			sm_count(SM_CACHE_DEAD_COMMITS);
		return;
	}
	for (int i = 0; i < notes.n; i += SM_FENCE_IDS)
		if (!ask(&notes.ids[i], Min(SM_FENCE_IDS, notes.n - i), since))
		{
			sm_count(SM_CACHE_DEAD_COMMITS);
			return;
		}
}

/*
 * Ask the worker for tombstones, or with n < 0 for the end of the epoch, and
 * wait.  False if the epoch has died meanwhile, so that there is nothing more
 * to wait for.
 */
static bool
ask(const pg_uuid_t *ids, int n, int64 since)
{
	for (;;)
	{
		bool		done = false;
		int64		left;

		if (fence == NULL)
		{
			fence = take_place(ids, n, since);
			if (fence != NULL)
				wake_worker(false);
		}
		LWLockAcquire(sm_shared->cache_lock, LW_SHARED);
		if (fence != NULL)
			done = (fence->state == SM_FENCE_DONE);
		left = sm_database->cache.dead_at - sm_clock();
		LWLockRelease(sm_shared->cache_lock);
		if (done || left < 0)
		{
			if (fence != NULL)
				leave_place();
			return done;
		}

		/* statement_timeout is off by now: the epoch's end is the limit */
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 fence == NULL ? FENCE_RETRY_MS : left / 1000 + 1,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* NULL if all places are taken. */
static SmFence *
take_place(const pg_uuid_t *ids, int n, int64 since)
{
	SmFence    *place = NULL;

	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	for (int i = 0; i < SM_FENCES && place == NULL; i++)
		if (sm_shared->fences[i].state == SM_FENCE_FREE)
			place = &sm_shared->fences[i];
	if (place != NULL)
	{
		place->state = SM_FENCE_ASKED;
		place->database = MyDatabaseId;
		place->ticket = ++sm_shared->fence_ticket;
		place->since = since;
		place->owner = MyLatch;
		place->n = n;
		if (n > 0)
			memcpy(place->ids, ids, n * sizeof(pg_uuid_t));
	}
	LWLockRelease(sm_shared->cache_lock);
	return place;
}

static void
leave_place(void)
{
	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	fence->state = SM_FENCE_FREE;
	LWLockRelease(sm_shared->cache_lock);
	fence = NULL;
}

/* Also runs after the commit, so nothing in here can fail. */
static void
wake_worker(bool committed)
{
	if (committed)
		pg_atomic_fetch_add_u32(&sm_database->cache.commits, 1);
	LWLockAcquire(sm_shared->cache_lock, LW_SHARED);
	if (sm_database->cache.worker != NULL)
		SetLatch(sm_database->cache.worker);
	LWLockRelease(sm_shared->cache_lock);
}
