/*-------------------------------------------------------------------------
 *
 * touch.c
 *	  Last-seen times in shared memory, on their way to the table.
 *
 * session_get notes a use here instead of writing to the table; a worker
 * writes what was noted in batches.  The table has a fixed number of slots in
 * sets of WAYS; a session's hash names its set, and each of
 * SM_TOUCH_PARTITIONS locks guards an equal share of the sets.  An entry
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
#include "shared.h"
#include "touch.h"

#define WAYS 16

typedef struct Entry
{
	Oid			database;		/* InvalidOid: free */
	TimestampTz flushed;		/* what of "seen" has been written */
	SmTouch		touch;
} Entry;

static Entry *entries = NULL;
static LWLockPadded *locks = NULL;

static uint32 n_sets(void);
static Entry *find_set(Oid database, const pg_uuid_t *id, LWLock **lock);
static Entry *find(Entry *set, Oid database, const pg_uuid_t *id);
static bool is_dirty(const Entry *entry);

Size
sm_touch_size(void)
{
	return mul_size(mul_size(n_sets(), WAYS), sizeof(Entry));
}

/*
 * Attach to the table, making it if this is the postmaster.
 */
void
sm_touch_startup(void)
{
	bool		found;

	entries = ShmemInitStruct("session_manager touches", sm_touch_size(), &found);
	if (!found)
		memset(entries, 0, sm_touch_size());
	locks = GetNamedLWLockTranche("session_manager_touch");
}

/*
 * Write what is dirty to a file at shutdown.
 */
bool
sm_touch_save(FILE *file)
{
	for (uint32 i = 0; i < n_sets() * WAYS; i++)
		if (is_dirty(&entries[i]) &&
			fwrite(&entries[i], sizeof(Entry), 1, file) != 1)
			return false;
	return true;
}

/*
 * Take it back at the start; touches for which there is no room any more are
 * dropped.
 */
bool
sm_touch_load(FILE *file)
{
	Entry		entry;

	while (fread(&entry, sizeof(entry), 1, file) == 1)
	{
		LWLock	   *lock;
		Entry	   *set = find_set(entry.database, &entry.touch.session_id, &lock);
		SmDatabase *database = sm_shared_slot(entry.database, false);

		for (int i = 0; i < WAYS && database != NULL; i++)
			if (!is_dirty(&set[i]))
			{
				set[i] = entry;
				/* or no worker would come for it */
				pg_atomic_fetch_add_u64(&database->noted, 1);
				break;
			}
	}
	return feof(file) != 0;
}

/*
 * Note a use of a session.  False if there is no room, or no shared memory.
 */
bool
sm_touch_note(const pg_uuid_t *session_id, TimestampTz now,
			  bool successor_used, const inet *ip, const text *user_agent)
{
	LWLock	   *lock;
	Entry	   *set;
	Entry	   *entry;

	if (!sm_worker_comes())
		return false;
	set = find_set(MyDatabaseId, session_id, &lock);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = find(set, MyDatabaseId, session_id);
	if (entry == NULL)
	{
		for (int i = 0; i < WAYS && entry == NULL; i++)
			if (!is_dirty(&set[i]))
				entry = &set[i];
		if (entry == NULL)
		{
			LWLockRelease(lock);
			return false;
		}
		entry->database = MyDatabaseId;
		entry->flushed = 0;
		entry->touch.session_id = *session_id;
		entry->touch.seen = 0;
		entry->touch.successor_used = 0;
		entry->touch.ip_len = 0;
		entry->touch.user_agent_len = 0;
	}
	entry->touch.seen = Max(entry->touch.seen, now);
	if (successor_used)
		entry->touch.successor_used = now;
	if (ip != NULL)
	{
		entry->touch.ip_len = Min(VARSIZE_ANY(ip), sizeof(entry->touch.ip));
		memcpy(entry->touch.ip, ip, entry->touch.ip_len);
	}
	if (user_agent != NULL)
	{
		entry->touch.user_agent_len = Min(VARSIZE_ANY_EXHDR(user_agent),
										  SM_MAX_USER_AGENT_LEN);
		memcpy(entry->touch.user_agent, VARDATA_ANY(user_agent),
			   entry->touch.user_agent_len);
	}
	LWLockRelease(lock);
	pg_atomic_fetch_add_u64(&sm_database->noted, 1);
	return true;
}

