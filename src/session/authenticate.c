/*-------------------------------------------------------------------------
 *
 * authenticate.c
 *	  Does a token belong to a session, and is the session alive?
 *
 * What presents a token learns one thing only, whether it is that of a live
 * session.  An unknown id, a wrong secret and a replaced token cost the same
 * work and leave the same kind of event.
 *
 * The clock is the wall clock: a transaction that has been open for an hour
 * does not keep a session alive.
 *
 * A session in which somebody else acts as the user lives only as long as that
 * person's own session, the actor's.  Nothing is written when that ends: each
 * use of the session looks at the actor's row.  Whoever may write the table can
 * change neither which row that is nor, unseen, what it says: both rows have
 * their MACs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "compat.h"
#include "guc.h"
#include "keys/keyring.h"
#include "session/authenticate.h"
#include "session/finding.h"
#include "session/guess.h"

/* At most one event of a session's refused tokens in this time and backend. */
#define REFUSED_INTERVAL_MS	1000

/* So many sessions and causes are told apart. */
#define REFUSALS	64

/* The cause of a token whose secret never was the session's. */
#define CAUSE_MISMATCH	"mismatch"

/* When the last event of a kind was recorded, and how many were not since. */
typedef struct Refusal
{
	SmEventType type;
	const char *cause;			/* a literal; NULL if this has not been used */
	uint8		id[SM_ID_LEN];
	TimestampTz last;
	int64		suppressed;
} Refusal;

static bool matches(const SmSchema *schema, int32 key_id, const bytea *verifier,
					const SmOwner *owner, const SmToken *token);
static Refusal *find_refusal(SmEventType type, const char *cause,
							 const uint8 *id, TimestampTz now);
static bool find_actor(SmScan *scan, const SmSchema *schema,
					   const SmSession *session, TimestampTz now);
static bool report_guessing(const SmSchema *schema, const SmToken *token,
							const SmSession *session, const char *cause,
							const SmClient *client);
static void authenticate_nobody(const SmSchema *schema, const SmToken *token);

/*
 * Take a token apart.  False if it is none; SM005 if it belongs to another
 * server's share of the buckets.
 */
bool
sm_token_from_text(text *text, SmToken *token)
{
	const char *data = VARDATA_ANY(text);
	size_t		len = VARSIZE_ANY_EXHDR(text);
	size_t		token_len = sm_token_len(data, len);
	uint8		payload[SM_SECRET_LEN];
	SmTokenKind kind = sm_token_parse(data, token_len, token->id, payload);

	if (kind == SM_TOKEN_MALFORMED)
		return false;
	token->proved = false;
	sm_proof_read(data + token_len, len - token_len, &token->proof);
	if (kind == SM_TOKEN_SECRET)
		sm_token_digest(token->id, payload, token->digest);
	else
		memcpy(token->digest, payload, SM_DIGEST_LEN);
	sm_wipe(payload, sizeof(payload));
	sm_check_shard(sm_id_bucket(token->id));
	return true;
}

/*
 * Refuse a bucket that another server holds: a stale routing map must not
 * look like a session that has ended.
 */
void
sm_check_shard(uint16 bucket)
{
	if (!sm_holds_bucket(bucket))
		ereport(ERROR,
				(errcode(ERRCODE_SM_WRONG_SHARD),
				 errmsg("bucket %d belongs to another server", bucket),
				 errdetail("This server holds shard %s.", sm_shard),
				 errhint("Refresh the routing map and use the server that holds the bucket.")));
}

/*
 * Which token of a session is this, if its row is what was written?  Raises
 * SM003 if the key is not there to tell.  The caller has seen to it that the
 * session's keys are not revoked, and before a token may do anything asks
 * sm_session_intact as well.
 */
