/*-------------------------------------------------------------------------
 *
 * sweep.c
 *	  session_cleanup: deletes dead sessions, then maintains the partitions
 *	  of session_events.
 *
 * sweep_at says when a row is to be looked at.  A row that proves to be dead
 * is deleted; one that was extended since is queued again at its deadline,
 * which is the only time an index entry is added for it.  Rows that somebody
 * is writing to are passed over: they are alive, or will be found again.
 * Nothing here waits for traffic, nor makes it wait.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "guc.h"
#include "session/authenticate.h"
#include "shared.h"
#include "sql/result.h"
#include "work/contain.h"
#include "work/partition.h"
#include "work/sweep.h"

/* A NOTICE tells of progress every so many sessions. */
#define PROGRESS_STEP	100000

/*
 * Whoever wakes up on the processor of one that is always busy may have to
 * wait for the end of its time slice, which is milliseconds.  A sleep, however
 * short, ends the slice.  Eight sessions take about a tenth of a millisecond.
 */
#define YIELD_STEP		8
#define YIELD_US		50

/* Sessions swept in the first subtransaction. */
#define FIRST_CHUNK		1000

/* When a session that could not be swept is tried again. */
#define MIN_DELAY_US	(10 * USECS_PER_SEC)
#define MAX_DELAY_US	USECS_PER_HOUR

/* Sessions that are swept together. */
typedef struct Chunk
{
	const SmSchema *schema;
	int64		max_rows;
	TimestampTz now;
	SmSweepPosition from;		/* where to begin, and then how far it came */
	pg_uuid_t	at;				/* the session that was tried last */
	int64		done;
	SmSweep		sweep;
} Chunk;

PG_FUNCTION_INFO_V1(sm_session_cleanup);

static int64 arg_count(FunctionCallInfo fcinfo, int n, const char *name,
					   int64 none);
static void sweep_chunk(void *arg);
static void put_off(Chunk *chunk, const Chunk *failed, ErrorData *error);
static void queue_again(void *arg);
static bool sweep_session(SmScan *scan, SmEventWriter *events, TimestampTz now,
						  SmSweep *sweep);
static TimestampTz kept_until(const SmSession *session);

/*
 * session_cleanup(batch, max_batches)
 */
Datum
sm_session_cleanup(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	int64		batch = arg_count(fcinfo, 0, "batch", sm_sweep_batch);
	int64		max_batches = arg_count(fcinfo, 1, "max_batches", 0);
	int64		max_rows;
	SmSweep		sweep = {0};
	SmSweepPosition from = {.at = DT_NOBEGIN};
	SmPartitionWork partitions = {0};
	static const Oid types[] = {
		INT8OID, INT8OID, INT8OID, INT4OID, INT4OID, INT8OID
	};
	Datum		values[6];
	bool		nulls[6] = {false};

	PreventCommandIfReadOnly("session_cleanup()");
	schema = sm_schema_of_function(fcinfo->flinfo->fn_oid);
	max_rows = max_batches > 0 ? batch * max_batches : PG_INT64_MAX;
	sm_check_at_once();
	(void) sm_sweep(schema, max_rows, &from, &sweep);

	/* last: what it locks stays locked until the transaction ends */
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	(void) sm_partitions_step(sm_schema_of_function(fcinfo->flinfo->fn_oid), max_rows, &partitions);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");

	values[0] = Int64GetDatum(sweep.deleted);
	values[1] = Int64GetDatum(sweep.requeued);
	values[2] = Int64GetDatum(partitions.events_dropped);
	values[3] = Int32GetDatum(partitions.created);
	values[4] = Int32GetDatum(partitions.dropped);
	values[5] = Int64GetDatum(partitions.events_moved);
	return sm_result_row(fcinfo, types, lengthof(types), values, nulls);
}

/*
 * Look at up to "max_rows" sessions that are due, from *from on; returns how
 * many were dealt with and moves *from to the last.
 *
 * Chunks of them are swept in a subtransaction each, which double while all
 * goes well: many subtransactions that write would slow down everybody's
 * snapshots.  Where a chunk fails, its sessions are swept one by one.  One that
 * fails then is put off.
 */
int64
sm_sweep(const SmSchema *schema, int64 max_rows, SmSweepPosition *from,
		 SmSweep *sweep)
{
	SmSweep		before = *sweep;
	Chunk		chunk = {
		.schema = schema,
		.now = GetCurrentTimestamp(),
		.from = *from,
		.sweep = *sweep
	};
	int64		size = FIRST_CHUNK;
	int64		singly = 0;		/* so many of the next */
	int64		done = 0;

	if (sm_clock_in_doubt())
		return 0;
	while (done < max_rows)
	{
		Chunk		next = chunk;
		ErrorData  *error;

		next.done = 0;
		next.max_rows = singly > 0 ? 1 : Min(size, max_rows - done);
		error = sm_try(sweep_chunk, &next);
		if (error == NULL)
		{
			if (done / PROGRESS_STEP < (done + next.done) / PROGRESS_STEP)
				ereport(NOTICE,
						(errmsg("swept %lld sessions so far",
								(long long) (done + next.done))));
			chunk = next;
			done += chunk.done;
			if (chunk.done < chunk.max_rows)
				break;
			if (singly > 0)
				singly--;
			else
				size *= 2;
		}
		else if (next.max_rows > 1)
		{
			FreeErrorData(error);
			if (next.max_rows <= FIRST_CHUNK)
				singly = next.max_rows;
			size = FIRST_CHUNK;
		}
		else
		{
			put_off(&chunk, &next, error);
			done++;
			singly--;
		}
	}
	*from = chunk.from;
	*sweep = chunk.sweep;
	sm_count_many(SM_SWEPT, sweep->deleted - before.deleted);
	sm_count_many(SM_REQUEUED, sweep->requeued - before.requeued);
	return done;
}

