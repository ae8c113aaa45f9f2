/*-------------------------------------------------------------------------
 *
 * cache.h
 *	  What writers owe to a cache of sessions in Redis.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CACHE_H
#define SM_CACHE_H

#include "postgres.h"

#include "storage/lock.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "guc.h"
#include "schema.h"
#include "shared.h"

/* More sessions than these in one transaction end the epoch. */
#define SM_CACHE_MAX_IDS	1000

/* What waits for Redis longer than this stops the epoch from being renewed. */
#define SM_CACHE_PATIENCE_US	INT64CONST(250000)

extern void sm_cache_init(void);
extern void sm_cache_note(const SmSchema *schema, const pg_uuid_t *session_id);
extern bool sm_cache_only_trigger(Relation rel);
extern void sm_cache_lock_tag(LOCKTAG *tag);

/* May a cache hold sessions of this database, or is one still dying? */
static inline bool
sm_cache_on(void)
{
	return sm_database != NULL &&
		pg_atomic_read_u32(&sm_database->cache.mode) != SM_REDIS_OFF;
}

#endif							/* SM_CACHE_H */