SmMatch
sm_authenticate(const SmSchema *schema, const SmSession *session,
				const SmToken *token)
{
	SmOwner		owner;

	if (!sm_session_owner(session, &owner))
		return SM_MATCH_NONE;
	if (matches(schema, session->verifier_key_id, session->verifier,
				&owner, token))
		return SM_MATCH_CURRENT;
	if (session->previous_verifier != NULL &&
		!sm_key_revoked(schema, session->previous_key_id) &&
		matches(schema, session->previous_key_id, session->previous_verifier,
				&owner, token))
		return SM_MATCH_PREVIOUS;
	return SM_MATCH_NONE;
}

/*
 * Does a token that matched so still work: the current one, or the previous
 * in its grace?  Beyond that the previous one works until its successor has
 * been used: the answer that carried the successor may have been lost, and
 * the holder of the previous one could have session_refresh replace the lost
 * one anyway.  A token replaced by session_elevate never works again.
 */
bool
sm_token_works(const SmSession *session, SmMatch match, TimestampTz now)
{
	if (match == SM_MATCH_PREVIOUS)
		return !TIMESTAMP_IS_NOBEGIN(session->previous_valid_until) &&
			(!session->successor_used || sm_in_grace(session, now));
	return match == SM_MATCH_CURRENT;
}

/*
 * May the live session of a token be used: has the device that it is bound to
 * proved itself, if it is bound to one?  What is missing is recorded; it is
 * critical if it looks like a thief.
 */
bool
sm_proved(const SmSchema *schema, SmToken *token, const SmSession *session,
		  SmEventType refused_as, const SmClient *client)
{
	static const char *const causes[] = {
		[SM_PROOF_MISSING] = "proof_missing",
		[SM_PROOF_EXPIRED] = "proof_expired",
		[SM_PROOF_WRONG] = "proof_wrong"
	};
	SmProofVerdict verdict;
	bool		suspicious;

	if (session->device_binding_id == NULL && session->actor_session_id == NULL)
		return true;
	verdict = sm_proof_verdict(schema, session, token, GetCurrentTimestamp(),
							   &suspicious);
	token->proved = (verdict == SM_PROOF_HOLDS);
	if (token->proved || verdict == SM_PROOF_NOT_NEEDED)
		return true;
	if (suspicious)
	{
		sm_count(SM_DEVICE_PROOFS_FAILED);
		refused_as = SM_EVENT_DEVICE_PROOF_FAILED;
	}
	sm_refused(schema, refused_as, token, session, causes[verdict], client);
	return false;
}

/*
 * What the proof that came with a token is worth, and whether it looks like a
 * thief's.  Where somebody acts as the user, the proof is that of the actor's own
 * device: otherwise a stolen cookie could begin a session that needs no proof.
 */
SmProofVerdict
sm_proof_verdict(const SmSchema *schema, const SmSession *session,
				 const SmToken *token, TimestampTz now, bool *suspicious)
{
	SmProofVerdict verdict;
	SmScan		scan;

	if (session->device_binding_id != NULL || session->actor_session_id == NULL)
	{
		verdict = sm_proof_judge(schema, session, &token->proof, now);
		*suspicious = sm_proof_suspicious(verdict, session, &token->proof, now);
		return verdict;
	}
	/* the actor's may have ended, or been changed, since the caller looked */
	verdict = SM_PROOF_MISSING;
	*suspicious = false;
	if (find_actor(&scan, schema, session, now) &&
		sm_session_intact(schema, &scan.session))
	{
		verdict = sm_proof_judge(schema, &scan.session, &token->proof, now);
		*suspicious = sm_proof_suspicious(verdict, &scan.session, &token->proof, now);
	}
	sm_scan_end(&scan);
	return verdict;
}

/*
 * Is the previous token of a session in its grace?
 */
bool
sm_in_grace(const SmSession *session, TimestampTz now)
{
	return now < session->previous_valid_until &&
		now < session->rotated_at + (int64) sm_rotation_grace * USECS_PER_SEC;
}

/*
 * How a session stands at a moment.  By what the rows say: before a token may
 * do anything, sm_actor_lives has to say that the actor's is what was written.
 */
