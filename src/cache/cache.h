/*-------------------------------------------------------------------------
 *
 * cache.h
 *	  The cache of a database's sessions, as writers, readers and its worker
 *	  know it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CACHE_H
#define SM_CACHE_H

#include "postgres.h"

#include "storage/lock.h"

#include "guc.h"
#include "shared.h"

/* More sessions than these in one transaction end the epoch. */
#define SM_CACHE_MAX_IDS	1000

/* What waits for Redis longer than this stops the epoch from being renewed. */
#define SM_CACHE_PATIENCE_US	INT64CONST(250000)

/*
 * An epoch lives two seconds in Redis from the moment it is asked for, and
 * rounding and what a clock may be off add less than a tenth of one.
 */
#define SM_EPOCH_MS		2000
#define SM_EPOCH_MAX_US	INT64CONST(2100000)

/* What the worker that speaks to Redis says of its connection. */
typedef enum SmLinkState
{
	SM_LINK_NONE,				/* no worker yet */
	SM_LINK_DOWN,
	SM_LINK_WAITING,			/* until the last epoch is dead for certain */
	SM_LINK_UP
} SmLinkState;

/*
 * The cache of a database's sessions.  All but the atomics is guarded by
 * SmShared's cache_lock.
 */
typedef struct SmCache
{
	pg_atomic_uint32 mode;		/* SmRedisMode, as writers must heed it */
	uint8		installation[16];	/* names the epoch's key */
	int64		dead_at;		/* no epoch lives past this, by sm_clock() */
	Latch	   *worker;			/* NULL while there is none */
	bool		unwanted;		/* the worker must go */
	bool		no_place;		/* for a worker: others need it */
	bool		back_soon;		/* it left to be in nobody's way */
	pg_atomic_uint32 commits;	/* that left something in the outbox */
	pg_atomic_uint64 shard;		/* sm_shard_hash, as of the current epoch */
	bool		former_shard;	/* so was another of an epoch that may live */

	/* for session_info */
	SmLinkState link;
	char		problem[192];	/* why the connection is down */
	char		server[192];	/* what is known of the Redis server */
	char		warnings[256];	/* what about it endangers the cache */
	TimestampTz linked_at;
	TimestampTz epoch_at;		/* 0: no epoch */
	int64		restarts;		/* times that another Redis server was met */
	int64		memory_used;	/* of Redis, in bytes; 0: it has not said */
	int64		memory_limit;	/* 0: none */
} SmCache;

/* This database's, or NULL; set when sm_database is. */
extern SmCache *sm_cache;

extern void sm_cache_init(void);
extern SmCache *sm_cache_of(const SmDatabase *database);
extern bool sm_cache_epoch_is_over(int64 *end);
extern void sm_cache_wake_worker(void);
extern void sm_cache_lock_tag(LOCKTAG *tag);

/* May a cache hold sessions of this database, be it one that is ending? */
static inline bool
sm_cache_in_use(void)
{
	return sm_cache != NULL &&
		pg_atomic_read_u32(&sm_cache->mode) != SM_REDIS_OFF;
}

/* Has this process the setting "shard" that the current epoch is for? */
static inline bool
sm_cache_shard_agrees(void)
{
	return pg_atomic_read_u64(&sm_cache->shard) == sm_shard_hash;
}

#endif							/* SM_CACHE_H */
