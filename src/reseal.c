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

#include "authenticate.h"
#include "keyring.h"
#include "reseal.h"
#include "session.h"
#include "shared.h"

/* Sessions that a worker moves in one transaction. */
#define STEP_ROWS	500

PG_FUNCTION_INFO_V1(sm_session_reencrypt);

static int64 reseal_from(const SmSchema *schema, int32 active, int64 batch,
						 pg_uuid_t *after, bool *at_end, int64 *skipped);
static bool all_keys_present(const SmSchema *schema);
static bool reseal(SmScan *scan, int32 active, int64 *skipped);

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

	PreventCommandIfReadOnly("session_reencrypt()");
	if (PG_ARGISNULL(0) || PG_GETARG_INT32(0) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch must be greater than zero")));
	schema = sm_schema_of(fcinfo);
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
							   &position.after, &at_end, &skipped);
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
	bool		isnull;
	pg_uuid_t	after;
	int64		skipped = 0;

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
		memset(sm_database->reseal_after, 0, UUID_LEN);
	}
	memcpy(&after, sm_database->reseal_after, UUID_LEN);
	LWLockRelease(sm_shared->lock);

	resealed = reseal_from(schema, active, STEP_ROWS, &after, &at_end,
						   &skipped);

	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	memcpy(sm_database->reseal_after, &after, UUID_LEN);
	sm_database->resealed += resealed;
	/* what was passed over calls for another round */
	sm_database->resealed_in_round += resealed + skipped;
	/* a login may have sealed under the old key while this began: look again */
	again = !at_end || sm_database->resealed_in_round > 0;
	if (at_end)
		sm_database->resealed_in_round = 0;
	LWLockRelease(sm_shared->lock);
	if (again)
		return false;
	if (SPI_execute(psprintf("UPDATE %s SET resealed_at = pg_catalog.clock_timestamp()"
							 " WHERE key_id = %d AND state = 'active'",
							 keys, active), false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update session_keys");
	return true;
}

/*
 * Re-seal up to "batch" sessions with ids above *after, which moves along and
 * becomes the lowest at the end of the table.  Adds to *skipped those that
 * somebody else is writing to: waiting for them could deadlock.
 */
static int64
reseal_from(const SmSchema *schema, int32 active, int64 batch,
			pg_uuid_t *after, bool *at_end, int64 *skipped)
{
	SmScan		scan;
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext,
												  "session_manager re-sealing",
												  ALLOCSET_DEFAULT_SIZES);
	int64		resealed = 0;

	sm_scan_from_id(&scan, schema, after->data);
	while (!(*at_end = !sm_scan_next(&scan)))
	{
		MemoryContext old = MemoryContextSwitchTo(per_row);
		pg_uuid_t	id = *scan.session.session_id;

		CHECK_FOR_INTERRUPTS();
		resealed += reseal(&scan, active, skipped);
		*after = id;
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_row);
		if (resealed == batch)
			break;
	}
	sm_scan_end(&scan);
	if (*at_end)
		memset(after, 0, sizeof(*after));
	MemoryContextDelete(per_row);
	sm_count_many(SM_RESEALED, resealed);
	return resealed;
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
reseal(SmScan *scan, int32 active, int64 *skipped)
{
	const SmSchema *schema = scan->schema;
	SmSession  *session = &scan->session;
	SmContent	content;
	SmChanges	changes = {0};
	int32		key_id;

	if (session->key_id == active ||
		sm_key_revoked(schema, session->key_id))
		return false;
	if (!sm_scan_lock(scan, LockTupleNoKeyExclusive, LockWaitSkip))
	{
		(*skipped)++;
		return false;
	}
	if (session->key_id == active)
		return false;
	if (!sm_session_open(schema, session, &content))
	{
		sm_warn_corrupt(session);
		sm_session_event(schema, SM_EVENT_CORRUPT, session, NULL, NULL, NULL);
		return false;
	}
	sm_change(&changes, Anum_sealed_data,
			  sm_session_seal(schema, session, &content, &key_id));
	sm_change(&changes, Anum_key_id, Int32GetDatum(key_id));
	sm_wipe(VARDATA(content.data), VARSIZE(content.data) - VARHDRSZ);
	sm_scan_update(scan, &changes);
	return true;
}