SmLife
sm_session_life(const SmSchema *schema, const SmSession *session,
				TimestampTz now)
{
	SmLife		life = sm_session_own_life(schema, session, now);

	if (life == SM_LIFE_ACTIVE && session->actor_session_id != NULL)
	{
		SmScan		scan;

		if (!find_actor(&scan, schema, session, now))
			life = SM_LIFE_ACTOR_ENDED;
		sm_scan_end(&scan);
	}
	return life;
}

/*
 * The same without a look at the actor's session.
 */
SmLife
sm_session_own_life(const SmSchema *schema, const SmSession *session,
					TimestampTz now)
{
	if (session->revoked || sm_session_key_revoked(schema, session))
		return SM_LIFE_REVOKED;
	if (now >= Min(session->expires_at, session->absolute_expires_at))
		return SM_LIFE_EXPIRED;
	if (now >= sm_session_deadline(session))
		return SM_LIFE_IDLE;
	return SM_LIFE_ACTIVE;
}

/*
 * Is the session of the person who acts as a session's user alive, and its row
 * what was written?  True if nobody does.  What another server holds has ended
 * for this one, which hears nothing of it: its row is a copy, if there is one.
 */
bool
sm_actor_lives(const SmSchema *schema, const SmSession *session,
			   TimestampTz now)
{
	SmScan		scan;
	bool		lives;

	if (session->actor_session_id == NULL)
		return true;
	if (!sm_holds_bucket(sm_id_bucket(session->actor_session_id->data)))
		return false;
	lives = find_actor(&scan, schema, session, now) &&
		sm_session_intact(schema, &scan.session);
	sm_scan_end(&scan);
	return lives;
}

/*
 * When the actor's session ends if nothing more happens to it; before all
 * time if it has ended.
 */
TimestampTz
sm_actor_deadline(const SmSchema *schema, const SmSession *session)
{
	SmScan		scan;
	TimestampTz deadline = DT_NOBEGIN;

	if (find_actor(&scan, schema, session, GetCurrentTimestamp()))
		deadline = sm_session_deadline(&scan.session);
	sm_scan_end(&scan);
	return deadline;
}

/*
 * Is somebody changing the actor's session, which may live longer by that?
 */
bool
sm_actor_changes(const SmSchema *schema, const SmSession *session)
{
	SmScan		scan;
	bool		changes;

	sm_scan_by_id(&scan, schema, session->actor_session_id->data, AccessShareLock);
	changes = sm_scan_next(&scan) && !sm_scan_row_is_settled(&scan);
	sm_scan_end(&scan);
	return changes;
}

/*
 * Has a session ended because a key of its was revoked?
 */
bool
sm_session_key_revoked(const SmSchema *schema, const SmSession *session)
{
	return sm_key_revoked(schema, session->key_id) ||
		(session->verifier_key_id != session->key_id &&
		 sm_key_revoked(schema, session->verifier_key_id));
}

/*
 * Time without use after which a session ends, in microseconds; 0 if it may be
 * unused for any time.
 */
int64
sm_session_idle_timeout(const SmSession *session)
{
	int64		setting = (int64) sm_idle_timeout * USECS_PER_SEC;

	if (session->idle_timeout == 0)
		return setting;
	return setting == 0 ? session->idle_timeout : Min(session->idle_timeout, setting);
}

/*
 * When a session dies if nothing more happens to it.
 */
TimestampTz
sm_session_deadline(const SmSession *session)
{
	TimestampTz deadline = Min(session->expires_at, session->absolute_expires_at);
	int64		idle_timeout = sm_session_idle_timeout(session);

	if (idle_timeout != 0)
		deadline = Min(deadline, session->last_seen_at + idle_timeout);
	return deadline;
}

/*
 * Go to the row that a token belongs to, alive or not, and say which of its
 * tokens it is.  A token that belongs to none leaves an event of the type
 * "refused_as".  The scan is open afterwards in every case.
 */
