/*-------------------------------------------------------------------------
 *
 * count.c
 *	  How many sessions are live: counted, or estimated from some blocks of
 *	  the table.
 *
 * A count goes through many rows, so that it decodes of each only what it has
 * to.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/sampling.h"

#include "session/authenticate.h"
#include "session/count.h"
#include "session/locks.h"
#include "session/store.h"

/* Blocks that an estimate reads at most. */
#define SAMPLED_BLOCKS	1000

static int64 count_live(SmScan *scan, const text *tenant_id, TimestampTz now);
static bool lives(SmScan *scan, TimestampTz now);

/*
 * Count the live sessions of a user, of a tenant, or of a user in a tenant;
 * all of them if neither is given.
 */
int64
sm_active_count(const SmSchema *schema, text *user_id, text *tenant_id)
{
	SmScan		scan;
	int64		count;

	if (user_id)
	{
		sm_check_shard((uint16) sm_user_text_hash(user_id));
		sm_scan_by_user(&scan, schema, user_id, AccessShareLock);
	}
	else if (tenant_id)
		sm_scan_by_tenant(&scan, schema, tenant_id, AccessShareLock);
	else
		sm_scan_all(&scan, schema, AccessShareLock);
	count = count_live(&scan, user_id ? tenant_id : NULL, GetCurrentTimestamp());
	sm_scan_end(&scan);
	return count;
}

/*
 * Estimate the number of all live sessions from blocks that are chosen at
 * random, each set of them with the same probability (Knuth, The Art of Computer
 * Programming, volume 2, algorithm 3.4.2 S).  Exact where the table is no larger
 * than the sample.
 */
int64
sm_active_estimate(const SmSchema *schema)
{
	SmScan		scan;
	BlockSamplerData sampler;
	TimestampTz now = GetCurrentTimestamp();
	BlockNumber blocks;
	BlockNumber sampled;
	int64		count = 0;

	sm_scan_all(&scan, schema, AccessShareLock);
	blocks = sm_scan_blocks(&scan);
	sampled = BlockSampler_Init(&sampler, blocks, SAMPLED_BLOCKS,
								pg_prng_uint32(&pg_global_prng_state));
	while (BlockSampler_HasMore(&sampler))
	{
		sm_scan_block(&scan, BlockSampler_Next(&sampler));
		count += count_live(&scan, NULL, now);
	}
	sm_scan_end(&scan);
	if (sampled < blocks)
		count = (int64) rint((double) count * blocks / sampled);
	return count;
}

/* Those that a scan returns, in a tenant if given. */
static int64
count_live(SmScan *scan, const text *tenant_id, TimestampTz now)
{
	int64		count = 0;

	while (sm_scan_next_life(scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (tenant_id != NULL)
			sm_scan_decode(scan);
		if (lives(scan, now) && sm_session_of_tenant(&scan->session, tenant_id))
			count++;
	}
	return count;
}

/* Is the session alive whose life has been decoded? */
static bool
lives(SmScan *scan, TimestampTz now)
{
	const SmSession *session = &scan->session;

	switch (sm_session_life(scan->schema, session, now))
	{
		case SM_LIFE_ACTIVE:
			return true;
		case SM_LIFE_IDLE:
			/* unless it has been used, which the row need not say */
			sm_scan_decode(scan);
			return sm_session_life(scan->schema, session, now) == SM_LIFE_ACTIVE;
		case SM_LIFE_EXPIRED:
		case SM_LIFE_REVOKED:
		case SM_LIFE_ACTOR_ENDED:
			break;
	}
	return false;
}
