/*-------------------------------------------------------------------------
 *
 * stats.c
 *	  The counters as SQL shows them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "result.h"
#include "schema.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(sm_session_counters);
PG_FUNCTION_INFO_V1(sm_session_stats_reset);

/* database_id, the counters, touches_pending, two passes, stats_reset */
#define N_COLUMNS	(1 + SM_N_COUNTERS + 4)

typedef struct Row
{
	Datum		values[N_COLUMNS];
	bool		nulls[N_COLUMNS];
} Row;

/*
 * session_counters()
 */
Datum
sm_session_counters(PG_FUNCTION_ARGS)
{
	Oid			types[N_COLUMNS];
	SmResult	result;
	Row		   *rows;
	int			n_rows = 0;

	types[0] = OIDOID;
	for (int i = 1; i < N_COLUMNS - 3; i++)
		types[i] = INT8OID;
	for (int i = N_COLUMNS - 3; i < N_COLUMNS; i++)
		types[i] = TIMESTAMPTZOID;
	result = sm_result_begin(fcinfo, types, N_COLUMNS);
	(void) sm_schema_of(fcinfo);
	if (sm_shared == NULL)
		return (Datum) 0;

	/* copied first: who fills a tuplestore may allocate, and write to a file */
	rows = palloc(SM_MAX_DATABASES * sizeof(Row));
	LWLockAcquire(sm_shared->lock, LW_SHARED);
	for (int i = 0; i < SM_MAX_DATABASES; i++)
	{
		SmDatabase *database = &sm_shared->databases[i];
		Row		   *row = &rows[n_rows];
		int			n = 0;

		/* a database without the extension has nothing to tell */
		if (!OidIsValid(database->oid) || database->state == SM_DB_WITHOUT)
			continue;
		memset(row->nulls, false, sizeof(row->nulls));
		row->values[n++] = ObjectIdGetDatum(database->oid);
		for (int c = 0; c < SM_N_COUNTERS; c++)
			row->values[n++] = Int64GetDatum((int64) pg_atomic_read_u64(&database->counters[c]));
		row->values[n++] = Int64GetDatum((int64) (pg_atomic_read_u64(&database->noted) -
												  pg_atomic_read_u64(&database->flushed)));
		row->values[n] = TimestampTzGetDatum(database->last_pass_at);
		row->nulls[n++] = (database->last_pass_at == 0);
		row->values[n] = TimestampTzGetDatum(database->next_pass_at);
		row->nulls[n++] = (database->next_pass_at == 0);
		row->values[n++] = TimestampTzGetDatum(database->stats_reset);
		Assert(n == N_COLUMNS);
		n_rows++;
	}
	LWLockRelease(sm_shared->lock);

	for (int i = 0; i < n_rows; i++)
		tuplestore_putvalues(result.store, result.desc, rows[i].values, rows[i].nulls);
	pfree(rows);
	return (Datum) 0;
}

/*
 * session_stats_reset()
 */
Datum
sm_session_stats_reset(PG_FUNCTION_ARGS)
{
	(void) sm_schema_of(fcinfo);
	if (sm_database == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there are no counters to reset"),
				 errhint("Counters need session_manager in shared_preload_libraries.")));
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	for (int c = 0; c < SM_N_COUNTERS; c++)
		pg_atomic_write_u64(&sm_database->counters[c], 0);
	sm_database->stats_reset = GetCurrentTimestamp();
	LWLockRelease(sm_shared->lock);
	PG_RETURN_VOID();
}
