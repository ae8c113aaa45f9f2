/*-------------------------------------------------------------------------
 *
 * arguments.h
 *	  Arguments that several SQL functions take, checked alike.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_ARGUMENTS_H
#define SM_ARGUMENTS_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/jsonb.h"

#include "schema.h"
#include "session/authenticate.h"
#include "session/client.h"

/*
 * The relations of the extension whose function is being called.
 */
static inline const SmSchema *
sm_called_schema(FunctionCallInfo fcinfo)
{
	return sm_schema_of_function(fcinfo->flinfo->fn_oid);
}

extern const SmSchema *sm_arg_token(FunctionCallInfo fcinfo, SmToken *token);
extern text *sm_arg_user_id(FunctionCallInfo fcinfo, int n);
extern text *sm_arg_tenant_id(FunctionCallInfo fcinfo, int n);
extern text *sm_arg_audience(FunctionCallInfo fcinfo, int n);
extern text *sm_arg_reason(FunctionCallInfo fcinfo, int n);
extern SmClient sm_arg_client(FunctionCallInfo fcinfo, int n);
extern Jsonb *sm_arg_object(FunctionCallInfo fcinfo, int n, const char *name);
extern int64 sm_arg_lifetime(FunctionCallInfo fcinfo, int n, const char *name,
							 const char *setting, int64 longest, bool clamp);
extern int	sm_arg_max_rows(FunctionCallInfo fcinfo, int n);

#endif							/* SM_ARGUMENTS_H */
