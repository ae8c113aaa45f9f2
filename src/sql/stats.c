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
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "maintenance/contain.h"
#include "schema.h"
#include "shared.h"
#include "sql/arguments.h"
#include "sql/result.h"

PG_FUNCTION_INFO_V1(sm_session_counters);
PG_FUNCTION_INFO_V1(sm_session_stats_reset);

/*
 * database_id, the counters, touches_pending, last pass, its age, next pass,
 * stats_reset, failures
 */
#define N_COLUMNS	(1 + SM_N_COUNTERS + 5 + 2 * SM_N_STEPS)

typedef struct Row
{
	Datum		values[N_COLUMNS];
	bool		nulls[N_COLUMNS];
	Interval	last_pass_age;
	SmFailure	failures[SM_N_STEPS];
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
	int			n_types = 0;
	int64		now = sm_clock();

	types[n_types++] = OIDOID;
	for (int i = 0; i < SM_N_COUNTERS + 1; i++)
		types[n_types++] = INT8OID;
	types[n_types++] = TIMESTAMPTZOID;
	types[n_types++] = INTERVALOID;
	types[n_types++] = TIMESTAMPTZOID;
	types[n_types++] = TIMESTAMPTZOID;
	for (int step = 0; step < SM_N_STEPS; step++)
	{
		types[n_types++] = TIMESTAMPTZOID;
		types[n_types++] = TEXTOID;
	}
	Assert(n_types == N_COLUMNS);
	result = sm_result_begin(fcinfo, types, N_COLUMNS);
	(void) sm_called_schema(fcinfo);
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
		memset(row, 0, sizeof(Row));
		row->values[n++] = ObjectIdGetDatum(database->oid);
		for (int c = 0; c < SM_N_COUNTERS; c++)
			row->values[n++] = Int64GetDatum((int64) pg_atomic_read_u64(&database->counters[c]));
		row->values[n++] = Int64GetDatum((int64) (pg_atomic_read_u64(&database->recorded) -
												  pg_atomic_read_u64(&database->flushed)));
		row->values[n] = TimestampTzGetDatum(database->last_pass_at);
		row->nulls[n++] = (database->last_pass_at == 0);
		row->last_pass_age.time = now - database->last_pass;
		row->values[n] = IntervalPGetDatum(&row->last_pass_age);
		row->nulls[n++] = (database->last_pass_at == 0);
		row->values[n] = TimestampTzGetDatum(GetCurrentTimestamp() + database->next_pass - now);
		row->nulls[n++] = (database->next_pass == 0);
		row->values[n++] = TimestampTzGetDatum(database->stats_reset);
		Assert(n == N_COLUMNS - 2 * SM_N_STEPS);
		memcpy(row->failures, sm_failures(database), sizeof(row->failures));
		n_rows++;
	}
	LWLockRelease(sm_shared->lock);

	for (int i = 0; i < n_rows; i++)
	{
		Row		   *row = &rows[i];
		int			n = N_COLUMNS - 2 * SM_N_STEPS;

		for (int step = 0; step < SM_N_STEPS; step++)
		{
			row->values[n] = TimestampTzGetDatum(row->failures[step].at);
			row->nulls[n++] = (row->failures[step].at == 0);
			row->values[n] = CStringGetTextDatum(row->failures[step].error);
			row->nulls[n++] = (row->failures[step].at == 0);
		}
		tuplestore_putvalues(result.store, result.desc, row->values, row->nulls);
	}
	pfree(rows);
	return (Datum) 0;
}

/*
 * session_stats_reset()
 */
Datum
sm_session_stats_reset(PG_FUNCTION_ARGS)
{
	(void) sm_called_schema(fcinfo);
	if (sm_database == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there are no counters to reset"),
				 errhint("Counters need session_manager in shared_preload_libraries.")));
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	for (int c = 0; c < SM_N_COUNTERS; c++)
		pg_atomic_write_u64(&sm_database->counters[c], 0);
	memset(sm_failures(sm_database), 0, SM_N_STEPS * sizeof(SmFailure));
	sm_database->stats_reset = GetCurrentTimestamp();
	LWLockRelease(sm_shared->lock);
	PG_RETURN_VOID();
}
