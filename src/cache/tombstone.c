/*-------------------------------------------------------------------------
 *
 * tombstone.c
 *	  Tombstones in Redis, over whatever is cached of a session: for rows of
 *	  the outbox, and here for commits that wait at a fence.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "cache/epoch.h"
#include "cache/fence.h"
#include "cache/tombstone.h"
#include "shared.h"

#define LIFETIME_MS		"60000"

static void tombstone_answered(const SmRequest *request,
							   const SmRedisAnswer *answer);
static void fence_answered(const SmRequest *request,
						   const SmRedisAnswer *answer);

/*
 * Send a tombstone for a session.
 */
void
sm_tombstone_send(const pg_uuid_t *id, SmAnswerHandler handler,
				  const void *context, size_t context_size)
{
	char		key[64];

	snprintf(key, sizeof(key), "session:%s",
			 DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id))));
	sm_link_send(handler, context, context_size,
				 "SET", key, "T", "PX", LIFETIME_MS, NULL);
	sm_count(SM_CACHE_TOMBSTONES);
}

/*
 * Send what commits wait for.
 */
void
sm_tombstone_send_for_fences(void)
{
	SmFence		fence;
	int			place = 0;

	if (!sm_epoch_is_known())
		return;					/* they see for themselves that it is over */
	while (sm_fence_take_next(&place, &fence))
	{
		if (fence.n < 0)
			sm_epoch_want_end();
		for (int i = 0; i < fence.n - 1; i++)
			sm_tombstone_send(&fence.ids[i], tombstone_answered, NULL, 0);
		/* answers come in order, so the last stands for all */
		if (fence.n > 0)
			sm_tombstone_send(&fence.ids[fence.n - 1], fence_answered,
							  &fence.ticket, sizeof(fence.ticket));
	}
}

static void
tombstone_answered(const SmRequest *request, const SmRedisAnswer *answer)
{
	(void) sm_tombstone_is_acknowledged(answer);
}

static void
fence_answered(const SmRequest *request, const SmRedisAnswer *answer)
{
	if (sm_tombstone_is_acknowledged(answer))
		sm_fence_open((const SmFenceTicket *) request->context);
}

/*
 * Does the answer to a tombstone say that it is in Redis?  Otherwise the
 * connection has been ended.
 */
bool
sm_tombstone_is_acknowledged(const SmRedisAnswer *answer)
{
	if (!sm_link_is_success(answer))
		return false;
	sm_count(SM_CACHE_ACKS);
	return true;
}
