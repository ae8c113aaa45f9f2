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

#include "keys/token.h"
#include "session/store.h"

/* What came behind a token. */
typedef struct SmPresented
{
	enum
	{
		SM_PROOF_NONE,
		SM_PROOF_EXCUSED,		/* nothing behind a dot */
		SM_PROOF_MALFORMED,
		SM_PROOF_FORMED
	}			kind;
	SmStamp		stamp;			/* if it is formed */
} SmPresented;

/* What it is worth. */
typedef enum SmProofVerdict
{
	SM_PROOF_HOLDS,
	SM_PROOF_NOT_NEEDED,		/* whatever came */
	SM_PROOF_MISSING,
	SM_PROOF_EXPIRED,
	SM_PROOF_WRONG
} SmProofVerdict;

/* A proof of a session's device, and when it expires. */
typedef struct SmProof
{
	text	   *text;
	TimestampTz expires_at;
} SmProof;

extern void sm_proof_read(const char *behind, size_t len, SmPresented *presented);
extern SmProofVerdict sm_proof_judge(const SmSchema *schema,
									 const SmSession *session,
									 const SmPresented *presented,
									 TimestampTz now);
extern bool sm_proof_suspicious(SmProofVerdict verdict, const SmSession *session,
								const SmPresented *presented, TimestampTz now);
extern SmProof sm_make_proof(const SmSchema *schema, const SmSession *session,
							 TimestampTz now);
extern text *sm_make_challenge(const SmSchema *schema, const SmSession *session,
							   TimestampTz now);
extern bool sm_challenge_holds(const SmSchema *schema, const SmSession *session,
							   const text *challenge, TimestampTz now,
							   TimestampTz *issued_at);

#endif							/* SM_PROOF_H */
