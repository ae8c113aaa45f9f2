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
 * bound, or the binding, and the time at which it was issued.  The row keeps that
 * time of the last challenge that was answered.  Only later challenges can be
 * answered after that, so each is answered once at most.
 *
 * For the time that a proof would last, and five minutes at most, a session that
 * has just been bound works without one: some requests were sent before the
 * browser had it.
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
 * Where a proof is missing, the browser may be late, or have failed to renew it.
 * Not while the last one must be valid still, which the device would have sent;
 * nor for long after the last one, had its challenge been answered at the last
 * moment, would have expired.  A browser that does not wait for a proof, as when
 * the user comes by a link on another site, the application sees and excuses.
 */
#define MISSING_LIFETIMES		(CHALLENGE_LIFETIMES + 1)

/*
 * How long a session that has just been bound works without a proof at most.  A
 * lifetime of proofs that is made longer must not let in again who has been shut
 * out.
 */
#define MAX_UNPROVED_US		(5 * USECS_PER_MINUTE)

typedef struct Subject
{
	uint8		bytes[SM_STAMP_SUBJECT_LEN];
} Subject;

static int64 proof_lifetime(void);
static text *make_stamp(const SmSchema *schema, const Subject *about,
						TimestampTz at, const char *prefix);
static bool stamp_holds(const SmSchema *schema, const Subject *about,
						const SmStamp *stamp);
static Subject subject(char kind, const pg_uuid_t *id);
static Subject challenge_subject(const SmSession *session);
static TimestampTz stamp_time(const SmStamp *stamp);

/*
 * Read what follows a token: nothing, or a dot and a proof.  With a dot alone the
 * application says that it knows why there is none.
 */
void
sm_proof_read(const char *behind, size_t len, SmPresented *presented)
{
	if (len == 0)
		presented->kind = SM_PROOF_NONE;
	else if (len == 1)
		presented->kind = SM_PROOF_EXCUSED;
	else if (sm_stamp_parse(behind + 1, len - 1, SM_PROOF_PREFIX, &presented->stamp))
		presented->kind = SM_PROOF_FORMED;
	else
		presented->kind = SM_PROOF_MALFORMED;
}

/*
 * What is the proof worth that came with the token of a live session?
 */
SmProofVerdict
sm_proof_judge(const SmSchema *schema, const SmSession *session,
			   const SmPresented *presented, TimestampTz now)
{
	Subject		about;
	SmProofVerdict verdict = SM_PROOF_WRONG;

	if (session->device_binding_id == NULL)
		return SM_PROOF_NOT_NEEDED;
	about = subject(SUBJECT_PROOF, session->device_binding_id);
	if (presented->kind == SM_PROOF_NONE ||
		presented->kind == SM_PROOF_EXCUSED ||
		(presented->kind == SM_PROOF_FORMED &&
		 sm_key_find(schema, (int32) presented->stamp.key_id) == NULL))
		/* what a key made that was revoked is no sign of a thief */
		verdict = SM_PROOF_MISSING;
	else if (presented->kind == SM_PROOF_FORMED &&
			 stamp_holds(schema, &about, &presented->stamp))
	{
		if (now < stamp_time(&presented->stamp))
			return SM_PROOF_HOLDS;
		verdict = SM_PROOF_EXPIRED;
	}
	return now < session->device_bound_at + Min(proof_lifetime(), MAX_UNPROVED_US) ?
		SM_PROOF_NOT_NEEDED : verdict;
}

/*
 * Does what a session was refused for look like a thief, who has the token and
 * not the device?
 */
bool
sm_proof_suspicious(SmProofVerdict verdict, const SmSession *session,
					const SmPresented *presented, TimestampTz now)
{
	switch (verdict)
	{
		case SM_PROOF_HOLDS:
		case SM_PROOF_NOT_NEEDED:
			return false;
		case SM_PROOF_MISSING:
			return presented->kind != SM_PROOF_EXCUSED &&
				(now < session->device_proved_at + proof_lifetime() ||
				 now >= session->device_proved_at + MISSING_LIFETIMES * proof_lifetime());
		case SM_PROOF_EXPIRED:
			return now >= stamp_time(&presented->stamp) + proof_lifetime();
		case SM_PROOF_WRONG:
			break;
	}
	return true;
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

	proof.text = make_stamp(schema, &about, proof.expires_at, SM_PROOF_PREFIX);
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

	/* later than the last one, though the clock may have been set back */
	if (session->device_binding_id)
		now = Max(now, session->device_proved_at + 1);
	return make_stamp(schema, &about, now, SM_CHALLENGE_PREFIX);
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
make_stamp(const SmSchema *schema, const Subject *about, TimestampTz at,
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
	const SmKey *key = sm_key_find(schema, (int32) stamp->key_id);

	return key != NULL &&
		sm_stamp_holds(key->subkeys.device, about->bytes, sizeof(about->bytes), stamp);
}

/*
 * The time of a stamp whose MAC holds, so that it is one that fits.
 */
static TimestampTz
stamp_time(const SmStamp *stamp)
{
	return stamp->unix_us - UNIX_OFFSET;
}
