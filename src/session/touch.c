/*-------------------------------------------------------------------------
 *
 * touch.c
 *	  Last-seen times in shared memory, on their way to the table.
 *
 * session_get records a use here instead of writing to the table; a worker
 * writes what was recorded in batches.  The table has a fixed number of slots in
 * sets of WAYS; a session's hash names its set, and each of
 * N_LOCKS locks guards an equal share of the sets.  Every read of
 * a session looks here, so the hashes of a set stand apart from its entries,
 * in one cache line: entries are touched only where the hash agrees.  An entry
 * whose use has been written is clean: it may be replaced.  When every slot
 * of a set holds something that has not been written, the caller falls back
 * to writing to the table.
 *
 * Locks: one partition lock at a time, for a few hundred nanoseconds, with
 * nothing inside that could raise an error or wait.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "compat.h"
#include "guc.h"
#include "session/touch.h"
#include "shared.h"

#define WAYS			16
#define N_LOCKS			64

typedef struct Entry
{
	Oid			database;		/* InvalidOid: free */
	TimestampTz flushed;		/* what of "seen" has been written */
	SmTouch		touch;
} Entry;

/* Where a session's entry is, if there is one. */
typedef struct Set
{
	Entry	   *entries;		/* WAYS of them */
	uint32	   *hashes;			/* their sessions' */
	uint32		hash;			/* this session's */
	LWLock	   *lock;
} Set;

static Size size(void);
static void start(bool found);
static bool save(FILE *file);
static bool load(FILE *file);
static void forget(Oid database);
static uint32 n_slots(void);
static Set	find_set(Oid database, const pg_uuid_t *id);
static Entry *find(const Set *set, Oid database, const pg_uuid_t *id);
static bool is_dirty(const Entry *entry);

static SmSharedPart part = {
	.name = "session_manager_touch",
	.size = size,
	.n_locks = N_LOCKS,
	.start = start,
	.forget = forget,
	.save = save,
	.load = load,
	.saved_size = sizeof(SmTouch)
};

/* The table, as this process sees it. */
static struct
{
	Entry	   *entries;
	uint32	   *hashes;
	uint32		sets_per_lock;
}			table;

/*
 * Have the table made.  Called once, from _PG_init.
 */
void
sm_touch_init(void)
{
	sm_shared_register(&part);
}

static Size
size(void)
{
	return add_size(mul_size(n_slots(), sizeof(Entry)),
					add_size(mul_size(n_slots(), sizeof(uint32)),
							 PG_CACHE_LINE_SIZE));
}

static void
start(bool found)
{
	table.entries = part.memory;
	if (!found)
		memset(table.entries, 0, size());
	table.hashes = (uint32 *) CACHELINEALIGN(table.entries + n_slots());
	table.sets_per_lock = n_slots() / WAYS / N_LOCKS;
}

/*
 * Write what is dirty to a file at shutdown, and an entry of no database as
 * its end.
 */
static bool
save(FILE *file)
{
	static const Entry end = {0};

	for (uint32 i = 0; i < n_slots(); i++)
		if (is_dirty(&table.entries[i]) &&
			fwrite(&table.entries[i], sizeof(Entry), 1, file) != 1)
			return false;
	return fwrite(&end, sizeof(end), 1, file) == 1;
}

/*
 * Take it back at the start; touches for which there is no room any more are
 * dropped.
 */
static bool
load(FILE *file)
{
	Entry		entry;

	while (fread(&entry, sizeof(entry), 1, file) == 1)
	{
		Set			set;
		SmDatabase *database;

		if (!OidIsValid(entry.database))
			return true;
		set = find_set(entry.database, &entry.touch.session_id);
		database = sm_shared_slot(entry.database, false);
		for (int i = 0; i < WAYS && database != NULL; i++)
			if (!is_dirty(&set.entries[i]))
			{
				set.entries[i] = entry;
				set.hashes[i] = set.hash;
				/* or no worker would come for it */
				pg_atomic_fetch_add_u64(&database->recorded, 1);
				break;
			}
	}
	return false;
}

/*
 * Record a use of a session, and if it is the first of a token that a rotation
 * made, of which: the row that the caller has seen may have been rotated again
 * since.  False if there is no room, or no shared memory.
 */
bool
sm_touch_record(const pg_uuid_t *session_id, TimestampTz now,
				const TimestampTz *rotation, const SmClient *client)
{
	Set			set;
	Entry	   *entry;

	if (!sm_worker_comes())
		return false;
	set = find_set(MyDatabaseId, session_id);
	LWLockAcquire(set.lock, LW_EXCLUSIVE);
	entry = find(&set, MyDatabaseId, session_id);
	if (entry == NULL)
	{
		int			way = 0;

		while (way < WAYS && is_dirty(&set.entries[way]))
			way++;
		if (way == WAYS)
		{
			LWLockRelease(set.lock);
			return false;
		}
		set.hashes[way] = set.hash;
		entry = &set.entries[way];
		entry->database = MyDatabaseId;
		entry->flushed = 0;
		entry->touch.session_id = *session_id;
		entry->touch.seen = 0;
		entry->touch.successor_used = 0;
		entry->touch.rotation = 0;
		entry->touch.client.ip_len = 0;
		entry->touch.client.user_agent_len = 0;
	}
	entry->touch.seen = Max(entry->touch.seen, now);
	if (rotation != NULL)
	{
		/* to be written even if the clock has been set back meanwhile */
		if (entry->touch.rotation != *rotation)
			entry->flushed = Min(entry->flushed, entry->touch.seen - 1);
		entry->touch.successor_used = now;
		entry->touch.rotation = *rotation;
	}
	sm_client_flatten(client, &entry->touch.client);
	LWLockRelease(set.lock);
	pg_atomic_fetch_add_u64(&sm_database->recorded, 1);
	return true;
}

