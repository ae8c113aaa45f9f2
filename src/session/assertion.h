/*-------------------------------------------------------------------------
 *
 * assertion.h
 *	  What a database says of a session, signed, for another database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_ASSERTION_H
#define SM_ASSERTION_H

#include "postgres.h"

#include "utils/jsonb.h"

#include "schema.h"
#include "session/store.h"

extern text *sm_assert(const SmSchema *schema, const SmSession *session,
					   const text *audience, TimestampTz now,
					   TimestampTz until);
extern bool sm_is_assertion(const text *credential);
extern bool sm_assertion_opens(const SmSchema *schema, const text *assertion,
							   TimestampTz now, SmSession *session);
extern bool sm_issuer_trusted(const SmSchema *schema, const pg_uuid_t *issuer);
extern Jsonb *sm_assertion_keys(const SmSchema *schema);
extern bool sm_assertion_key_read(const JsonbContainer *key,
								  uint8 public_key[SM_PUBLIC_KEY_LEN]);

#endif							/* SM_ASSERTION_H */
