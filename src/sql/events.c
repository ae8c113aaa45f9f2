/*-------------------------------------------------------------------------
 *
 * events.c
 *	  The functions that read the audit trail.
 *
 * session_history and session_critical_events run as the extension's owner, in
 * functions with their own search_path.
 *
 * The newest rows are to come off an index of each partition, and neither
 * whether nor which may be a matter of statistics: in a partition that was
 * never analyzed, or for a user whose events are all old, sorting them all or
 * walking through everybody's newest events looks cheap and is not.  So the
 * functions are declared with enable_sort = off, which leaves the incremental
 * sort of events of one time.  And the session or user is named in ORDER BY,
 * by which only its own index can sort, and is compared by = ANY: after a
 * plain = the planner would take the name out of ORDER BY again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupconvert.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"

#include "maintenance/activity.h"
#include "schema.h"
#include "session/authenticate.h"
#include "session/events.h"
#include "session/locks.h"
#include "spi.h"
#include "sql/arguments.h"
#include "sql/result.h"

PG_FUNCTION_INFO_V1(sm_session_history);
PG_FUNCTION_INFO_V1(sm_session_critical_events);
PG_FUNCTION_INFO_V1(sm_session_event_severity);

static Datum return_events(FunctionCallInfo fcinfo, const char *sql, int n,
						   Oid *types, Datum *args, const char *nulls);
static char *statement(FunctionCallInfo fcinfo, const SmSchema *schema,
					   int max_rows);

/*
 * session_history(session_id, user_id, since, max_rows)
 */
Datum
sm_session_history(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	int			max_rows = sm_arg_max_rows(fcinfo, 3);
	Oid			types[3] = {UUIDOID, TEXTOID, TIMESTAMPTZOID};
	Datum		args[3];
	char		nulls[3];

	schema = sm_called_schema(fcinfo);
	if (!PG_ARGISNULL(0))
		sm_check_shard(sm_id_bucket(PG_GETARG_UUID_P(0)->data));
	if (!PG_ARGISNULL(1))
		sm_check_shard((uint16) sm_user_text_hash(PG_GETARG_TEXT_PP(1)));
	for (int i = 0; i < 3; i++)
	{
		args[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	return return_events(fcinfo, statement(fcinfo, schema, max_rows), 3, types,
						 args, nulls);
}

/*
 * session_critical_events(max_rows, tenant_id)
 *
 * Critical events are few among many, and an index of them would cost each
 * login more than they are worth.  The numbers in session_activity tell in
 * which hours they are.  These hours are read from the newest back until
 * max_rows events are found: how many are found in an hour is not the number in
 * session_activity, which has those that were suppressed too and those that have
 * been deleted since.  That no more hours are read is up to the incremental sort,
 * which wants the events of one hour at a time.  Before them come the events that
 * maintenance has not counted yet, of which the newest SM_UNCOUNTED_EVENTS are
 * looked at.
 */
Datum
sm_session_critical_events(PG_FUNCTION_ARGS)
{
	const SmSchema *schema = sm_called_schema(fcinfo);
	char	   *activity = sm_schema_qualify(schema, "session_activity");
	char	   *events = sm_schema_qualify(schema, "session_events");
	char	   *critical = sm_events_are_critical();
	int			max_rows = sm_arg_max_rows(fcinfo, 0);
	text	   *tenant_id = sm_arg_tenant_id(fcinfo, 1);
	Oid			types[1] = {TEXTOID};
	Datum		args[1] = {tenant_id ? PointerGetDatum(tenant_id) : CStringGetTextDatum("")};

	/* in the order of a TRUNCATE of both, or either could wait for the other */
	LockRelationOid(schema->events, AccessShareLock);
	return return_events(fcinfo,
						 psprintf("WITH counted AS MATERIALIZED (SELECT coalesce(max(until), '-infinity') AS until FROM %s"
								  " WHERE tenant_id = '' AND hour = (SELECT max(hour) FROM %s WHERE tenant_id = ''))"
								  " SELECT * FROM (SELECT * FROM"
								  " (SELECT * FROM %s WHERE at >= (SELECT until FROM counted)"
								  " ORDER BY at DESC, event_id DESC LIMIT %d) AS uncounted WHERE %s AND ($1 = '' OR tenant_id = $1)"
								  " UNION ALL (SELECT e.* FROM"
								  " (SELECT hour FROM %s WHERE tenant_id = $1 AND %s GROUP BY hour ORDER BY hour DESC) AS h,"
								  " LATERAL (SELECT * FROM %s"
								  " WHERE at >= hour AND at < least(hour + interval '1 hour', (SELECT until FROM counted))"
								  " AND %s AND ($1 = '' OR tenant_id = $1) ORDER BY at DESC, event_id DESC LIMIT %d) AS e"
								  " ORDER BY hour DESC, e.at DESC, e.event_id DESC LIMIT %d)) AS found"
								  " ORDER BY at DESC, event_id DESC LIMIT %d",
								  activity, activity,
								  events, SM_UNCOUNTED_EVENTS, critical,
								  activity, critical,
								  events, critical, max_rows, max_rows, max_rows),
						 1, types, args, NULL);
}

/*
 * session_event_severity(event)
 */
Datum
sm_session_event_severity(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char *severity = sm_event_severity(name);

	if (severity == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(severity));
}

/* The rows of session_events that a statement finds. */
static Datum
return_events(FunctionCallInfo fcinfo, const char *sql, int n, Oid *types,
			  Datum *args, const char *nulls)
{
	static const Oid columns[Natts_session_events] = {
		INT8OID, TIMESTAMPTZOID, UUIDOID, TEXTOID, TEXTOID, TEXTOID, INETOID,
		TEXTOID, JSONBOID
	};
	SmResult	result = sm_result_begin_table(fcinfo, columns, lengthof(columns));
	TupleConversionMap *map;

	sm_spi_connect();
	if (SPI_execute_with_args(sql, n, types, args, nulls, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read session_events");

	/* a column that was dropped is missing from the one, not from the other */
	map = convert_tuples_by_name(SPI_tuptable->tupdesc, result.desc);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[row];

		tuplestore_puttuple(result.store,
							map ? execute_attr_map_tuple(tuple, map) : tuple);
	}
	sm_spi_finish();
	return (Datum) 0;
}

/* The statement for the arguments that are given. */
static char *
statement(FunctionCallInfo fcinfo, const SmSchema *schema, int max_rows)
{
	StringInfoData sql;
	const char *order = "";

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT * FROM %s WHERE true",
					 sm_schema_qualify(schema, "session_events"));
	if (!PG_ARGISNULL(0))
	{
		appendStringInfoString(&sql, " AND session_id = ANY (ARRAY[$1])");
		order = "session_id DESC, ";
		/* in a form that no index serves: the session's is the better one */
		if (!PG_ARGISNULL(1))
			appendStringInfoString(&sql, " AND (user_id = $2) IS TRUE");
	}
	else if (!PG_ARGISNULL(1))
	{
		appendStringInfoString(&sql, " AND user_id = ANY (ARRAY[$2])");
		order = "user_id DESC, ";
	}
	if (!PG_ARGISNULL(2))
		appendStringInfoString(&sql, " AND at >= $3");
	appendStringInfo(&sql, " ORDER BY %sat DESC, event_id DESC LIMIT %d",
					 order, max_rows);
	return sql.data;
}