/*
 * The newest use that was recorded of a session, if any; and when the token that
 * its last rotation made was used first, or 0.
 */
bool
sm_touch_seen(const pg_uuid_t *session_id, TimestampTz rotation,
			  TimestampTz *seen, TimestampTz *successor_used)
{
	Set			set;
	Entry	   *entry;

	if (sm_database == NULL)
		return false;
	set = find_set(MyDatabaseId, session_id);
	LWLockAcquire(set.lock, LW_SHARED);
	entry = find(&set, MyDatabaseId, session_id);
	if (entry != NULL)
	{
		*seen = entry->touch.seen;
		*successor_used = sm_touch_first_use(&entry->touch, rotation);
	}
	LWLockRelease(set.lock);
	return entry != NULL;
}

/*
 * When a touch records that the token of this rotation was used first, or 0.
 */
TimestampTz
sm_touch_first_use(const SmTouch *touch, TimestampTz rotation)
{
	return touch->rotation == rotation ? touch->successor_used : 0;
}

/*
 * Copy up to "max" of a database's touches that have not been written,
 * going on at *position, which is -1 at the end.
 */
int
sm_touch_collect(Oid database, SmTouch *touches, int max, int *position)
{
	int			n = 0;

	/* whole sets at a time: a set is WAYS entries, "max" at least as many */
	for (uint32 i = *position; i < n_slots(); i += WAYS)
	{
		LWLock	   *lock = &part.locks[i / WAYS / table.sets_per_lock].lock;

		if (n + WAYS > max)
		{
			*position = i;
			return n;
		}
		LWLockAcquire(lock, LW_SHARED);
		for (int way = 0; way < WAYS; way++)
			if (table.entries[i + way].database == database &&
				is_dirty(&table.entries[i + way]))
				touches[n++] = table.entries[i + way].touch;
		LWLockRelease(lock);
	}
	*position = -1;
	return n;
}

/*
 * Has one of a database's touches that are about certain sessions not been
 * written?
 */
bool
sm_touch_waits(Oid database, bool (*which) (const pg_uuid_t *session_id))
{
	bool		waits = false;

	for (uint32 i = 0; i < n_slots() && !waits; i += WAYS)
	{
		LWLock	   *lock = &part.locks[i / WAYS / table.sets_per_lock].lock;

		LWLockAcquire(lock, LW_SHARED);
		for (int way = 0; way < WAYS && !waits; way++)
			waits = table.entries[i + way].database == database &&
				is_dirty(&table.entries[i + way]) &&
				which(&table.entries[i + way].touch.session_id);
		LWLockRelease(lock);
	}
	return waits;
}

/*
 * A touch, as it was collected, has been written and committed.
 */
void
sm_touch_flushed(Oid database, const SmTouch *touch)
{
	Set			set = find_set(database, &touch->session_id);
	Entry	   *entry;

	LWLockAcquire(set.lock, LW_EXCLUSIVE);
	entry = find(&set, database, &touch->session_id);
	/* unless the first use of another token was recorded since */
	if (entry != NULL && entry->touch.rotation == touch->rotation)
		entry->flushed = touch->seen;
	LWLockRelease(set.lock);
}

/* Forget the touches of a database that is gone. */
static void
forget(Oid database)
{
	uint32		per_lock = table.sets_per_lock * WAYS;

	for (uint32 p = 0; p < N_LOCKS; p++)
	{
		LWLockAcquire(&part.locks[p].lock, LW_EXCLUSIVE);
		for (uint32 i = p * per_lock; i < (p + 1) * per_lock; i++)
			if (table.entries[i].database == database)
				table.entries[i].database = InvalidOid;
		LWLockRelease(&part.locks[p].lock);
	}
}

/* Equally many whole sets for each lock. */
static uint32
n_slots(void)
{
	const uint32 per_round = WAYS * N_LOCKS;

	return Max(1, sm_touch_slots / per_round) * per_round;
}

/* The set that a session belongs to. */
static Set
find_set(Oid database, const pg_uuid_t *id)
{
	Set			set;
	uint32		n;

	set.hash = hash_bytes(id->data, UUID_LEN) ^ murmurhash32(database);
	n = set.hash % (table.sets_per_lock * N_LOCKS);
	set.entries = &table.entries[n * WAYS];
	set.hashes = &table.hashes[n * WAYS];
	set.lock = &part.locks[n / table.sets_per_lock].lock;
	return set;
}

/* The entry of a session in its set, whose lock is held. */
static Entry *
find(const Set *set, Oid database, const pg_uuid_t *id)
{
	for (int i = 0; i < WAYS; i++)
	{
		Entry	   *entry = &set->entries[i];

		if (set->hashes[i] == set->hash && entry->database == database &&
			memcmp(&entry->touch.session_id, id, UUID_LEN) == 0)
			return entry;
	}
	return NULL;
}

static bool
is_dirty(const Entry *entry)
{
	return OidIsValid(entry->database) && entry->touch.seen > entry->flushed;
}
