/*-------------------------------------------------------------------------
 *
 * tombstone.h
 *	  Tombstones in Redis, over whatever is cached of a session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CACHE_TOMBSTONE_H
#define SM_CACHE_TOMBSTONE_H

#include "postgres.h"

#include "utils/uuid.h"

#include "cache/link.h"

extern void sm_tombstone_send(const pg_uuid_t *id, SmAnswerHandler handler,
							  const void *context, size_t context_size);
extern bool sm_tombstone_is_acknowledged(const SmRedisAnswer *answer);
extern void sm_tombstone_send_for_fences(void);

#endif							/* SM_CACHE_TOMBSTONE_H */
