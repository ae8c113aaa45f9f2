/*-------------------------------------------------------------------------
 *
 * result.c
 *	  Rows that a set-returning function returns, in materialize mode.
 *
 * The caller's own row descriptor is used: looking the function's result
 * type up would cost session_get a tenth of its time.  It is compared with
 * what the C code is about to return: the SQL of another version may declare
 * something else, and anybody's type may have been altered.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/regproc.h"

#include "sql/result.h"
#include "version.h"

static ReturnSetInfo *set_info(FunctionCallInfo fcinfo);
static SmResult begin(FunctionCallInfo fcinfo, const Oid *types, int n_types,
					  bool more);

/*
 * Start returning rows of these types, with tuplestore_putvalues.
 */
SmResult
sm_result_begin(FunctionCallInfo fcinfo, const Oid *types, int n_types)
{
	return begin(fcinfo, types, n_types, false);
}

/*
 * Start returning rows of a table, which may have columns of its owner's
 * behind these, with tuplestore_puttuple.
 */
SmResult
sm_result_begin_table(FunctionCallInfo fcinfo, const Oid *types, int n_types)
{
	return begin(fcinfo, types, n_types, true);
}

/*
 * Return no row.
 */
Datum
sm_result_none(FunctionCallInfo fcinfo)
{
	set_info(fcinfo)->returnMode = SFRM_Materialize;
	return (Datum) 0;
}

/*
 * Return one row.
 */
Datum
sm_result_row(FunctionCallInfo fcinfo, const Oid *types, int n_types,
			  Datum *values, bool *nulls)
{
	SmResult	result = sm_result_begin(fcinfo, types, n_types);

	tuplestore_putvalues(result.store, result.desc, values, nulls);
	return (Datum) 0;
}

static ReturnSetInfo *
set_info(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *info = (ReturnSetInfo *) fcinfo->resultinfo;

	if (info == NULL || !IsA(info, ReturnSetInfo) ||
		!(info->allowedModes & SFRM_Materialize) || info->expectedDesc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	return info;
}

static SmResult
begin(FunctionCallInfo fcinfo, const Oid *types, int n_types, bool more)
{
	ReturnSetInfo *info = set_info(fcinfo);
	TupleDesc	desc = info->expectedDesc;
	bool		same = (desc->natts == n_types || (more && desc->natts > n_types));
	MemoryContext old;
	SmResult	result;

	for (int i = 0; same && i < n_types; i++)
		same = (TupleDescAttr(desc, i)->atttypid == types[i] &&
				!TupleDescAttr(desc, i)->attisdropped);
	if (!same)
	{
		sm_version_check();
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("function %s does not have the result type that the session_manager library expects",
						format_procedure(fcinfo->flinfo->fn_oid)),
				 errhint("Undo the change of its result type, or install the same version of the library and the extension.  If the extension has just been updated, run the statement again.")));
	}

	old = MemoryContextSwitchTo(info->econtext->ecxt_per_query_memory);
	result.store = tuplestore_begin_heap((info->allowedModes & SFRM_Materialize_Random) != 0,
										 false, work_mem);
	result.desc = desc;
	info->returnMode = SFRM_Materialize;
	info->setResult = result.store;
	MemoryContextSwitchTo(old);
	return result;
}
