/*-------------------------------------------------------------------------
 *
 * result.c
 *	  Rows that a set-returning function returns, in materialize mode.
 *
 * The caller's own row descriptor is used: looking the function's result
 * type up would cost session_get a tenth of its time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/execnodes.h"

#include "result.h"

static ReturnSetInfo *set_info(FunctionCallInfo fcinfo);

/*
 * Start returning rows, with tuplestore_putvalues.
 */
SmResult
sm_result_begin(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *info = set_info(fcinfo);
	MemoryContext old = MemoryContextSwitchTo(info->econtext->ecxt_per_query_memory);
	SmResult	result;

	result.store = tuplestore_begin_heap((info->allowedModes & SFRM_Materialize_Random) != 0,
										 false, work_mem);
	result.desc = info->expectedDesc;
	info->returnMode = SFRM_Materialize;
	info->setResult = result.store;
	MemoryContextSwitchTo(old);
	return result;
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
sm_result_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	SmResult	result = sm_result_begin(fcinfo);

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
