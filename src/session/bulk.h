/*-------------------------------------------------------------------------
 *
 * bulk.h
 *	  What is done without a token to one session, or to all of a user, of a
 *	  tenant, of the database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_BULK_H
#define SM_BULK_H

#include "postgres.h"

#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "schema.h"

extern text *sm_invalidate_id(const SmSchema *schema, const pg_uuid_t *id,
							  const text *user_id, text *reason);
extern int64 sm_invalidate_user(const SmSchema *schema, text *user_id,
								text *except_token, const text *tenant_id,
								text *reason);
extern int64 sm_invalidate_tenant(const SmSchema *schema, text *tenant_id,
								  text *reason);
extern int64 sm_update_user(const SmSchema *schema, text *user_id,
							const text *tenant_id, Jsonb *patch);

extern bool sm_live_id(const SmSchema *schema, text *token_text, pg_uuid_t *id);
extern MemoryContext sm_row_context(void);

#endif							/* SM_BULK_H */
