/*-------------------------------------------------------------------------
 *
 * proof.c
 *	  What a session that is bound to a device asks for beside its token.
 *
 * A browser that keeps a private key in its hardware proves every few minutes
 * that it still has it; the application checks the signature.  What the browser
 * gets for it is a proof: a time until which the session may be used, under a
 * MAC.  It comes along behind the token, and the token alone does not work.
 *
 * A proof is not stored.  So a new one writes nothing that a read has to wait
 * for, works at once on a standby that lags, and two tabs that each have one do
 * not disturb each other.  It covers the id of the binding, which is random and
 * goes with the session to another tenant, but not the token: a rotation needs
 * no new proof.  Nobody can have a proof made without the token of the session,
 * see binding.c.
 *
 * A challenge is what the browser signs.  It covers the session that is to be
 * bound, or the binding, and when it was issued.  A binding records of the last
 * challenge that was answered when that was issued; only later ones can be
 * answered from then on, each of them once.
 *
 * For the time that a proof would last, a session that has just been bound
 * works without one: requests are under way that know nothing of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "keys/keyring.h"
#include "session/proof.h"

/* From PostgreSQL's epoch to 1970, in microseconds. */
#define UNIX_OFFSET \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* What a stamp is about: the first byte of its subject. */
#define SUBJECT_PROOF			'P'
#define SUBJECT_CHALLENGE		'C' /* to a device that is bound */
#define SUBJECT_REGISTRATION	'R' /* to one that is to be bound */

/*
 * A challenge is handed out ahead, to be answered when the proof expires.
 */
#define CHALLENGE_LIFETIMES		2

/*
 * A browser that is late, or whose refresh failed, is no thief.  A proof is
 * missing for long when the last one, had its challenge been answered at the
 * last moment, would have expired.
 */
#define MISSING_LIFETIMES		(CHALLENGE_LIFETIMES + 1)

typedef enum Verdict
{
	VERDICT_HOLDS,
	VERDICT_MISSING,
	VERDICT_EXPIRED,
	VERDICT_WRONG
} Verdict;

typedef struct Subject
{
	uint8		bytes[SM_STAMP_SUBJECT_LEN];
} Subject;

static bool unproved_works(const SmSession *session, TimestampTz now);
static Verdict judge(const SmSchema *schema, const SmToken *token,
					 const SmSession *session, TimestampTz now);
static bool suspicious(Verdict verdict, const SmToken *token,
					   const SmSession *session, TimestampTz now);
static int64 proof_lifetime(void);
static Subject subject(char kind, const pg_uuid_t *id);
static Subject challenge_subject(const SmSession *session);
static text *stamp_text(const SmSchema *schema, const Subject *about,
						TimestampTz at, const char *prefix);
static bool stamp_holds(const SmSchema *schema, const Subject *about,
						const SmStamp *stamp);
static TimestampTz stamp_time(const SmStamp *stamp);

/*
 * May the live session of a token, which is bound to a device, be used: has the
 * device proved itself, or has the binding just been made?  What is missing is
 * recorded, and is critical if it looks like a thief who has the token and not
 * the device.
 */
bool
sm_proved(const SmSchema *schema, SmToken *token,
		  const SmSession *session, SmEventType refused_as,
		  const SmClient *client)
{
	static const char *const causes[] = {
		[VERDICT_MISSING] = "proof_missing",
		[VERDICT_EXPIRED] = "proof_expired",
		[VERDICT_WRONG] = "proof_wrong"
	};
	TimestampTz now = GetCurrentTimestamp();
	Verdict		verdict;

	verdict = judge(schema, token, session, now);
	token->proved = (verdict == VERDICT_HOLDS);
	if (token->proved || unproved_works(session, now))
		return true;
	sm_count(SM_DEVICE_PROOFS_FAILED);
	sm_refused(schema,
			   suspicious(verdict, token, session, now) ?
			   SM_EVENT_DEVICE_PROOF_FAILED : refused_as,
			   token, session, causes[verdict], client);
	return false;
}

/*
 * The same without a record of it, for a session that may be bound to none.
 */
bool
sm_proof_holds(const SmSchema *schema, const SmToken *token,
			   const SmSession *session, TimestampTz now)
{
	return session->device_binding_id == NULL ||
		unproved_works(session, now) ||
		judge(schema, token, session, now) == VERDICT_HOLDS;
}

/*
 * A proof for a session that is bound.  The caller has seen the device's
 * signature.
 */
SmProof
sm_make_proof(const SmSchema *schema, const SmSession *session,
			  TimestampTz now)
{
	Subject		about = subject(SUBJECT_PROOF, session->device_binding_id);
	SmProof		proof = {.expires_at = now + proof_lifetime()};

	proof.text = stamp_text(schema, &about, proof.expires_at, SM_PROOF_PREFIX);
	return proof;
}

