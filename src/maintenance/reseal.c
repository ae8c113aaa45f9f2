/*-------------------------------------------------------------------------
 *
 * reseal.c
 *	  Moves seals to the active key.
 *
 * Goes through the table by id, remembering where it is, so that no row is
 * looked at twice in a round.  A round that finds nothing has seen them all.
 * A worker records that in session_keys.resealed_at, which is what tells after
 * a restart whether there is anything left to do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "batch.h"
#include "keys/keyring.h"
#include "maintenance/contain.h"
#include "maintenance/reseal.h"
#include "session/authenticate.h"
#include "session/lifecycle.h"
#include "shared.h"
#include "spi.h"

/* Sessions that a worker moves in one transaction. */
#define STEP_ROWS	500

/* When a worker begins another round after one in which sessions failed. */
#define MIN_RETRY_US	USECS_PER_MINUTE
#define MAX_RETRY_US	USECS_PER_HOUR

/* Sessions that are re-sealed together. */
typedef struct Chunk
{
	const SmSchema *schema;
	int32		active;
	int64		max_rows;
	pg_uuid_t	after;			/* where to begin, and then how far it came */
	pg_uuid_t	at;				/* the session that was tried last */
	bool		at_end;
	int64		resealed;
	int64		skipped;
	int64		corrupt;
	pg_uuid_t	corrupt_id;		/* the last of these */
} Chunk;

/* What becomes of a round through the table. */
typedef enum Round
{
	ROUND_GOES_ON,				/* or begins again */
	ROUND_FAILED,				/* for some sessions: another one later */
	ROUND_DONE
} Round;

static SmSharedPart part = {
	.name = "session_manager_reseal",
	.per_database = sizeof(SmResealState)
};

static bool reseal_step(const SmSchema *schema);
static bool resume(SmReseal *reseal);
static Round advance(const SmReseal *reseal, int64 resealed);
static void reseal_chunk(void *arg);
static bool all_keys_present(const SmSchema *schema);
static void report_corrupt(const Chunk *chunk);
static bool reseal_session(SmScan *scan, Chunk *chunk);

/*
 * Have the position in each database kept.  Called once, from _PG_init.
 */
void
sm_reseal_init(void)
{
	sm_shared_register(&part);
}

SmResealState *
sm_reseal_state(const SmDatabase *database)
{
	return sm_shared_of(&part, database);
}

/*
 * Re-seal this database's sessions under the active key.
 */
void
sm_reseal_pass(SmPass *pass)
{
	bool		done = false;

	while (!done && !sm_pass_is_over(pass))
	{
		const SmSchema *schema = sm_pass_batch(pass, "re-sealing sessions under the active key");

		if (schema == NULL)
			return;
		done = reseal_step(schema);
		sm_batch_end();
	}
}

/* One step of a worker.  True if there is nothing left to do. */
static bool
reseal_step(const SmSchema *schema)
{
	char	   *keys = sm_schema_qualify(schema, "session_keys");
	SmReseal	reseal = {.schema = schema};
	char	   *active;
	int64		resealed;

	active = sm_spi_text(psprintf("SELECT key_id FROM %s WHERE state = 'active' AND resealed_at IS NULL",
								  keys));
	if (active == NULL)
		return true;
	reseal.active = pg_strtoint32(active);
	if (!all_keys_present(schema) || !resume(&reseal))
		return true;

	resealed = sm_reseal(&reseal, STEP_ROWS);
	switch (advance(&reseal, resealed))
	{
		case ROUND_GOES_ON:
			return false;
		case ROUND_FAILED:
			return true;
		case ROUND_DONE:
			break;
	}
	(void) sm_spi_execute(psprintf("UPDATE %s SET resealed_at = pg_catalog.clock_timestamp()"
								   " WHERE key_id = %d AND state = 'active'",
								   keys, reseal.active));
	return true;
}

/*
 * Where the last step stopped, or the beginning for a key that is new.  False
 * if it is not time yet.
 */
static bool
resume(SmReseal *reseal)
{
	SmResealState *state = sm_reseal_state(sm_database);
	bool		due;

	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	if (state->key != reseal->active)
	{
		memset(state, 0, sizeof(*state));
		state->key = reseal->active;
		state->retry_us = MIN_RETRY_US;
	}
	reseal->after = state->after;
	due = sm_clock() >= state->retry_at;
	LWLockRelease(sm_shared->lock);
	return due;
}

/* Record what a step has done, and tell what becomes of the round. */
static Round
advance(const SmReseal *reseal, int64 resealed)
{
	SmResealState *state = sm_reseal_state(sm_database);
	Round		result = ROUND_DONE;

	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	state->after = reseal->after;
	state->resealed += resealed;
	/* what was passed over calls for another round */
	state->resealed_in_round += resealed + reseal->skipped;
	state->failed_in_round += reseal->failed;
	/* a login may have sealed under the old key while this began: look again */
	if (!reseal->at_end || state->resealed_in_round > 0)
		result = ROUND_GOES_ON;
	else if (state->failed_in_round > 0)
		result = ROUND_FAILED;
	if (reseal->at_end)
		state->resealed_in_round = state->failed_in_round = 0;
	if (result == ROUND_FAILED)
	{
		state->retry_at = sm_clock() + state->retry_us;
		state->retry_us = Min(state->retry_us * 2, MAX_RETRY_US);
	}
	LWLockRelease(sm_shared->lock);
	return result;
}

