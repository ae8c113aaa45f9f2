/*-------------------------------------------------------------------------
 *
 * sweep.c
 *	  Deletes ended sessions.
 *
 * sweep_at says when a row is to be looked at.  A row whose session has ended
 * is deleted; one that was extended since is queued again at its deadline,
 * which is the only time an index entry is added for it.  Rows that somebody
 * is writing to are passed over: they are alive, or will be found again.
 * Nothing here waits for traffic, nor makes it wait.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "batch.h"
#include "compat.h"
#include "guc.h"
#include "keys/token.h"
#include "maintenance/cascade.h"
#include "maintenance/contain.h"
#include "maintenance/sweep.h"
#include "session/authenticate.h"
#include "shared.h"

/* A NOTICE tells of progress every so many sessions. */
#define PROGRESS_STEP	100000

/*
 * Whoever wakes up on the processor of one that is always busy may have to
 * wait for the end of its time slice, which is milliseconds.  So the worker
 * sleeps after every few sessions, for as long as they took: it leaves half of
 * a processor to others, and more where they keep it waiting.
 */
#define REST_STEP		8
#define MIN_REST_US		50
#define MAX_REST_US		10000

/* Sessions swept in the first subtransaction. */
#define FIRST_CHUNK		1000

/* When a session that could not be swept, or is another server's, is looked at again. */
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

/*
 * The sweep starts over when walking over the dead entries last took at most
 * one part in so many of its time; in a backlog, at most every five minutes.
 */
#define WALK_SHARE		20
#define SWEEP_ANEW_US	(5 * USECS_PER_MINUTE)

static SmSharedPart part = {
	.name = "session_manager_sweep",
	.per_database = sizeof(SmSweepState)
};

static void sweep_chunk(void *arg);
static int64 rest(int64 worked_since);
static void put_off(Chunk *chunk, const Chunk *failed, ErrorData *error);
static void queue_again(void *arg);
static bool sweep_session(SmScan *scan, SmEventWriter *events, TimestampTz now,
						  SmSweep *sweep);
static TimestampTz kept_until(const SmSchema *schema, const SmSession *session);

/*
 * Have the position in each database kept.  Called once, from _PG_init.
 */
void
sm_sweep_init(void)
{
	sm_shared_register(&part);
}

SmSweepState *
sm_sweep_state(const SmDatabase *database)
{
	return sm_shared_of(&part, database);
}

/*
 * Sweep this database's ended sessions, in batches with a pause between them.
 *
 * While an old snapshot is open, deleted rows stay in the index, and a pass
 * that starts at its beginning reads all of them again.  So a pass continues
 * where the last one stopped.  A session that is due has a smaller sweep_at
 * only if another transaction was writing it, if it was written by hand, or if
 * the clock was set back: the sweep starts over when it has reached the end,
 * or has not for a long time, unless walking over the dead entries would take
 * too large a share of its time.
 */
void
sm_sweep_pass(SmPass *pass)
{
	SmSweepState *state = sm_sweep_state(sm_database);
	int64		elapsed = sm_clock() - state->began_at;
	bool		starts_over = state->from.at > GetCurrentTimestamp() ||
		(elapsed >= WALK_SHARE * state->walk_us &&
		 (!state->unfinished || elapsed >= SWEEP_ANEW_US));
	SmSweepPosition from = {.at = DT_NOBEGIN};
	SmSweep		sweep = {.rests = true};
	int64		batch;
	int64		done;

	if (!starts_over)
		from = state->from;
	do
	{
		int64		began_at = sm_clock();
		const SmSchema *schema = sm_pass_batch(pass, "deleting ended sessions");

		/* one row tells how long the way to it was, and is not waited after */
		bool		measures = starts_over;

		if (schema == NULL)
			return;
		batch = measures ? 1 : sm_sweep_batch;
		done = sm_sweep(schema, batch, &from, &sweep);
		sm_batch_end();
		if (measures)
		{
			state->began_at = began_at;
			state->walk_us = sm_clock() - began_at;
			starts_over = false;
		}
		/* still the beginning if nothing was due */
		state->from = from;
		state->unfinished = (done == batch);
		if (done == batch && !measures && sm_sweep_pause > 0)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 sm_sweep_pause, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
	} while (done == batch && !sm_pass_is_over(pass));
}

