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

extern bool sm_cache_epoch_is_over(int64 *end);
extern void sm_cache_wake_worker(void);
extern void sm_cache_lock_tag(LOCKTAG *tag);

/* May a cache hold sessions of this database, be it one that is ending? */
static inline bool
sm_cache_in_use(void)
{
	return sm_database != NULL &&
		pg_atomic_read_u32(&sm_database->cache.mode) != SM_REDIS_OFF;
}

#endif							/* SM_CACHE_H */
