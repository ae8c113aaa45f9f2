/*-------------------------------------------------------------------------
 *
 * fence.h
 *	  Where commits wait until the worker has told Redis.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CACHE_FENCE_H
#define SM_CACHE_FENCE_H

#include "postgres.h"

#include "utils/uuid.h"

#include "shared.h"

/* for a transaction that is about to commit */
extern bool sm_fence_wait(const pg_uuid_t *ids, int n, int64 since);
extern void sm_fence_leave(void);

/* for the worker */
extern bool sm_fence_take_next(int *place, SmFence *fence);
extern void sm_fence_open(const SmFenceTicket *ticket);
extern void sm_fence_open_all(void);
extern bool sm_fence_is_overdue(int64 now);

#endif							/* SM_CACHE_FENCE_H */
