/*-------------------------------------------------------------------------
 *
 * maintenance.c
 *	  session_cleanup and session_reencrypt: what workers do, at a call; and
 *	  session_hand_over.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "guc.h"
#include "keys/keyring.h"
#include "maintenance/activity.h"
#include "maintenance/contain.h"
#include "maintenance/hand_over.h"
#include "maintenance/partition.h"
#include "maintenance/reseal.h"
#include "maintenance/sweep.h"
#include "schema.h"
#include "spi.h"
#include "sql/arguments.h"
#include "sql/result.h"

PG_FUNCTION_INFO_V1(sm_session_cleanup);
PG_FUNCTION_INFO_V1(sm_session_reencrypt);
PG_FUNCTION_INFO_V1(sm_session_hand_over);

/* Who called, and with which search_path. */
typedef struct Caller
{
	Oid			user;
	int			security_context;
	int			guc_level;
} Caller;

static int64 arg_count(FunctionCallInfo fcinfo, int n, const char *name,
					   int64 none);
static Caller become_owner(Oid function);
static void become_caller(const Caller *caller);

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
	Caller		caller;
	static const Oid types[] = {
		INT8OID, INT8OID, INT8OID, INT4OID, INT4OID, INT8OID
	};
	Datum		values[6];
	bool		nulls[6] = {false};

	PreventCommandIfReadOnly("session_cleanup()");
	max_rows = max_batches > 0 ? batch * max_batches : PG_INT64_MAX;

	/*
	 * Fires what the caller's transaction has deferred, which the caller may
	 * have written: never as the owner.  So this is no SECURITY DEFINER
	 * function.
	 */
	sm_check_at_once();
	schema = sm_called_schema(fcinfo);
	caller = become_owner(fcinfo->flinfo->fn_oid);
	(void) sm_sweep(schema, max_rows, &from, &sweep);

	sm_spi_connect();
	(void) sm_activity_step(sm_called_schema(fcinfo));
	/* last: what it locks stays locked until the transaction ends */
	(void) sm_partitions_step(sm_called_schema(fcinfo), max_rows,
							  &partitions);
	sm_spi_finish();
	become_caller(&caller);

	values[0] = Int64GetDatum(sweep.deleted);
	values[1] = Int64GetDatum(sweep.requeued);
	values[2] = Int64GetDatum(partitions.events_dropped);
	values[3] = Int32GetDatum(partitions.created);
	values[4] = Int32GetDatum(partitions.dropped);
	values[5] = Int64GetDatum(partitions.events_moved);
	return sm_result_row(fcinfo, types, lengthof(types), values, nulls);
}

/*
 * session_reencrypt(batch)
 */
Datum
sm_session_reencrypt(PG_FUNCTION_ARGS)
{
	static struct
	{
		Oid			relid;
		int32		key_id;
		pg_uuid_t	after;
	}			position;
	static const pg_uuid_t lowest = {{0}};
	SmReseal	reseal = {0};
	int64		resealed;
	bool		from_start;

	PreventCommandIfReadOnly("session_reencrypt()");
	if (PG_ARGISNULL(0) || PG_GETARG_INT32(0) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch must be greater than zero")));
	reseal.schema = sm_called_schema(fcinfo);
	sm_check_at_once();
	reseal.active = sm_key_active(reseal.schema)->id;
	if (position.relid != reseal.schema->sessions || position.key_id != reseal.active)
	{
		position.relid = reseal.schema->sessions;
		position.key_id = reseal.active;
		position.after = lowest;
	}
	reseal.after = position.after;
	do
	{
		from_start = memcmp(&reseal.after, &lowest, UUID_LEN) == 0;
		resealed = sm_reseal(&reseal, PG_GETARG_INT32(0));
		position.after = reseal.after;
	} while (reseal.at_end && !from_start && resealed == 0);
	if (resealed == 0 && reseal.skipped > 0)
		ereport(NOTICE,
				(errmsg("%lld sessions were skipped because they are being written",
						(long long) reseal.skipped),
				 errhint("Call session_reencrypt() again.")));
	PG_RETURN_INT64(resealed);
}

/*
 * session_hand_over()
 */
Datum
sm_session_hand_over(PG_FUNCTION_ARGS)
{
	PreventCommandDuringRecovery("session_hand_over()");
	PreventCommandIfReadOnly("session_hand_over()");
	sm_hand_over(sm_called_schema(fcinfo));
	PG_RETURN_VOID();
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

/*
 * Go on as the owner of a function, as fmgr.c does for SECURITY DEFINER with
 * SET search_path.  An error takes it back with the transaction.
 */
static Caller
become_owner(Oid function)
{
	Caller		caller;
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);

	GetUserIdAndSecContext(&caller.user, &caller.security_context);
	SetUserIdAndSecContext(owner,
						   caller.security_context | SECURITY_LOCAL_USERID_CHANGE);
	caller.guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	return caller;
}

static void
become_caller(const Caller *caller)
{
	AtEOXact_GUC(true, caller->guc_level);
	SetUserIdAndSecContext(caller->user, caller->security_context);
}
