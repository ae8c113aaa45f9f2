/*-------------------------------------------------------------------------
 *
 * authenticate.h
 *	  Does a token belong to a session, and is the session alive?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_AUTHENTICATE_H
#define SM_AUTHENTICATE_H

#include "postgres.h"

#include "session/events.h"
#include "session/proof.h"
#include "session/store.h"
#include "shared.h"

/* SQLSTATE SM005: session_wrong_shard */
#define ERRCODE_SM_WRONG_SHARD	MAKE_SQLSTATE('S', 'M', '0', '0', '5')

typedef enum SmMatch
{
	SM_MATCH_NONE,
	SM_MATCH_CURRENT,
	SM_MATCH_PREVIOUS			/* the token before the last rotation */
} SmMatch;

/* A token, or its digest form, and what is behind it, taken apart. */
typedef struct SmToken
{
	uint8		id[SM_ID_LEN];
	uint8		digest[SM_DIGEST_LEN];
	SmPresented proof;
	bool		proved;			/* that is one of its session's device */
	SmMatch		match;			/* once sm_find has found its session */
} SmToken;

typedef enum SmLife
{
	SM_LIFE_ACTIVE,
	SM_LIFE_EXPIRED,
	SM_LIFE_IDLE,
	SM_LIFE_REVOKED,
	SM_LIFE_ACTOR_ENDED			/* the session of who acts as the user ended */
} SmLife;

/* What came of looking for a live session; in the order of the counters. */
typedef enum SmLookup
{
	SM_LOOKUP_LIVE = SM_GET_HIT,
	SM_LOOKUP_UNKNOWN = SM_GET_UNKNOWN,
	SM_LOOKUP_EXPIRED = SM_GET_EXPIRED,
	SM_LOOKUP_IDLE = SM_GET_IDLE,
	SM_LOOKUP_REVOKED = SM_GET_REVOKED,
	SM_LOOKUP_REJECTED = SM_GET_REJECTED,
	SM_LOOKUP_UNPROVED = SM_GET_UNPROVED	/* its device's proof is missing */
} SmLookup;

extern bool sm_token_from_text(text *text, SmToken *token);
extern void sm_check_shard(uint16 bucket);
extern SmMatch sm_authenticate(const SmSchema *schema,
							   const SmSession *session, const SmToken *token);
extern bool sm_token_works(const SmSession *session, SmMatch match,
						   TimestampTz now);
extern bool sm_proved(const SmSchema *schema, SmToken *token,
					  const SmSession *session, SmEventType refused_as,
					  const SmClient *client);
extern SmProofVerdict sm_proof_verdict(const SmSchema *schema,
									   const SmSession *session,
									   const SmToken *token, TimestampTz now,
									   bool *suspicious);
extern bool sm_in_grace(const SmSession *session, TimestampTz now);
extern SmLife sm_session_life(const SmSchema *schema, const SmSession *session,
							  TimestampTz now);
extern SmLife sm_session_own_life(const SmSchema *schema,
								  const SmSession *session, TimestampTz now);
extern bool sm_actor_lives(const SmSchema *schema, const SmSession *session,
						   TimestampTz now);
extern TimestampTz sm_actor_deadline(const SmSchema *schema,
									 const SmSession *session);
extern bool sm_actor_changes(const SmSchema *schema, const SmSession *session);
extern bool sm_session_key_revoked(const SmSchema *schema,
								   const SmSession *session);
extern int64 sm_session_idle_timeout(const SmSession *session);
extern TimestampTz sm_session_deadline(const SmSession *session);
extern SmMatch sm_find(SmScan *scan, const SmSchema *schema,
					   SmToken *token, LOCKMODE lockmode,
					   SmEventType refused_as, const SmClient *client);
extern SmLookup sm_find_live(SmScan *scan, const SmSchema *schema,
							 SmToken *token, LOCKMODE lockmode,
							 SmEventType refused_as, const SmClient *client);
extern SmLookup sm_find_live_unproved(SmScan *scan, const SmSchema *schema,
									  SmToken *token, LOCKMODE lockmode,
									  SmEventType refused_as,
									  const SmClient *client);
extern bool sm_find_live_id(SmScan *scan, const SmSchema *schema,
							const pg_uuid_t *id, const text *user_id);
extern bool sm_lock_own(SmScan *scan, SmToken *token);
extern bool sm_lock_live(SmScan *scan, SmToken *token);
extern void sm_refused(const SmSchema *schema, SmEventType type,
					   const SmToken *token, const SmSession *session,
					   const char *cause, const SmClient *client);
extern void sm_event_of_unlocked(const SmSchema *schema, SmEvent *event);

#endif							/* SM_AUTHENTICATE_H */
