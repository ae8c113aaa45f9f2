/*-------------------------------------------------------------------------
 *
 * fence.c
 *	  Where commits wait until the worker has told Redis.
 *
 * A commit takes a place in shared memory, says there which sessions it has
 * changed, and wakes the worker.  The worker copies that, sends tombstones,
 * and opens the fence when Redis has acknowledged the last.  It also opens all
 * when no epoch is alive.  A commit that has found out for itself that the
 * epoch is over leaves, and its place is used again; the ticket keeps an
 * answer that comes later from opening the fence of somebody else.
 *
 * Locks: cache_lock for all places.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#include "cache/cache.h"
#include "cache/fence.h"

/* Of the server, for all databases. */
#define N_PLACES		256

/* How often a commit that has found no place looks for one. */
#define RETRY_MS		5

typedef enum FenceState
{
	FENCE_FREE,
	FENCE_WANTED,
	FENCE_SENT,
	FENCE_OPEN
} FenceState;

/* Where a commit waits.  Guarded by cache_lock. */
typedef struct FencePlace
{
	FenceState	state;
	Oid			database;
	int64		since;			/* by sm_clock() */
	Latch	   *owner;
	SmFence		fence;
} FencePlace;

typedef struct Fences
{
	uint64		last_number;	/* of a ticket */
	FencePlace	places[N_PLACES];
} Fences;

static Size size_of_fences(void);
static void start_fences(bool found);

static SmSharedPart fence_part = {
	.name = "session_manager_fences",
	.size = size_of_fences,
	.start = start_fences
};

static Fences *fences = NULL;	/* in shared memory */

/* Ours, while we wait at it. */
static FencePlace *own_place = NULL;

static FencePlace *take_place(const pg_uuid_t *ids, int n, int64 since);

/*
 * Have fences kept in shared memory.  Called once, from _PG_init.
 */
void
sm_fence_init(void)
{
	sm_shared_register(&fence_part);
}

static Size
size_of_fences(void)
{
	return sizeof(Fences);
}

static void
start_fences(bool found)
{
	fences = fence_part.memory;
	if (!found)
		memset(fences, 0, sizeof(Fences));
}

/*
 * Have the worker put tombstones for "n" sessions into Redis, or with n < 0
 * end the epoch, and wait.  False if the epoch has died meanwhile, so that
 * there is nothing more to wait for.
 */
bool
sm_fence_wait(const pg_uuid_t *ids, int n, int64 since)
{
	for (;;)
	{
		bool		open = false;
		int64		left;

		if (own_place == NULL)
		{
			own_place = take_place(ids, n, since);
			if (own_place != NULL)
				sm_cache_wake_worker();
		}
		LWLockAcquire(sm_shared->cache_lock, LW_SHARED);
		if (own_place != NULL)
			open = (own_place->state == FENCE_OPEN);
		left = sm_cache->dead_at - sm_clock();
		LWLockRelease(sm_shared->cache_lock);
		if (open || left < 0)
		{
			sm_fence_leave();
			return open;
		}

		/* statement_timeout is off by now: the epoch's end is the limit */
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 own_place == NULL ? RETRY_MS : left / 1000 + 1,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Give up this backend's place, if it has one.
 */
void
sm_fence_leave(void)
{
	if (own_place == NULL)
		return;
	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	own_place->state = FENCE_FREE;
	LWLockRelease(sm_shared->cache_lock);
	own_place = NULL;
}

/* NULL if all places are taken. */
static FencePlace *
take_place(const pg_uuid_t *ids, int n, int64 since)
{
	FencePlace *place = NULL;

	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	for (int i = 0; i < N_PLACES && place == NULL; i++)
		if (fences->places[i].state == FENCE_FREE)
			place = &fences->places[i];
	if (place != NULL)
	{
		place->state = FENCE_WANTED;
		place->database = MyDatabaseId;
		place->since = since;
		place->owner = MyLatch;
		place->fence.ticket.place = place - fences->places;
		place->fence.ticket.number = ++fences->last_number;
		place->fence.n = n;
		if (n > 0)
			memcpy(place->fence.ids, ids, n * sizeof(pg_uuid_t));
	}
	LWLockRelease(sm_shared->cache_lock);
	return place;
}

/*
 * Copy the next fence of this database that wants something, from "place" on,
 * and move that past it.  False if there is none.
 */
bool
sm_fence_take_next(int *place, SmFence *fence)
{
	while (*place < N_PLACES)
	{
		FencePlace *next = &fences->places[(*place)++];
		bool		ours;

		/*
		 * whoever takes a place wakes us afterwards, so that a glance
		 * suffices
		 */
		if (*(volatile FenceState *) &next->state != FENCE_WANTED)
			continue;
		LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
		ours = (next->state == FENCE_WANTED && next->database == MyDatabaseId);
		if (ours)
		{
			next->state = FENCE_SENT;
			memcpy(fence, &next->fence,
				   offsetof(SmFence, ids) + Max(next->fence.n, 0) * sizeof(pg_uuid_t));
		}
		LWLockRelease(sm_shared->cache_lock);
		if (ours)
			return true;
	}
	return false;
}

/*
 * Redis has acknowledged all that a fence wants.
 */
void
sm_fence_open(const SmFenceTicket *ticket)
{
	FencePlace *place = &fences->places[ticket->place];

	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	if (place->fence.ticket.number == ticket->number &&
		place->state == FENCE_SENT)
	{
		place->state = FENCE_OPEN;
		SetLatch(place->owner);
	}
	LWLockRelease(sm_shared->cache_lock);
}

/*
 * No epoch is alive, so nobody has to wait for tombstones any more.  The
 * caller holds cache_lock.
 */
void
sm_fence_open_all(void)
{
	for (int i = 0; i < N_PLACES; i++)
	{
		FencePlace *place = &fences->places[i];

		if (place->state == FENCE_FREE || place->database != MyDatabaseId)
			continue;
		place->state = FENCE_OPEN;
		SetLatch(place->owner);
	}
}

/*
 * Has a commit been waiting for too long?  The caller holds cache_lock.
 */
bool
sm_fence_is_overdue(int64 now)
{
	for (int i = 0; i < N_PLACES; i++)
	{
		FencePlace *place = &fences->places[i];

		if (place->database == MyDatabaseId &&
			(place->state == FENCE_WANTED || place->state == FENCE_SENT) &&
			now > place->since + SM_CACHE_PATIENCE_US)
			return true;
	}
	return false;
}
