/*-------------------------------------------------------------------------
 *
 * flush.c
 *	  Writes last-seen times that session_get recorded in shared memory to the
 *	  table.
 *
 * In batches: all of one in a subtransaction, or, if that fails, each in one
 * of its own.  A session that somebody is writing to, or whose key is away,
 * keeps its touch for a later pass.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/uuid.h"

#include "batch.h"
#include "keys/keyring.h"
#include "maintenance/contain.h"
#include "maintenance/flush.h"
#include "session/store.h"
#include "session/touch.h"

#define TOUCH_BATCH		1024

/* Touches that are written together. */
typedef struct Touches
{
	const SmSchema *schema;
	const SmTouch *touches;
	bool	   *written;
	int			n;
} Touches;

static bool write_touches(const SmSchema *schema, const SmTouch *touches,
						  bool *written, int n);
static void write_each(void *arg);
static bool write_touch(const SmSchema *schema, const SmTouch *touch);

/*
 * Write what session_get recorded in this database instead of writing it.
 */
void
sm_flush_touches(SmPass *pass)
{
	uint64		recorded = pg_atomic_read_u64(&sm_database->recorded);
	SmTouch    *touches;
	bool	   *written;
	bool		all = true;
	bool		failed = false;
	int			position = 0;

	if (recorded == pg_atomic_read_u64(&sm_database->flushed))
		return;
	touches = palloc(TOUCH_BATCH * sizeof(SmTouch));
	written = palloc(TOUCH_BATCH * sizeof(bool));
	while (position >= 0)
	{
		int			n = sm_touch_collect(MyDatabaseId, touches, TOUCH_BATCH, &position);
		const SmSchema *schema;

		if (n == 0)
			continue;
		schema = sm_pass_batch(pass, "writing times of last use");
		if (schema == NULL)
			break;
		/* losing these to a crash is what is promised anyway */
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		failed |= !write_touches(schema, touches, written, n);
		sm_batch_end();
		for (int i = 0; i < n; i++)
		{
			if (!written[i])
			{
				all = false;
				continue;
			}
			sm_touch_flushed(MyDatabaseId, &touches[i]);
			sm_count(SM_TOUCHES_FLUSHED);
		}
		if (position >= 0 && sm_pass_is_over(pass))
		{
			/*
			 * the next pass, soon, finds what is left; what failed has to
			 * wait
			 */
			if (!failed)
				pg_atomic_write_u32(&sm_database->wanted, 1);
			all = false;
			break;
		}
	}
	pfree(touches);
	pfree(written);
	if (pass->served && all)
		pg_atomic_write_u64(&sm_database->flushed, recorded);
}

/*
 * Write touches all together, or one by one if that fails.  False if any has
 * failed.
 */
static bool
write_touches(const SmSchema *schema, const SmTouch *touches, bool *written, int n)
{
	Touches		all = {schema, touches, written, n};
	ErrorData  *error = sm_try(write_each, &all);
	bool		failed = false;

	if (error == NULL)
		return true;
	FreeErrorData(error);
	for (int i = 0; i < n; i++)
	{
		Touches		one = {schema, &touches[i], &written[i], 1};

		CHECK_FOR_INTERRUPTS();
		error = sm_try(write_each, &one);
		if (error == NULL)
			continue;
		failed = true;
		written[i] = false;
		sm_failed(SM_STEP_TOUCHES,
				  psprintf("session_manager could not write the time of last use of session %s",
						   DatumGetCString(DirectFunctionCall1(uuid_out,
															   UUIDPGetDatum(&touches[i].session_id)))),
				  error);
	}
	return !failed;
}

static void
write_each(void *arg)
{
	Touches    *batch = arg;

	for (int i = 0; i < batch->n; i++)
		batch->written[i] = write_touch(batch->schema, &batch->touches[i]);
}

/*
 * False if somebody is writing to the session, or its key is away: then later.
 */
static bool
write_touch(const SmSchema *schema, const SmTouch *touch)
{
	SmScan		scan;
	SmChanges	changes = {0};
	bool		locked = true;

	sm_scan_by_id(&scan, schema, touch->session_id.data, RowExclusiveLock);
	if (sm_scan_next(&scan) && !scan.session.revoked &&
	/* what is bound to the rest of the row takes the key */
		(locked = sm_key_present(schema, scan.session.key_id)) &&
		(locked = sm_scan_lock(&scan, LockTupleNoKeyExclusive, LockWaitSkip)) &&
		!scan.session.revoked)
	{
		bool		newer = touch->seen > scan.stored_last_seen_at;
		SmClient	client = sm_no_client;
		TimestampTz first_use;

		sm_change(&changes, Anum_last_seen_at,
				  TimestampTzGetDatum(newer ? touch->seen : scan.stored_last_seen_at));
		first_use = sm_touch_first_use(touch, scan.session.rotated_at);
		if (scan.session.rotated && first_use != 0)
			sm_change(&changes, Anum_successor_used_at,
					  TimestampTzGetDatum(first_use));
		if (newer)
			sm_client_restore(&touch->client, &client);
		sm_change_client(&changes, &client);
		sm_scan_update(&scan, &changes);
	}
	sm_scan_end(&scan);
	return locked;
}