/*
 * Look at up to "max_rows" sessions that are due, from *from on; returns how
 * many were dealt with and moves *from to the last.
 *
 * Chunks of them are swept in a subtransaction each, which double while all
 * goes well: many subtransactions that write would slow down everybody's
 * snapshots.  Where a chunk fails, its sessions are swept one by one.  One
 * that fails then is put off.  What fails before a session has been reached,
 * as to open the table or to read a page, is an error of the whole sweep.
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
	sm_check_cascades(schema);
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
		else if (next.from.at == chunk.from.at &&
				 ItemPointerCompare(&next.from.row, &chunk.from.row) == 0)
			ReThrowError(error);
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
	SmEventWriter *events;
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext,
												  "session_manager sweep",
												  ALLOCSET_DEFAULT_SIZES);
	int64		seen = 0;
	int64		worked_since = sm_clock();

	/* everybody locks user_sessions before session_events */
	sm_scan_by_sweep_at(&scan, chunk->schema, &chunk->from, chunk->now);
	events = sm_events_begin(chunk->schema);
	while (chunk->done < chunk->max_rows && sm_scan_next(&scan))
	{
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (chunk->sweep.rests && ++seen % REST_STEP == 0)
			worked_since = rest(worked_since);
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

/* Sleep for as long as the work since then has taken; returns the time. */
static int64
rest(int64 worked_since)
{
	int64		took = sm_clock() - worked_since;

	pg_usleep(Min(Max(took, MIN_REST_US), MAX_REST_US));
	return sm_clock();
}

/*
 * The session that "failed" was at cannot be swept.  Have it looked at again
 * when it has been due for twice as long; if not even that can be written,
 * pass over it.
 */
static void
put_off(Chunk *chunk, const Chunk *failed, ErrorData *error)
{
	Chunk		queue = *failed;
	ErrorData  *again;

	sm_failed(SM_STEP_SWEEP,
			  psprintf("session_manager could not delete or requeue session %s",
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
		int64		overdue = chunk->now - kept_until(chunk->schema, &scan.session);

		overdue = Min(Max(overdue, MIN_DELAY_US), MAX_DELAY_US);
		sm_change(&changes, Anum_sweep_at,
				  TimestampTzGetDatum(chunk->now + overdue));
		sm_scan_update(&scan, &changes);
	}
	sm_scan_end(&scan);
}

/* Delete a session or queue it again.  False if somebody is at it. */
static bool
sweep_session(SmScan *scan, SmEventWriter *events, TimestampTz now,
			  SmSweep *sweep)
{
	SmSession  *session = &scan->session;
	SmChanges	changes = {0};

	/* whether another server's session has ended is that server's to say */
	bool		ours = sm_holds_bucket(sm_id_bucket(session->session_id->data));

	if (ours && now >= kept_until(scan->schema, session))
	{
		SmEvent		event = {0};

		if (session->actor_session_id && !session->revoked &&
			now < sm_session_deadline(session) &&
			sm_actor_changes(scan->schema, session))
			return false;
		sm_event_of(&event, session);
		if (!sm_scan_delete(scan, false))
			return false;
		sweep->deleted++;
		/* how a revoked session ended is on record already */
		if (!session->revoked)
		{
			event.type = now >= Min(session->expires_at, session->absolute_expires_at)
				? SM_EVENT_EXPIRED
				: now >= sm_session_deadline(session)
				? SM_EVENT_IDLE : SM_EVENT_ACTOR_ENDED;
			sm_events_add(events, &event);
		}
		return true;
	}

	if (!sm_scan_lock(scan, LockTupleNoKeyExclusive, LockWaitSkip))
		return false;
	sm_change(&changes, Anum_sweep_at,
			  TimestampTzGetDatum(ours ? kept_until(scan->schema, session) :
								  now + MAX_DELAY_US));
	sm_scan_update(scan, &changes);
	sweep->requeued++;
	return true;
}

/* When a session's row may go. */
static TimestampTz
kept_until(const SmSchema *schema, const SmSession *session)
{
	TimestampTz until = sm_session_deadline(session);

	if (session->actor_session_id && !session->revoked)
		until = Min(until, sm_actor_deadline(schema, session));
	if (session->revoked)
		until = Max(until, session->revoked_at +
					(int64) sm_revoked_retention * USECS_PER_SEC);
	return until;
}
