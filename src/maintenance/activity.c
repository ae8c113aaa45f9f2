/*-------------------------------------------------------------------------
 *
 * activity.c
 *	  Counts the events of session_events by the hour, so that nobody who wants
 *	  to see what has happened in a month reads the events of a month.
 *
 * Runs as the extension's owner, in a function with its own search_path.
 *
 * session_activity has the numbers of all events before a moment, and of none
 * after it: the latest "until" in the newest hour.  A step adds the events of a
 * slice of time, at most an hour, and moves that moment in the same
 * transaction, so that a crash leaves each event counted once.  The rows may be
 * deleted at any time: the next steps count again what the audit trail still
 * has.  They are not dumped, for the same reason.
 *
 * An event is written with the time of writing and becomes visible with its
 * transaction's commit.  A slice is therefore counted only MARGIN after its
 * end.  An event that becomes visible later is in the audit trail but is not
 * counted.
 *
 * The rows with an empty tenant_id count the events of all sessions; no session
 * has an empty tenant.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "guc.h"
#include "maintenance/activity.h"
#include "maintenance/contain.h"
#include "session/locks.h"
#include "spi.h"

/* How long after its end a slice is counted. */
#define MARGIN		(5 * USECS_PER_MINUTE)

/* Slices of the hour that is not over yet end at multiples of this. */
#define SLICE		(5 * USECS_PER_MINUTE)

/* How long a step goes on with the next slice. */
#define STEP_US		(USECS_PER_SEC / 2)

/* A step, and what it is called with. */
typedef struct Step
{
	const SmSchema *schema;
	bool		more;
} Step;

static void step(void *arg);
static bool count_slice(const SmSchema *schema, TimestampTz earliest,
						TimestampTz end);
static bool find_time(const char *sql, TimestampTz from, TimestampTz until,
					  TimestampTz *at);
static TimestampTz round_down(TimestampTz at, int64 width);
static void set_local(const char *name, const char *value);

/*
 * Count the events of this database, a transaction for each step.
 */
void
sm_activity_pass(SmPass *pass)
{
	bool		more;

	do
	{
		const SmSchema *schema = sm_pass_batch(pass, "counting session events");

		if (schema == NULL)
			return;
		/* a crash may undo a step, which is then done again */
		set_local("synchronous_commit", "off");
		more = sm_activity_step(schema);
		sm_batch_end();
	} while (more && !sm_pass_is_over(pass));
}

/*
 * Count what has not been counted yet, for about STEP_US.  True if another step
 * finds more to do.  SPI must be connected.
 */
bool
sm_activity_step(const SmSchema *schema)
{
	Step		call = {.schema = schema};
	ErrorData  *error;
	int			nest_level;

	/*
	 * An old snapshot does not see all events, and a clock that has jumped
	 * would have us count hours that are still to come.
	 */
	if (IsolationUsesXactSnapshot() || sm_clock_in_doubt())
		return false;
	/* two who count the same events would count them twice */
	if (!sm_lock_maintenance())
		return false;

	nest_level = NewGUCNestLevel();
	set_local("row_security", "off");
	/* there may be no statistics yet: always by the index on time */
	set_local("enable_seqscan", "off");
	set_local("enable_bitmapscan", "off");
	set_local("enable_sort", "off");
	/* which these make look worth it */
	set_local("jit", "off");
	error = sm_try(step, &call);
	if (error != NULL)
	{
		sm_failed(SM_STEP_PARTITIONS, "session_manager could not count session events", error);
		call.more = false;
	}
	AtEOXact_GUC(true, nest_level);
	return call.more;
}