/*
 * A challenge to the device that a session is bound to, or is to be bound to.
 */
text *
sm_make_challenge(const SmSchema *schema, const SmSession *session,
				  TimestampTz now)
{
	Subject		about = challenge_subject(session);

	return stamp_text(schema, &about, now, SM_CHALLENGE_PREFIX);
}

/*
 * Is a challenge one that a session's device may answer now?  Says when it was
 * issued.
 */
bool
sm_challenge_holds(const SmSchema *schema, const SmSession *session,
				   const text *challenge, TimestampTz now,
				   TimestampTz *issued_at)
{
	Subject		about = challenge_subject(session);
	SmStamp		stamp;

	if (!sm_stamp_parse(VARDATA_ANY(challenge), VARSIZE_ANY_EXHDR(challenge),
						SM_CHALLENGE_PREFIX, &stamp) ||
		!stamp_holds(schema, &about, &stamp))
		return false;
	*issued_at = stamp_time(&stamp);
	return *issued_at + CHALLENGE_LIFETIMES * proof_lifetime() > now &&
		(session->device_binding_id == NULL ||
		 *issued_at > session->device_proved_at);
}

static bool
unproved_works(const SmSession *session, TimestampTz now)
{
	return now < session->device_bound_at + proof_lifetime();
}

static Verdict
judge(const SmSchema *schema, const SmToken *token, const SmSession *session,
	  TimestampTz now)
{
	Subject		about = subject(SUBJECT_PROOF, session->device_binding_id);

	switch (token->proof_kind)
	{
		case SM_PROOF_NONE:
			return VERDICT_MISSING;
		case SM_PROOF_MALFORMED:
			return VERDICT_WRONG;
		case SM_PROOF_FORMED:
			break;
	}
	if (!stamp_holds(schema, &about, &token->proof))
		return VERDICT_WRONG;
	return now < stamp_time(&token->proof) ? VERDICT_HOLDS : VERDICT_EXPIRED;
}

static bool
suspicious(Verdict verdict, const SmToken *token, const SmSession *session,
		   TimestampTz now)
{
	switch (verdict)
	{
		case VERDICT_HOLDS:
			return false;
		case VERDICT_MISSING:
			return now >= Max(session->device_bound_at, session->device_proved_at) +
				MISSING_LIFETIMES * proof_lifetime();
		case VERDICT_EXPIRED:
			return now >= stamp_time(&token->proof) + proof_lifetime();
		case VERDICT_WRONG:
			break;
	}
	return true;
}

static int64
proof_lifetime(void)
{
	return (int64) sm_device_proof_lifetime * USECS_PER_SEC;
}

static Subject
subject(char kind, const pg_uuid_t *id)
{
	Subject		about;

	about.bytes[0] = (uint8) kind;
	memcpy(about.bytes + 1, id->data, SM_ID_LEN);
	return about;
}

static Subject
challenge_subject(const SmSession *session)
{
	return session->device_binding_id ?
		subject(SUBJECT_CHALLENGE, session->device_binding_id) :
		subject(SUBJECT_REGISTRATION, session->session_id);
}

static text *
stamp_text(const SmSchema *schema, const Subject *about, TimestampTz at,
		   const char *prefix)
{
	const SmKey *key = sm_key_active(schema);
	SmStamp		stamp = {
		.key_id = (uint32) key->id,
		.unix_us = at + UNIX_OFFSET
	};
	text	   *result = palloc(VARHDRSZ + SM_STAMP_LEN);

	sm_stamp_mac(key->subkeys.device, about->bytes, sizeof(about->bytes), &stamp);
	SET_VARSIZE(result, VARHDRSZ + SM_STAMP_LEN);
	sm_stamp_format(&stamp, prefix, VARDATA(result));
	return result;
}

/*
 * Is a stamp one of this database's about a subject?  Which key made it, the
 * stamp itself says: whoever made it up must not get an error for a key that is
 * not there, and what a revoked key made is worth nothing.
 */
static bool
stamp_holds(const SmSchema *schema, const Subject *about, const SmStamp *stamp)
{
	int32		key_id = (int32) stamp->key_id;

	return sm_key_present(schema, key_id) && !sm_key_revoked(schema, key_id) &&
		sm_stamp_holds(sm_key_usable(schema, key_id)->subkeys.device,
					   about->bytes, sizeof(about->bytes), stamp);
}

/*
 * The time of a stamp whose MAC holds, so that it is one that fits.
 */
static TimestampTz
stamp_time(const SmStamp *stamp)
{
	return stamp->unix_us - UNIX_OFFSET;
}