SmMatch
sm_find(SmScan *scan, const SmSchema *schema, SmToken *token,
		LOCKMODE lockmode, SmEventType refused_as, const SmClient *client)
{
	token->match = SM_MATCH_NONE;
	sm_scan_by_id(scan, schema, token->id, lockmode);
	if (!sm_scan_next(scan))
	{
		authenticate_nobody(schema, token);
		sm_refused(schema, refused_as, token, NULL, "unknown", client);
		return SM_MATCH_NONE;
	}
	/* ended, whoever presents the token; its key may not even be available */
	if (sm_session_key_revoked(schema, &scan->session))
		return SM_MATCH_NONE;
	token->match = sm_authenticate(schema, &scan->session, token);
	if (token->match == SM_MATCH_NONE)
		sm_refused(schema, refused_as, token, &scan->session, CAUSE_MISMATCH,
				   client);
	return token->match;
}

/*
 * The same for a token that still works, see sm_token_works, of a session that
 * is alive and whose device has proved itself, see proof.c.
 */
SmLookup
sm_find_live(SmScan *scan, const SmSchema *schema, SmToken *token,
			 LOCKMODE lockmode, SmEventType refused_as, const SmClient *client)
{
	SmLookup	lookup = sm_find_live_unproved(scan, schema, token, lockmode,
											   refused_as, client);

	if (lookup == SM_LOOKUP_LIVE &&
		!sm_proved(schema, token, &scan->session, refused_as, client))
		return SM_LOOKUP_UNPROVED;
	return lookup;
}

/*
 * The same, whether the device has proved itself or not.
 */
SmLookup
sm_find_live_unproved(SmScan *scan, const SmSchema *schema, SmToken *token,
					  LOCKMODE lockmode, SmEventType refused_as,
					  const SmClient *client)
{
	SmMatch		match = sm_find(scan, schema, token, lockmode, refused_as,
								client);
	TimestampTz now = GetCurrentTimestamp();

	if (match == SM_MATCH_NONE)
		return TTS_EMPTY(scan->slot) ? SM_LOOKUP_UNKNOWN :
			sm_session_key_revoked(schema, &scan->session) ? SM_LOOKUP_REVOKED :
			SM_LOOKUP_REJECTED;
	switch (sm_session_own_life(schema, &scan->session, now))
	{
		case SM_LIFE_ACTIVE:
			break;
		case SM_LIFE_EXPIRED:
			return SM_LOOKUP_EXPIRED;
		case SM_LIFE_IDLE:
			return SM_LOOKUP_IDLE;
		case SM_LIFE_REVOKED:
		case SM_LIFE_ACTOR_ENDED:
			return SM_LOOKUP_REVOKED;
	}
	if (!sm_session_intact(schema, &scan->session))
	{
		sm_refused(schema, refused_as, token, &scan->session,
				   "tampered", client);
		return SM_LOOKUP_REJECTED;
	}
	if (!sm_token_works(&scan->session, match, now))
	{
		sm_refused(schema, refused_as, token, &scan->session,
				   "superseded", client);
		return SM_LOOKUP_REJECTED;
	}
	if (!sm_actor_lives(schema, &scan->session, now))
		return SM_LOOKUP_REVOKED;
	return SM_LOOKUP_LIVE;
}

/*
 * Go to the row of a session by its id, without a token.  True if it is alive
 * and the user's.  The scan is open afterwards in every case.
 */
bool
sm_find_live_id(SmScan *scan, const SmSchema *schema, const pg_uuid_t *id,
				const text *user_id)
{
	const SmSession *session = &scan->session;
	TimestampTz now = GetCurrentTimestamp();

	sm_check_shard(sm_id_bucket(id->data));
	sm_scan_by_id(scan, schema, id->data, AccessShareLock);
	return sm_scan_next(scan) &&
		VARSIZE_ANY_EXHDR(user_id) == VARSIZE_ANY_EXHDR(session->user_id) &&
		memcmp(VARDATA_ANY(user_id), VARDATA_ANY(session->user_id),
			   VARSIZE_ANY_EXHDR(user_id)) == 0 &&
		sm_session_own_life(schema, session, now) == SM_LIFE_ACTIVE &&
		sm_session_intact(schema, session) &&
		sm_actor_lives(schema, session, now);
}