static void
step(void *arg)
{
	Step	   *call = arg;
	int64		began = sm_clock();
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz end = round_down(now - MARGIN, SLICE);
	TimestampTz earliest = 0;	/* 2000-01-01 */
	Oid			types[] = {TIMESTAMPTZOID};
	Datum		value;

	/* in the order of a TRUNCATE of both, or either could wait for the other */
	LockRelationOid(call->schema->events, AccessShareLock);

	/* what was counted before the clock was set back */
	value = TimestampTzGetDatum(now);
	(void) sm_spi_execute_with(psprintf("DELETE FROM %s WHERE hour > $1",
										sm_schema_qualify(call->schema, "session_activity")),
							   1, types, &value, InvalidSnapshot);
	if (sm_event_retention > 0)
	{
		earliest = round_down(now - (int64) sm_event_retention * USECS_PER_SEC,
							  USECS_PER_HOUR);
		value = TimestampTzGetDatum(earliest);
		(void) sm_spi_execute_with(psprintf("DELETE FROM %s WHERE hour < $1",
											sm_schema_qualify(call->schema, "session_activity")),
								   1, types, &value, InvalidSnapshot);
	}
	do
	{
		call->more = count_slice(call->schema, earliest, end);
	} while (call->more && sm_clock() < began + STEP_US);
}

/*
 * Count the first events that have not been counted, up to the end of their
 * hour.  False if there are none between "earliest" and "end".
 */
static bool
count_slice(const SmSchema *schema, TimestampTz earliest, TimestampTz end)
{
	char	   *activity = sm_schema_qualify(schema, "session_activity");
	char	   *events = sm_schema_qualify(schema, "session_events");
	Oid			types[] = {TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum		values[3];
	TimestampTz from = earliest;
	TimestampTz counted;
	TimestampTz first;
	TimestampTz hour;

	if (find_time(psprintf("SELECT max(until) FROM %s WHERE tenant_id = '' AND hour ="
						   " (SELECT max(hour) FROM %s WHERE tenant_id = '' AND hour BETWEEN $1 AND $2)",
						   activity, activity),
				  DT_NOBEGIN, DT_NOEND, &counted))
		from = Max(from, counted);
	if (!find_time(psprintf("SELECT at FROM %s WHERE at >= $1 AND at < $2 ORDER BY at LIMIT 1", events),
				   from, end, &first))
		return false;
	hour = round_down(first, USECS_PER_HOUR);

	values[0] = TimestampTzGetDatum(hour);
	values[1] = TimestampTzGetDatum(Max(from, hour));
	values[2] = TimestampTzGetDatum(Min(end, hour + USECS_PER_HOUR));
	(void) sm_spi_execute_with(psprintf("INSERT INTO %s AS a (tenant_id, hour, event, reason, events, until)"
										" SELECT coalesce(tenant_id, ''), $1, event, reason, sum(events), $3"
										" FROM (SELECT tenant_id, event,"
										" coalesce(detail ->> 'reason', detail ->> 'cause', '') AS reason,"
										" CASE WHEN jsonb_typeof(detail -> 'suppressed') = 'number'"
										" THEN 1 + (detail -> 'suppressed')::bigint ELSE 1 END AS events"
										" FROM %s WHERE at >= $2 AND at < $3) AS e"
										" GROUP BY GROUPING SETS ((event, reason), (tenant_id, event, reason))"
										" HAVING grouping(tenant_id) = 1 OR tenant_id <> ''"
										" ON CONFLICT (tenant_id, hour, event, reason)"
										" DO UPDATE SET events = a.events + excluded.events, until = excluded.until",
										activity, events),
							   3, types, values, InvalidSnapshot);
	return true;
}

/*
 * The one time that a query with two times as parameters returns; false if it
 * is null or there is none.
 */
static bool
find_time(const char *sql, TimestampTz from, TimestampTz until, TimestampTz *at)
{
	Oid			types[] = {TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum		values[] = {TimestampTzGetDatum(from), TimestampTzGetDatum(until)};
	bool		isnull = true;

	if (sm_spi_execute_with(sql, 2, types, values, InvalidSnapshot) > 0)
		*at = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
												SPI_tuptable->tupdesc, 1, &isnull));
	return !isnull;
}

/* Of times after 2000, as those of events that are counted. */
static TimestampTz
round_down(TimestampTz at, int64 width)
{
	return at - at % width;
}

static void
set_local(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}
