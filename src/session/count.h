/*-------------------------------------------------------------------------
 *
 * count.h
 *	  How many sessions are live.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_COUNT_H
#define SM_COUNT_H

#include "postgres.h"

#include "schema.h"

extern int64 sm_active_count(const SmSchema *schema, text *user_id,
							 text *tenant_id);
extern int64 sm_active_estimate(const SmSchema *schema);

#endif							/* SM_COUNT_H */
