/*-------------------------------------------------------------------------
 *
 * reseal.c
 *	  Moves seals to the active key: session_reencrypt, and the same in steps
 *	  for a worker.
 *
 * Goes through the table by id, remembering where it is, so that no row is
 * looked at twice in a round.  A round that finds nothing has seen them all.
 * A worker notes that in session_keys.resealed_at, which is what tells after
 * a restart whether there is anything left to do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "keys/keyring.h"
#include "session/authenticate.h"
#include "session/lifecycle.h"
#include "shared.h"
#include "work/contain.h"
#include "work/reseal.h"

/* Sessions that a worker moves in one transaction. */
#define STEP_ROWS	500

/* When a worker begins a round anew after one in which sessions failed. */
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

PG_FUNCTION_INFO_V1(sm_session_reencrypt);

static int64 reseal_from(const SmSchema *schema, int32 active, int64 batch,
						 pg_uuid_t *after, bool *at_end, int64 *skipped,
						 int64 *failed);
static void reseal_chunk(void *arg);
static bool all_keys_present(const SmSchema *schema);
static void report_corrupt(const Chunk *chunk);
static bool reseal(SmScan *scan, Chunk *chunk);

/*
 * session_reencrypt(batch)
 */
Datum
sm_session_reencrypt(PG_FUNCTION_ARGS)
{
	static struct
	{
		Oid			relid;
		int32		key_id;
		pg_uuid_t	after;
	}			position;
	static const pg_uuid_t lowest = {{0}};
	const SmSchema *schema;
	int32		active;
	int64		resealed;
	bool		from_start;
	bool		at_end;
	int64		skipped = 0;
	int64		failed = 0;

	PreventCommandIfReadOnly("session_reencrypt()");
	if (PG_ARGISNULL(0) || PG_GETARG_INT32(0) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch must be greater than zero")));
	schema = sm_schema_of_function(fcinfo->flinfo->fn_oid);
	sm_check_at_once();
	active = sm_key_active(schema)->id;
	if (position.relid != schema->sessions || position.key_id != active)
	{
		position.relid = schema->sessions;
		position.key_id = active;
		position.after = lowest;
	}
	do
	{
		from_start = memcmp(&position.after, &lowest, UUID_LEN) == 0;
		resealed = reseal_from(schema, active, PG_GETARG_INT32(0),
							   &position.after, &at_end, &skipped, &failed);
	} while (at_end && !from_start && resealed == 0);
	if (resealed == 0 && skipped > 0)
		ereport(NOTICE,
				(errmsg("%lld sessions are being written to and were passed over",
						(long long) skipped),
				 errhint("Call session_reencrypt() again.")));
	PG_RETURN_INT64(resealed);
}

/*
 * One step of a worker.  True if there is nothing left to do.
 */
bool
sm_reseal_step(const SmSchema *schema)
{
	char	   *keys = sm_schema_qualify(schema, "session_keys");
	int32		active;
	int64		resealed;
	bool		at_end;
	bool		again;
	bool		later;
	bool		isnull;
	pg_uuid_t	after;
	int64		skipped = 0;
	int64		failed = 0;

	if (SPI_execute(psprintf("SELECT key_id FROM %s WHERE state = 'active' AND resealed_at IS NULL",
							 keys), true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read session_keys");
	if (SPI_processed == 0)
		return true;
	active = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0],
										 SPI_tuptable->tupdesc, 1, &isnull));
	if (!all_keys_present(schema))
		return true;

	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	if (sm_database->reseal_key != active)
	{
		sm_database->reseal_key = active;
		sm_database->resealed = 0;
		sm_database->resealed_in_round = 0;
		sm_database->reseal_failed_in_round = 0;
		sm_database->reseal_retry_at = 0;
		sm_database->reseal_retry_us = MIN_RETRY_US;
		memset(sm_database->reseal_after, 0, UUID_LEN);
	}
	memcpy(&after, sm_database->reseal_after, UUID_LEN);
	later = sm_clock() < sm_database->reseal_retry_at;
	LWLockRelease(sm_shared->lock);
	if (later)
		return true;

	resealed = reseal_from(schema, active, STEP_ROWS, &after, &at_end,
						   &skipped, &failed);

	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	memcpy(sm_database->reseal_after, &after, UUID_LEN);
	sm_database->resealed += resealed;
	/* what was passed over calls for another round */
	sm_database->resealed_in_round += resealed + skipped;
	/* a login may have sealed under the old key while this began: look again */
	sm_database->reseal_failed_in_round += failed;
	again = !at_end || sm_database->resealed_in_round > 0;
	if (at_end)
	{
		later = !again && sm_database->reseal_failed_in_round > 0;
		sm_database->resealed_in_round = 0;
		sm_database->reseal_failed_in_round = 0;
	}
	if (later)
	{
		sm_database->reseal_retry_at = sm_clock() + sm_database->reseal_retry_us;
		sm_database->reseal_retry_us = Min(sm_database->reseal_retry_us * 2, MAX_RETRY_US);
	}
	LWLockRelease(sm_shared->lock);
	if (again)
		return false;
	if (later)
		return true;
	if (SPI_execute(psprintf("UPDATE %s SET resealed_at = pg_catalog.clock_timestamp()"
							 " WHERE key_id = %d AND state = 'active'",
							 keys, active), false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update session_keys");
	return true;
}

/*
 * Re-seal up to "batch" sessions with ids above *after, which moves along and
 * becomes the lowest at the end of the table.  Adds to *skipped those that
 * somebody else is writing to, as waiting for them could deadlock, and to
 * *failed those that cannot be written.
 */
static int64
reseal_from(const SmSchema *schema, int32 active, int64 batch,
			pg_uuid_t *after, bool *at_end, int64 *skipped, int64 *failed)
{
	Chunk		chunk = {
		.schema = schema,
		.active = active,
		.after = *after
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
					  psprintf("re-seal session %s",
							   DatumGetCString(DirectFunctionCall1(uuid_out,
																   UUIDPGetDatum(&next.at)))),
					  error);
			(*failed)++;
			chunk.after = next.at;
			chunk.skipped = next.skipped;
			singly--;
		}
	}
	*after = chunk.after;
	*at_end = chunk.at_end;
	*skipped += chunk.skipped;
	if (*at_end)
		memset(after, 0, sizeof(*after));
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
		if (reseal(&scan, chunk))
			chunk->resealed++;
		chunk->after = chunk->at;
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_row);
	}
	sm_scan_end(&scan);
	MemoryContextDelete(per_row);
}

/*
 * Note sessions whose seals do not open.  They keep their key from being
 * retired until they are gone; trying again would not help.
 */
static void
report_corrupt(const Chunk *chunk)
{
	const char *id = DatumGetCString(DirectFunctionCall1(uuid_out,
														 UUIDPGetDatum(&chunk->corrupt_id)));

	sm_note_failure(SM_STEP_RESEALING, ERRCODE_SM_DATA_CORRUPT,
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
reseal(SmScan *scan, Chunk *chunk)
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
