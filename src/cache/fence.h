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

/* How many sessions one fence is for. */
#define SM_FENCE_IDS	60

/* Names one use of a place among the fences. */
typedef struct SmFenceTicket
{
	int			place;
	uint64		number;			/* never the same again */
} SmFenceTicket;

/* What a commit wants from Redis. */
typedef struct SmFence
{
	SmFenceTicket ticket;
	int			n;				/* of ids; -1: all sessions, the epoch must
								 * end */
	pg_uuid_t	ids[SM_FENCE_IDS];
} SmFence;

extern void sm_fence_init(void);

/* for a transaction that is about to commit */
extern bool sm_fence_wait(const pg_uuid_t *ids, int n, int64 since);
extern void sm_fence_leave(void);

/* for the worker */
extern bool sm_fence_take_next(int *place, SmFence *fence);
extern void sm_fence_open(const SmFenceTicket *ticket);
extern void sm_fence_open_all(void);
extern bool sm_fence_is_overdue(int64 now);

#endif							/* SM_CACHE_FENCE_H */