/*
 * Lock the row that the scan stands on, and authenticate again what it has
 * become.  False if it is gone, has ended, is no longer the token's, or was
 * tampered with.
 */
bool
sm_lock_live(SmScan *scan, SmToken *token)
{
	return sm_lock_own(scan, token) &&
		sm_actor_lives(scan->schema, &scan->session, GetCurrentTimestamp());
}

/*
 * The same without a look at the actor's session: for who ends this one.
 */
bool
sm_lock_own(SmScan *scan, SmToken *token)
{
	if (!sm_scan_lock(scan, LockTupleNoKeyExclusive, LockWaitBlock))
		return false;
	if (sm_session_own_life(scan->schema, &scan->session,
							GetCurrentTimestamp()) != SM_LIFE_ACTIVE)
		return false;
	token->match = sm_authenticate(scan->schema, &scan->session, token);
	if (token->match == SM_MATCH_NONE)
		return false;
	if (!sm_session_intact(scan->schema, &scan->session))
	{
		sm_refused(scan->schema, SM_EVENT_REJECTED, token, &scan->session,
				   "tampered", &sm_no_client);
		return false;
	}
	return true;
}

/*
 * Record that a well-formed token was refused: at most once a second for each
 * session and cause, counting what was left out.  "session" is the row with
 * the token's id, or NULL; all tokens without one count together, and hide
 * none that has.  While a network is known to guess, those from there
 * leave nothing more, see guess.c.
 */
void
sm_refused(const SmSchema *schema, SmEventType type,
		   const SmToken *token, const SmSession *session,
		   const char *cause, const SmClient *client)
{
	TimestampTz now = GetCurrentTimestamp();
	Refusal    *refusal = find_refusal(type, cause, session ? token->id : NULL, now);
	SmEvent		event = {.type = type};
	JsonbParseState *detail;

	if (report_guessing(schema, token, session, cause, client))
		return;
	if (!TimestampDifferenceExceeds(refusal->last, now, REFUSED_INTERVAL_MS))
	{
		refusal->suppressed++;
		return;
	}
	if (sm_finding_keep(type, (const pg_uuid_t *) token->id, session != NULL,
						cause, refusal->suppressed, client))
	{
		if (sm_worker_comes())
		{
			refusal->last = now;
			refusal->suppressed = 0;
		}
		return;
	}

	detail = sm_detail_begin();
	sm_detail_cstring(&detail, "cause", cause);
	sm_detail_int(&detail, "suppressed", refusal->suppressed);
	event.session_id = (const pg_uuid_t *) token->id;
	event.client = *client;
	event.detail = sm_detail_end(&detail);
	if (session)
		sm_event_of_unlocked(schema, &event);
	else
		sm_event(schema, &event);
	refusal->last = now;
	refusal->suppressed = 0;
}

/*
 * Write an event of a session whose row has not been locked.  It is locked now,
 * so that session_erase waits until it can see the event.  If the session is
 * being deleted the event names nobody: an erasure would miss it.
 */
void
sm_event_of_unlocked(const SmSchema *schema, SmEvent *event)
{
	SmScan		scan;

	sm_scan_by_id(&scan, schema, event->session_id->data, RowShareLock);
	if (sm_scan_next(&scan) && sm_scan_lock(&scan, LockTupleKeyShare, LockWaitSkip))
		sm_event_of(event, &scan.session);
	sm_event(schema, event);
	sm_scan_end(&scan);
}

/*
 * Count a token that may be a guess, and record that a network makes many.
 * True if that says it all: what is about an existing session leaves an event
 * of its own all the same.
 */