/*
 * Re-seal up to "batch" sessions with ids above "after", which moves along and
 * becomes the lowest at the end of the table.  Adds to "skipped" those that
 * somebody else is writing to, as waiting for them could deadlock, and to
 * "failed" those that cannot be written.
 */
int64
sm_reseal(SmReseal *reseal, int64 batch)
{
	Chunk		chunk = {
		.schema = reseal->schema,
		.active = reseal->active,
		.after = reseal->after
	};
	int64		resealed = 0;
	int64		singly = 0;		/* so many of the next */

	while (resealed < batch && !chunk.at_end)
	{
		Chunk		next = chunk;
		ErrorData  *error;

		next.resealed = next.corrupt = 0;
		next.max_rows = singly > 0 ? 1 : Min(STEP_ROWS, batch - resealed);
		error = sm_try(reseal_chunk, &next);
		if (error == NULL)
		{
			chunk = next;
			resealed += chunk.resealed;
			if (chunk.corrupt > 0)
				report_corrupt(&chunk);
			singly = Max(0, singly - 1);
		}
		else if (next.max_rows > 1)
		{
			FreeErrorData(error);
			singly = next.max_rows;
		}
		else
		{
			sm_failed(SM_STEP_RESEALING,
					  psprintf("session_manager could not re-seal session %s",
							   DatumGetCString(DirectFunctionCall1(uuid_out,
																   UUIDPGetDatum(&next.at)))),
					  error);
			reseal->failed++;
			chunk.after = next.at;
			chunk.skipped = next.skipped;
			singly--;
		}
	}
	reseal->after = chunk.after;
	reseal->at_end = chunk.at_end;
	reseal->skipped += chunk.skipped;
	if (reseal->at_end)
		memset(&reseal->after, 0, sizeof(reseal->after));
	sm_count_many(SM_RESEALED, resealed);
	return resealed;
}

/* Re-seal a chunk's sessions, all of them or none. */
static void
reseal_chunk(void *arg)
{
	Chunk	   *chunk = arg;
	SmScan		scan;
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext,
												  "session_manager re-sealing",
												  ALLOCSET_DEFAULT_SIZES);

	sm_scan_from_id(&scan, chunk->schema, chunk->after.data);
	while (chunk->resealed < chunk->max_rows &&
		   !(chunk->at_end = !sm_scan_next(&scan)))
	{
		MemoryContext old = MemoryContextSwitchTo(per_row);

		CHECK_FOR_INTERRUPTS();
		chunk->at = *scan.session.session_id;
		if (reseal_session(&scan, chunk))
			chunk->resealed++;
		chunk->after = chunk->at;
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_row);
	}
	sm_scan_end(&scan);
	MemoryContextDelete(per_row);
}

/*
 * Record sessions whose seals do not open.  They keep their key from being
 * retired until they are gone; trying again would not help.
 */
static void
report_corrupt(const Chunk *chunk)
{
	const char *id = DatumGetCString(DirectFunctionCall1(uuid_out,
														 UUIDPGetDatum(&chunk->corrupt_id)));

	sm_record_failure(SM_STEP_RESEALING, ERRCODE_SM_DATA_CORRUPT,
					  psprintf("data of session %s is corrupt", id));
	sm_count_many(SM_RESEALING_FAILED, chunk->corrupt - 1);
}

/* Could every session be opened, as far as keys go? */
static bool
all_keys_present(const SmSchema *schema)
{
	const SmKey *keys;
	int			n = sm_key_list(schema, &keys);

	for (int i = 0; i < n; i++)
		if (keys[i].state != SM_KEY_RETIRED && keys[i].state != SM_KEY_REVOKED &&
			keys[i].material != SM_MATERIAL_PRESENT)
			return false;
	return true;
}

/*
 * Seal the row that the scan stands on under the active key.  False if it
 * is, or cannot be.
 */
static bool
reseal_session(SmScan *scan, Chunk *chunk)
{
	const SmSchema *schema = scan->schema;
	SmSession  *session = &scan->session;
	SmContent	content;
	SmChanges	changes = {0};
	int32		key_id;

	if (session->key_id == chunk->active ||
		sm_key_revoked(schema, session->key_id))
		return false;
	if (!sm_scan_lock(scan, LockTupleNoKeyExclusive, LockWaitSkip))
	{
		chunk->skipped++;
		return false;
	}
	if (session->key_id == chunk->active)
		return false;
	if (!sm_session_open(schema, session, &content))
	{
		sm_warn_corrupt(session);
		chunk->corrupt++;
		chunk->corrupt_id = *session->session_id;
		sm_session_event(schema, SM_EVENT_CORRUPT, session, &sm_no_client, NULL);
		return false;
	}
	sm_change(&changes, Anum_sealed_data,
			  sm_session_seal(schema, session, &content, &key_id));
	sm_change(&changes, Anum_key_id, Int32GetDatum(key_id));
	sm_wipe(VARDATA(content.data), VARSIZE(content.data) - VARHDRSZ);
	sm_scan_update(scan, &changes);
	return true;
}
