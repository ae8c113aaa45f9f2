/*-------------------------------------------------------------------------
 *
 * history.c
 *	  session_history: reads the audit trail.
 *
 * Runs as the extension's owner, in a function with its own search_path.
 * The statement is planned for the arguments given: which of the partitions'
 * indexes serves depends on them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"

#include "arguments.h"
#include "authenticate.h"
#include "result.h"
#include "schema.h"

PG_FUNCTION_INFO_V1(sm_session_history);

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
	SmResult	result;
	char	   *sql;

	schema = sm_schema_of(fcinfo);
	if (!PG_ARGISNULL(0))
		sm_check_shard(sm_id_bucket(PG_GETARG_UUID_P(0)->data));
	if (!PG_ARGISNULL(1))
		sm_check_shard((uint16) sm_user_text_hash(PG_GETARG_TEXT_PP(1)));
	result = sm_result_begin(fcinfo);
	for (int i = 0; i < 3; i++)
	{
		args[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	sql = psprintf("SELECT event_id, at, session_id, user_id, tenant_id, event, ip, user_agent, detail"
				   " FROM %s WHERE true%s%s%s ORDER BY at DESC, event_id DESC",
				   sm_schema_qualify(schema, "session_events"),
				   PG_ARGISNULL(0) ? "" : " AND session_id = $1",
				   PG_ARGISNULL(1) ? "" : " AND user_id = $2",
				   PG_ARGISNULL(2) ? "" : " AND at >= $3");
	if (SPI_execute_with_args(sql, 3, types, args, nulls, true, max_rows) != SPI_OK_SELECT)
		elog(ERROR, "could not read session_events");
	for (uint64 row = 0; row < SPI_processed; row++)
		tuplestore_puttuple(result.store, SPI_tuptable->vals[row]);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	return (Datum) 0;
}