static bool
report_guessing(const SmSchema *schema, const SmToken *token,
				const SmSession *session, const char *cause,
				const SmClient *client)
{
	static const pg_uuid_t none = {{0}};
	SmGuess		guess = SM_GUESS_FEW;
	int64		count;

	if (session == NULL || strcmp(cause, CAUSE_MISMATCH) == 0)
		guess = sm_guess_count(token->id, token->digest, client, &count);
	if (guess == SM_GUESS_BURST)
	{
		sm_count(SM_TOKEN_GUESSING);
		if (!sm_finding_keep(SM_EVENT_TOKEN_GUESSING, &none, false, NULL, count,
							 client))
		{
			SmEvent		event = {
				.type = SM_EVENT_TOKEN_GUESSING,
				.client = *client,
				.detail = sm_guess_detail(client, count)
			};

			sm_event(schema, &event);
		}
	}
	return guess != SM_GUESS_FEW && session == NULL;
}

/*
 * What is known of refusals of this type and cause, of one session or, for a
 * NULL id, of tokens that belong to none.  Where there is no place left the
 * one that was recorded longest ago is forgotten: then its next refusal is
 * recorded too early, never too late.  But guesses at the secrets of more
 * sessions than there are places, all of them just recorded, would leave an
 * event each; these guesses share a place.
 */
static Refusal *
find_refusal(SmEventType type, const char *cause, const uint8 *id,
			 TimestampTz now)
{
	static Refusal of_nobody[2];
	static Refusal of_many[2];
	static Refusal of_sessions[REFUSALS];
	Refusal    *oldest = &of_sessions[0];

	if (id == NULL)
		return &of_nobody[type == SM_EVENT_REJECTED];
	for (int i = 0; i < REFUSALS; i++)
	{
		Refusal    *refusal = &of_sessions[i];

		if (refusal->cause != NULL && refusal->type == type &&
			strcmp(refusal->cause, cause) == 0 &&
			memcmp(refusal->id, id, SM_ID_LEN) == 0)
			return refusal;
		if (refusal->last < oldest->last)
			oldest = refusal;
	}
	if (strcmp(cause, CAUSE_MISMATCH) == 0 &&
		!TimestampDifferenceExceeds(oldest->last, now, REFUSED_INTERVAL_MS))
		return &of_many[type == SM_EVENT_REJECTED];
	memset(oldest, 0, sizeof(Refusal));
	oldest->type = type;
	oldest->cause = cause;
	memcpy(oldest->id, id, SM_ID_LEN);
	return oldest;
}

static bool
matches(const SmSchema *schema, int32 key_id, const bytea *verifier,
		const SmOwner *owner, const SmToken *token)
{
	uint8		expected[SM_VERIFIER_LEN];

	sm_verifier(sm_key_usable(schema, key_id)->subkeys.verifier,
				owner, token->digest, expected);
	return VARSIZE_ANY_EXHDR(verifier) == SM_VERIFIER_LEN &&
		sm_equal(expected, VARDATA_ANY(verifier), SM_VERIFIER_LEN);
}

/*
 * Go to the row of the actor's session; false if that is not alive, by what it
 * says.  A session with an actor is never one itself: session_create refuses
 * that, so that this ends here whatever somebody may have written.  The scan
 * is open afterwards in every case.
 */
static bool
find_actor(SmScan *scan, const SmSchema *schema, const SmSession *session,
		   TimestampTz now)
{
	sm_scan_by_id(scan, schema, session->actor_session_id->data, AccessShareLock);
	return sm_scan_next(scan) &&
		scan->session.actor_session_id == NULL &&
		sm_session_own_life(schema, &scan->session, now) == SM_LIFE_ACTIVE;
}

/* Do the work of an authentication that has no row to fail on. */
static void
authenticate_nobody(const SmSchema *schema, const SmToken *token)
{
	const SmKey *key = sm_key_any(schema);
	SmOwner		owner = {
		.session_id = token->id,
		.user_id = "nobody",
		.user_len = 6
	};
	uint8		verifier[SM_VERIFIER_LEN];

	if (key == NULL)
		return;
	sm_verifier(key->subkeys.verifier, &owner, token->digest, verifier);
	(void) sm_equal(verifier, token->digest, SM_VERIFIER_LEN);
}