/*
 * The newest use that was noted of a session, if any.
 */
bool
sm_touch_seen(const pg_uuid_t *session_id, TimestampTz *seen,
			  TimestampTz *successor_used)
{
	LWLock	   *lock;
	Entry	   *set;
	Entry	   *entry;

	if (sm_database == NULL)
		return false;
	set = find_set(MyDatabaseId, session_id, &lock);
	LWLockAcquire(lock, LW_SHARED);
	entry = find(set, MyDatabaseId, session_id);
	if (entry != NULL)
	{
		*seen = entry->touch.seen;
		*successor_used = entry->touch.successor_used;
	}
	LWLockRelease(lock);
	return entry != NULL;
}

/*
 * Copy up to "max" of a database's touches that have not been written,
 * going on at *position, which is -1 at the end.
 */
int
sm_touch_collect(Oid database, SmTouch *touches, int max, int *position)
{
	uint32		per_partition = n_sets() / SM_TOUCH_PARTITIONS * WAYS;
	int			n = 0;

	/* whole sets at a time: a set is WAYS entries, "max" at least as many */
	for (uint32 i = *position; i < n_sets() * WAYS; i += WAYS)
	{
		LWLock	   *lock = &locks[i / per_partition].lock;

		if (n + WAYS > max)
		{
			*position = i;
			return n;
		}
		LWLockAcquire(lock, LW_SHARED);
		for (int way = 0; way < WAYS; way++)
			if (entries[i + way].database == database &&
				is_dirty(&entries[i + way]))
				touches[n++] = entries[i + way].touch;
		LWLockRelease(lock);
	}
	*position = -1;
	return n;
}

/*
 * A touch, as it was collected, has been written and committed.
 */
void
sm_touch_flushed(Oid database, const SmTouch *touch)
{
	LWLock	   *lock;
	Entry	   *set = find_set(database, &touch->session_id, &lock);
	Entry	   *entry;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = find(set, database, &touch->session_id);
	if (entry != NULL)
		entry->flushed = touch->seen;
	LWLockRelease(lock);
}

/*
 * Forget the touches of a database that is gone.
 */
void
sm_touch_forget(Oid database)
{
	uint32		per_partition = n_sets() / SM_TOUCH_PARTITIONS * WAYS;

	for (uint32 p = 0; p < SM_TOUCH_PARTITIONS; p++)
	{
		LWLockAcquire(&locks[p].lock, LW_EXCLUSIVE);
		for (uint32 i = p * per_partition; i < (p + 1) * per_partition; i++)
			if (entries[i].database == database)
				entries[i].database = InvalidOid;
		LWLockRelease(&locks[p].lock);
	}
}

/* A multiple of the number of partitions. */
static uint32
n_sets(void)
{
	return Max(1, sm_touch_slots / (WAYS * SM_TOUCH_PARTITIONS)) * SM_TOUCH_PARTITIONS;
}

/* The set of a session and the lock that guards it. */
static Entry *
find_set(Oid database, const pg_uuid_t *id, LWLock **lock)
{
	uint32		hash = hash_bytes(id->data, UUID_LEN) ^ murmurhash32(database);
	uint32		set = hash % n_sets();

	*lock = &locks[set / (n_sets() / SM_TOUCH_PARTITIONS)].lock;
	return &entries[set * WAYS];
}

static Entry *
find(Entry *set, Oid database, const pg_uuid_t *id)
{
	for (int i = 0; i < WAYS; i++)
		if (set[i].database == database &&
			memcmp(&set[i].touch.session_id, id, UUID_LEN) == 0)
			return &set[i];
	return NULL;
}

static bool
is_dirty(const Entry *entry)
{
	return OidIsValid(entry->database) && entry->touch.seen > entry->flushed;
}
