/*-------------------------------------------------------------------------
 *
 * result.h
 *	  Rows that a set-returning function returns.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_RESULT_H
#define SM_RESULT_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/tuplestore.h"

typedef struct SmResult
{
	Tuplestorestate *store;
	TupleDesc	desc;
} SmResult;

extern SmResult sm_result_begin(FunctionCallInfo fcinfo, const Oid *types,
								int n_types);
extern SmResult sm_result_begin_table(FunctionCallInfo fcinfo,
									  const Oid *types, int n_types);
extern Datum sm_result_none(FunctionCallInfo fcinfo);
extern Datum sm_result_row(FunctionCallInfo fcinfo, const Oid *types,
						   int n_types, Datum *values, bool *nulls);

#endif							/* SM_RESULT_H */
