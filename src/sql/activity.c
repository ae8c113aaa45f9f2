/*-------------------------------------------------------------------------
 *
 * activity.c
 *	  The functions that tell how much has happened, and who has many sessions.
 *
 * They run as the extension's owner, in functions with their own search_path.
 *
 * session_activity adds the events that maintenance has not counted yet to the
 * numbers that it has, see src/maintenance/activity.c.  Of the former it reads
 * SM_UNCOUNTED_EVENTS at most, in the order of time, and says in "until" how far
 * that goes: its cost is bounded also where no maintenance has run for days.
 * These events are to come off an index of each partition, without a sort, also
 * where there are no statistics; hence enable_sort = off.  What has to be sorted
 * after all then looks so expensive that jit has to be off.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "maintenance/activity.h"
#include "schema.h"
#include "spi.h"
#include "sql/arguments.h"
#include "sql/result.h"

PG_FUNCTION_INFO_V1(sm_session_activity);
PG_FUNCTION_INFO_V1(sm_session_top);

static TimestampTz uncounted_from(const char *activity, TimestampTz since);
static Datum return_rows(SmResult *result,
						 const char *sql, int n, Oid *types, Datum *args,
						 const char *nulls);

/*
 * session_activity(since, tenant_id)
 */
Datum
sm_session_activity(PG_FUNCTION_ARGS)
{
	static const Oid columns[] = {
		TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, INT8OID
	};
	const SmSchema *schema = sm_called_schema(fcinfo);
	char	   *activity = sm_schema_qualify(schema, "session_activity");
	TimestampTz since = PG_ARGISNULL(0) ?
		GetCurrentTimestamp() - USECS_PER_DAY : PG_GETARG_TIMESTAMPTZ(0);
	text	   *tenant_id = sm_arg_tenant_id(fcinfo, 1);
	SmResult	result = sm_result_begin(fcinfo, columns, lengthof(columns));
	Oid			types[4] = {TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum		args[4];

	/* the hour in which "since" is, as a whole */
	since = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_trunc_zone,
													CStringGetTextDatum("hour"),
													TimestampTzGetDatum(since),
													CStringGetTextDatum("UTC")));
	args[0] = TimestampTzGetDatum(since);
	args[1] = tenant_id ? PointerGetDatum(tenant_id) : CStringGetTextDatum("");
	args[3] = TimestampTzGetDatum(GetCurrentTimestamp());

	/* in the order of a TRUNCATE of both, or either could wait for the other */
	LockRelationOid(schema->events, AccessShareLock);
	sm_spi_connect();
	args[2] = TimestampTzGetDatum(uncounted_from(activity, since));
	return return_rows(&result,
					   psprintf("WITH uncounted AS MATERIALIZED (SELECT date_trunc('hour', at, 'UTC') AS hour, at, tenant_id,"
								" event, detail FROM %s WHERE at >= $3 ORDER BY at LIMIT %d),"
								" reach AS (SELECT CASE WHEN count(*) < %d THEN greatest(max(at), $4) ELSE max(at) END AS at FROM uncounted)"
								" SELECT hour, least(hour + interval '1 hour', (SELECT at FROM reach)), event, nullif(reason, ''), sum(events)::bigint FROM ("
								" SELECT hour, event, reason, events FROM %s WHERE tenant_id = $2 AND hour >= $1"
								" UNION ALL"
								" SELECT hour, event, coalesce(detail ->> 'reason', detail ->> 'cause', ''),"
								" CASE WHEN jsonb_typeof(detail -> 'suppressed') = 'number'"
								" THEN 1 + (detail -> 'suppressed')::bigint ELSE 1 END"
								" FROM uncounted WHERE $2 = '' OR tenant_id = $2) AS e"
								" GROUP BY hour, event, reason ORDER BY hour, event, reason",
								sm_schema_qualify(schema, "session_events"), SM_UNCOUNTED_EVENTS,
								SM_UNCOUNTED_EVENTS, activity),
					   4, types, args, NULL);
}

/*
 * session_top(max_rows, tenant_id)
 */
Datum
sm_session_top(PG_FUNCTION_ARGS)
{
	static const Oid columns[] = {TEXTOID, INT8OID, TIMESTAMPTZOID};
	char	   *sessions = sm_schema_qualify(sm_called_schema(fcinfo), "user_sessions");
	int			max_rows = sm_arg_max_rows(fcinfo, 0);
	text	   *tenant_id = sm_arg_tenant_id(fcinfo, 1);
	const char *condition = tenant_id ? "tenant_id = $1" : "true";
	SmResult	result = sm_result_begin(fcinfo, columns, lengthof(columns));
	Oid			types[1] = {TEXTOID};
	Datum		args[1] = {PointerGetDatum(tenant_id)};

	sm_spi_connect();
	/* first the numbers, for which an index is enough */
	return return_rows(&result,
					   psprintf("SELECT t.user_id, t.sessions,"
								" (SELECT max(s.last_seen_at) FROM %s s WHERE s.user_id = t.user_id AND %s)"
								" FROM (SELECT user_id, count(*) AS sessions FROM %s WHERE %s"
								" GROUP BY user_id ORDER BY 2 DESC, 1 LIMIT %d) AS t"
								" ORDER BY 2 DESC, 1",
								sessions, condition, sessions, condition, max_rows),
					   1, types, args, tenant_id ? " " : "n");
}

/*
 * From when on maintenance has counted nothing, but not before "since".
 */
static TimestampTz
uncounted_from(const char *activity, TimestampTz since)
{
	bool		isnull;
	Datum		counted;

	if (SPI_execute(psprintf("SELECT max(until) FROM %s WHERE tenant_id = '' AND hour ="
							 " (SELECT max(hour) FROM %s WHERE tenant_id = '')",
							 activity, activity),
					true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read session_activity");
	counted = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? since : Max(since, DatumGetTimestampTz(counted));
}

/* The rows that a statement finds; ends SPI. */
static Datum
return_rows(SmResult *result, const char *sql, int n,
			Oid *types, Datum *args, const char *nulls)
{
	if (SPI_execute_with_args(sql, n, types, args, nulls, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read what the extension has counted");
	for (uint64 row = 0; row < SPI_processed; row++)
		tuplestore_puttuple(result->store, SPI_tuptable->vals[row]);
	sm_spi_finish();
	return (Datum) 0;
}