/* Sweep a chunk's sessions, all of them or none. */
static void
sweep_chunk(void *arg)
{
	Chunk	   *chunk = arg;
	SmScan		scan;
	SmEventWriter *events = sm_events_begin(chunk->schema);
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext,
												  "session_manager sweep",
												  ALLOCSET_DEFAULT_SIZES);
	int64		seen = 0;

	sm_scan_by_sweep_at(&scan, chunk->schema, &chunk->from, chunk->now);
	while (chunk->done < chunk->max_rows && sm_scan_next(&scan))
	{
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (chunk->sweep.yields && ++seen % YIELD_STEP == 0)
			pg_usleep(YIELD_US);
		sm_scan_position(&scan, &chunk->from);
		chunk->at = *scan.session.session_id;
		old = MemoryContextSwitchTo(per_row);
		if (sweep_session(&scan, events, chunk->now, &chunk->sweep))
			chunk->done++;
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_row);
	}
	sm_scan_end(&scan);
	sm_events_end(events);
	MemoryContextDelete(per_row);
}

/*
 * The session that "failed" was at cannot be swept.  Have it looked at again
 * when it has been due for twice as long; if not even that can be written, pass
 * over it.
 */
static void
put_off(Chunk *chunk, const Chunk *failed, ErrorData *error)
{
	Chunk		queue = *failed;
	ErrorData  *again;

	sm_failed(SM_STEP_SWEEP,
			  psprintf("delete or queue session %s",
					   DatumGetCString(DirectFunctionCall1(uuid_out,
														   UUIDPGetDatum(&failed->at)))),
			  error);
	again = sm_try(queue_again, &queue);
	if (again != NULL)
		FreeErrorData(again);
	chunk->from = failed->from;
}

static void
queue_again(void *arg)
{
	Chunk	   *chunk = arg;
	SmScan		scan;
	SmChanges	changes = {0};

	sm_scan_by_id(&scan, chunk->schema, chunk->at.data, RowExclusiveLock);
	if (sm_scan_next(&scan) &&
		sm_scan_lock(&scan, LockTupleNoKeyExclusive, LockWaitSkip))
	{
		int64		overdue = chunk->now - kept_until(&scan.session);

		overdue = Min(Max(overdue, MIN_DELAY_US), MAX_DELAY_US);
		sm_change(&changes, Anum_sweep_at,
				  TimestampTzGetDatum(chunk->now + overdue));
		sm_scan_update(&scan, &changes);
	}
	sm_scan_end(&scan);
}

static int64
arg_count(FunctionCallInfo fcinfo, int n, const char *name, int64 none)
{
	if (PG_ARGISNULL(n))
		return none;
	if (PG_GETARG_INT32(n) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be greater than zero", name)));
	return PG_GETARG_INT32(n);
}

/* Delete a session or queue it again.  False if somebody is at it. */
static bool
sweep_session(SmScan *scan, SmEventWriter *events, TimestampTz now,
			  SmSweep *sweep)
{
	SmSession  *session = &scan->session;
	SmChanges	changes = {0};
	TimestampTz until = kept_until(session);

	if (now >= until)
	{
		SmEvent		event = {
			.session_id = session->session_id,
			.user_id = session->user_id,
			.tenant_id = session->tenant_id
		};

		if (!sm_scan_delete(scan, false))
			return false;
		sweep->deleted++;
		/* how a revoked session ended is on record already */
		if (!session->revoked)
		{
			event.type = now >= Min(session->expires_at, session->absolute_expires_at)
				? SM_EVENT_EXPIRED : SM_EVENT_IDLE;
			sm_events_add(events, &event);
		}
		return true;
	}

	if (!sm_scan_lock(scan, LockTupleNoKeyExclusive, LockWaitSkip))
		return false;
	sm_change(&changes, Anum_sweep_at, TimestampTzGetDatum(kept_until(session)));
	sm_scan_update(scan, &changes);
	sweep->requeued++;
	return true;
}

/* When a session's row may go. */
static TimestampTz
kept_until(const SmSession *session)
{
	TimestampTz until = sm_session_deadline(session);

	if (session->revoked)
		until = Max(until, session->revoked_at +
					(int64) sm_revoked_retention * USECS_PER_SEC);
	return until;
}
