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
#include "utils/inet.h"
#include "utils/jsonb.h"

extern text *sm_arg_user_id(FunctionCallInfo fcinfo, int n);
extern text *sm_arg_tenant_id(FunctionCallInfo fcinfo, int n);
extern text *sm_arg_reason(FunctionCallInfo fcinfo, int n);
extern inet *sm_arg_ip(FunctionCallInfo fcinfo, int n);
extern text *sm_arg_user_agent(FunctionCallInfo fcinfo, int n);
extern Jsonb *sm_arg_object(FunctionCallInfo fcinfo, int n, const char *name);
extern int64 sm_arg_lifetime(FunctionCallInfo fcinfo, int n, const char *name,
							 int64 longest, bool clamp);
extern int	sm_arg_max_rows(FunctionCallInfo fcinfo, int n);
extern void sm_check_size(const Jsonb *object, const char *name);

#endif							/* SM_ARGUMENTS_H */
