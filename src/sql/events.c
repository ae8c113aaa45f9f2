/*-------------------------------------------------------------------------
 *
 * events.c
 *	  The functions that read the audit trail.
 *
 * session_history runs as the extension's owner, in a function with its own
 * search_path.
 *
 * The newest rows are to come off an index of each partition, and neither
 * whether nor which may be a matter of statistics: in a partition that was
 * never analyzed, or for a user whose events are all old, sorting them all or
 * walking through everybody's newest events looks cheap and is not.  So the
 * function is declared with enable_sort = off, which leaves the incremental
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
#include "utils/builtins.h"

#include "schema.h"
#include "session/authenticate.h"
#include "session/events.h"
#include "session/locks.h"
#include "spi.h"
#include "sql/arguments.h"
#include "sql/result.h"

PG_FUNCTION_INFO_V1(sm_session_history);
PG_FUNCTION_INFO_V1(sm_session_event_severity);

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
	static const Oid columns[Natts_session_events] = {
		INT8OID, TIMESTAMPTZOID, UUIDOID, TEXTOID, TEXTOID, TEXTOID, INETOID,
		TEXTOID, JSONBOID
	};
	Oid			types[3] = {UUIDOID, TEXTOID, TIMESTAMPTZOID};
	Datum		args[3];
	char		nulls[3];
	SmResult	result;
	TupleConversionMap *map;

	schema = sm_called_schema(fcinfo);
	if (!PG_ARGISNULL(0))
		sm_check_shard(sm_id_bucket(PG_GETARG_UUID_P(0)->data));
	if (!PG_ARGISNULL(1))
		sm_check_shard((uint16) sm_user_text_hash(PG_GETARG_TEXT_PP(1)));
	result = sm_result_begin_table(fcinfo, columns, lengthof(columns));
	for (int i = 0; i < 3; i++)
	{
		args[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}

	sm_spi_connect();
	if (SPI_execute_with_args(statement(fcinfo, schema, max_rows), 3, types,
							  args, nulls, true, 0) != SPI_OK_SELECT)
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
