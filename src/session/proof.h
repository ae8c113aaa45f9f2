/*-------------------------------------------------------------------------
 *
 * proof.h
 *	  What a session that is bound to a device asks for beside its token.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_PROOF_H
#define SM_PROOF_H

#include "postgres.h"

#include "session/authenticate.h"
#include "session/events.h"
#include "session/store.h"

/* A proof of a session's device, and when it expires. */
typedef struct SmProof
{
	text	   *text;
	TimestampTz expires_at;
} SmProof;

extern bool sm_proved(const SmSchema *schema, SmToken *token,
					  const SmSession *session, SmEventType refused_as,
					  const SmClient *client);
extern bool sm_proof_holds(const SmSchema *schema, const SmToken *token,
						   const SmSession *session, TimestampTz now);
extern SmProof sm_make_proof(const SmSchema *schema, const SmSession *session,
							 TimestampTz now);
extern text *sm_make_challenge(const SmSchema *schema, const SmSession *session,
							   TimestampTz now);
extern bool sm_challenge_holds(const SmSchema *schema, const SmSession *session,
							   const text *challenge, TimestampTz now,
							   TimestampTz *issued_at);

#endif							/* SM_PROOF_H */
