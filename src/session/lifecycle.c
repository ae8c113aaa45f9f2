/*-------------------------------------------------------------------------
 *
 * lifecycle.c
 *	  The life of one session: log in, update, refresh, elevate, switch
 *	  tenants, end.
 *
 * Each function that is given a token finds its row under the latest
 * snapshot, authenticates, and, to write, locks the row and authenticates
 * again.  A function that has to leave something behind returns a status
 * instead of raising an error, which would undo it.  No function ever
 * inserts a session but sm_log_in, and sm_switch_tenant in the place of one
 * that is alive under its row's lock: nothing that has ended comes back.
 *
 * Locks, in this order: the advisory locks of logins (log in, switch tenants)
 * and of the user (log in, switch tenants, invalidate), the row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/async.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"

#include "commit.h"
#include "guc.h"
#include "keys/keyring.h"
#include "session/finding.h"
#include "session/lifecycle.h"
#include "session/locks.h"
#include "session/patch.h"
#include "session/seen.h"
#include "session/use.h"
#include "shared.h"

/* Why a token is replaced. */
typedef enum Rotation
{
	ROTATION_REFRESH,			/* its holder asks for it */
	ROTATION_LOST_ANSWER,		/* the answer with the last one was lost */
	ROTATION_ELEVATION			/* the new one may do more */
} Rotation;

/* A session that may be evicted. */
typedef struct Candidate
{
	TimestampTz created_at;
	pg_uuid_t	id;
} Candidate;

static bool find_to_renew(SmScan *scan, const SmSchema *schema, SmToken *token,
						  SmRenewal *renewal);
static void refresh(SmScan *scan, SmToken *token, const SmRefresh *request,
					SmRenewal *renewal);
static bool lost_its_answer(SmScan *scan, const SmToken *token,
							const SmClient *client, TimestampTz now,
							SmRenewal *renewal);
static Jsonb *keep_reserved(Jsonb *old, Jsonb *new);
static void elevate(SmScan *scan, Jsonb *auth, Jsonb *data, SmRenewal *renewal);
static void switch_tenant(SmScan *scan, text *tenant_id, Jsonb *data,
						  SmRenewal *renewal);
static void rotate_token(SmScan *scan, SmChanges *changes, Rotation rotation,
						 TimestampTz now, SmRenewal *renewal);
static void renew_verifier(SmScan *scan, SmChanges *changes,
						   const SmToken *token);
static void describe(SmRenewal *renewal, const char *status,
					 const SmSession *session, TimestampTz expires_at);
static void find_actor(const SmSchema *schema, const SmLogin *login,
					   SmSession *session);
pg_noreturn static void report_actor_not_live(void);
static void new_id(pg_uuid_t *id, TimestampTz now, uint16 bucket);
static text *make_session(const SmSchema *schema, const SmSession *session,
						  const SmContent *content,
						  const pg_uuid_t *predecessor);
static TimestampTz first_look(const SmSchema *schema,
							  const SmSession *session);
static void record_impersonation(const SmSchema *schema,
								 const SmSession *session,
								 const SmClient *client);
static text *new_token(const SmKey *key, const SmOwner *owner,
					   uint8 verifier[SM_VERIFIER_LEN]);
static void end_session(SmScan *scan, SmEventWriter *events, SmEventType type,
						text *reason, const pg_uuid_t *successor);
static void enforce_limit(const SmSchema *schema, text *user_id,
						  TimestampTz now, SmSeen *seen);
static int	compare_created(const void *a, const void *b);
static void count_end(SmEventType type, const text *reason);
static void notify(const SmSession *session, const text *reason);
static Jsonb *empty_object(void);
static void detail_uuid(JsonbParseState **detail, const char *key,
						const pg_uuid_t *id);
static Datum bytea_datum(const uint8 *bytes, int len);
static Datum interval_datum(int64 us);

/*
 * Make a session for a user, and return its token.  Says, too, whether the
 * user has not been seen with the client before, see seen.c.
 */
text *
sm_log_in(const SmSchema *schema, const SmLogin *login, SmSession *session,
		  bool *new_device)
{
	uint16		bucket = (uint16) sm_user_text_hash(login->user_id);
	int64		longest = (int64) sm_max_lifetime * USECS_PER_SEC;
	int64		ttl = login->ttl;
	SmContent	content = {
		.data = login->data,
		.auth = login->auth
	};
	SmSeen		seen;
	text	   *token;
	TimestampTz now;

	sm_check_shard(bucket);
	sm_lock_login(login->user_id, login->actor_token == NULL);
	now = GetCurrentTimestamp();
	/* who acts as somebody else does so from a device of their own */
	sm_seen_begin(&seen, login->actor_token ? &sm_no_client : &login->client);
	if (content.data == NULL)
		content.data = empty_object();
	if (login->max_lifetime != 0)
		longest = login->max_lifetime;
	if (ttl == 0)
		ttl = Min((int64) sm_ttl * USECS_PER_SEC, longest);

	memset(session, 0, sizeof(SmSession));
	if (login->actor_token)
	{
		find_actor(schema, login, session);
		/* what ends or erases all that is the actor's has to see this */
		sm_lock_login(session->actor_id, false);
		find_actor(schema, login, session);
		longest = Min(longest, session->absolute_expires_at - now);
	}
	else if (sm_max_sessions_per_user > 0)
		enforce_limit(schema, login->user_id, now, &seen);
	else
		sm_seen_sessions(&seen, schema, login->user_id);
	*new_device = sm_seen_is_new(&seen, schema, login->user_id);
	session->session_id = palloc(sizeof(pg_uuid_t));
	new_id(session->session_id, now, bucket);
	session->created_at = session->authenticated_at = session->last_seen_at = now;
	session->absolute_expires_at = now + longest;
	session->expires_at = now + Min(ttl, longest);
	session->ttl = ttl;
	session->idle_timeout = login->idle_timeout;
	session->version = 1;
	session->user_id = login->user_id;
	session->tenant_id = login->tenant_id;
	session->ip = login->client.ip;
	session->user_agent = login->client.user_agent;
	token = make_session(schema, session, &content, NULL);
	if (*new_device)
	{
		sm_session_event(schema, SM_EVENT_NEW_DEVICE, session, &login->client,
						 sm_seen_detail(&seen));
		sm_count(SM_NEW_DEVICES);
	}
	return token;
}

/*
 * Change the data of a token's session; false if that is not live.
 */
bool
sm_update(const SmSchema *schema, SmToken *token, SmPatch *patch,
		  const int32 *expected_version, SmPatched *patched)
{
	SmScan		scan;

	if (sm_find_live(&scan, schema, token, RowExclusiveLock,
					 SM_EVENT_REJECTED, &sm_no_client) != SM_LOOKUP_LIVE ||
		!sm_lock_live(&scan, token) ||
		!sm_token_works(&scan.session, token->match, GetCurrentTimestamp()))
	{
		sm_scan_end(&scan);
		return false;
	}
	if (expected_version && *expected_version != scan.session.version)
		ereport(ERROR,
				(errcode(ERRCODE_SM_VERSION_CONFLICT),
				 errmsg("session data was changed concurrently"),
				 errdetail("The current version is %d, not %d.",
						   scan.session.version, *expected_version),
				 errhint("Read the session again and retry.")));
	patch->used = true;
	patch->current = token->match == SM_MATCH_CURRENT;
	sm_patch_session(&scan, patch, patched);
	sm_scan_end(&scan);
	return true;
}

/*
 * Extend a token's session, and replace the token if that is asked for.
 */
void
sm_refresh(const SmSchema *schema, SmToken *token, const SmRefresh *request,
		   SmRenewal *renewal)
{
	SmScan		scan;

	if (sm_find(&scan, schema, token, RowExclusiveLock, SM_EVENT_REJECTED,
				&request->client) != SM_MATCH_NONE)
		refresh(&scan, token, request, renewal);
	sm_scan_end(&scan);
}

/*
 * Record that the user proved more, with a new token.
 *
 * Only the current token will do: a replaced one must not gain anything.
 */
void
sm_elevate(const SmSchema *schema, SmToken *token, Jsonb *auth, Jsonb *data,
		   SmRenewal *renewal)
{
	SmScan		scan;
	SmSession  *session = &scan.session;

	if (find_to_renew(&scan, schema, token, renewal) &&
		sm_lock_live(&scan, token))
	{
		if (token->match == SM_MATCH_CURRENT)
			elevate(&scan, auth, data, renewal);
		else if (sm_token_works(session, token->match, GetCurrentTimestamp()))
			describe(renewal, "already_rotated", session, session->expires_at);
	}
	sm_scan_end(&scan);
}

/*
 * Go on in another tenant.
 *
 * A session's tenant is bound into its verifier and its seal, so going on in
 * another one takes a new session.  It replaces one that is alive, under the
 * user's lock and the row's: whatever ends the old one either comes first, and
 * then there is no new one, or finds the new one.  One for one, it does not
 * count against the limit.
 *
 * Only the current token will do, as for sm_elevate.
 */
void
sm_switch_tenant(const SmSchema *schema, SmToken *token, text *tenant_id,
				 Jsonb *data, SmRenewal *renewal)
{
	SmScan		scan;
	SmSession  *session = &scan.session;

	if (find_to_renew(&scan, schema, token, renewal))
	{
		sm_lock_login(session->user_id, false);
		if (session->actor_id)
			sm_lock_login(session->actor_id, false);
		if (sm_lock_live(&scan, token) &&
			sm_token_works(session, token->match, GetCurrentTimestamp()))
		{
			if (token->match == SM_MATCH_CURRENT)
				switch_tenant(&scan, tenant_id, data, renewal);
			else
				describe(renewal, "already_rotated", session, session->expires_at);
		}
	}
	sm_scan_end(&scan);
}

/*
 * Go to the live session of a token that is to be replaced.  If that has to wait
 * for the device's proof, say so.  The scan is open afterwards in every case.
 */
static bool
find_to_renew(SmScan *scan, const SmSchema *schema, SmToken *token,
			  SmRenewal *renewal)
{
	SmLookup	lookup = sm_find_live(scan, schema, token, RowExclusiveLock,
									  SM_EVENT_REJECTED, &sm_no_client);

	if (lookup == SM_LOOKUP_UNPROVED)
		renewal->status = SM_STATUS_UNPROVED;
	return lookup == SM_LOOKUP_LIVE;
}

/*
 * Log out; returns the user, or NULL if the session was not live.
 *
 * Any token that the session ever answered to and still knows ends it: who
 * logs out with one that has just been replaced means it.
 */
text *
sm_invalidate(const SmSchema *schema, SmToken *token, text *reason)
{
	SmScan		scan;
	text	   *user_id = NULL;

	if (sm_find(&scan, schema, token, RowExclusiveLock, SM_EVENT_REJECTED,
				&sm_no_client) != SM_MATCH_NONE)
	{
		/*
		 * A login may follow in this transaction, in place of the session. If
		 * the transaction holds the row's lock already, it is too late to
		 * take this one in the right order.
		 */
		if (!sm_scan_row_is_ours(&scan))
			sm_lock_login(scan.session.user_id, true);
		if (sm_lock_own(&scan, token))
		{
			/* ended for good, also if its actor's session is over */
			if (sm_session_life(schema, &scan.session,
								GetCurrentTimestamp()) == SM_LIFE_ACTIVE)
				user_id = DatumGetTextPCopy(PointerGetDatum(scan.session.user_id));
			sm_end_session(&scan, NULL, SM_EVENT_INVALIDATED, reason);
		}
	}
	sm_scan_end(&scan);
	return user_id;
}

/*
 * 54000 if an object is too large to be kept.
 */
void
sm_check_size(const Jsonb *object, const char *name)
{
	if (VARSIZE(object) > (Size) sm_max_data_size)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s is too large", name),
				 errdetail("It has %d bytes; the limit is %d bytes.",
						   (int) VARSIZE(object), sm_max_data_size),
				 errhint("Store large values in tables of your own, or raise session_manager.max_data_size.")));
}

/*
 * Patch or replace the data of the live session that the scan stands on and
 * has locked.
 */
void
sm_patch_session(SmScan *scan, const SmPatch *patch, SmPatched *patched)
{
	SmSession  *session = &scan->session;
	SmContent	content;
	SmChanges	changes = {0};
	JsonbParseState *detail;
	Jsonb	   *result;
	int32		key_id;

	if (!sm_session_open(scan->schema, session, &content))
		sm_report_corrupt(scan->schema, session);
	result = patch->replace ? patch->patch : sm_merge_patch(content.data, patch->patch);
	if (VARSIZE(result) <= VARSIZE(content.data))
		 /* may always shrink */ ;
	else if (patch->used)
		sm_check_size(result, "session data");
	else if (VARSIZE(result) / 2 > (Size) sm_max_data_size)
	{
		/*
		 * A caller without a token must not learn how large the data is: any
		 * patch finds room beside the data that a holder may have.  Where
		 * others have taken that before, all goes on as if the patch had been
		 * applied.
		 */
		ereport(LOG_SERVER_ONLY,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("data of session %s is too large to be patched",
						DatumGetCString(DirectFunctionCall1(uuid_out,
															UUIDPGetDatum(session->session_id)))),
				 errhidestmt(true),
				 errhint("Remove members with session_update_user(), or raise session_manager.max_data_size.")));
		result = content.data;
	}
	patched->data = result;
	patched->version = session->version;
	if (patch->used && compareJsonbContainers(&content.data->root, &result->root) == 0)
	{
		/* a first use is written all the same */
		if (scan->noted_successor_used_at != 0 ||
			(patch->current && !session->successor_used))
		{
			sm_mark_used(&changes, session, patch->current, GetCurrentTimestamp());
			sm_scan_update(scan, &changes);
		}
		return;
	}

	/*
	 * a caller without a token must not learn whether the patch changes
	 * anything
	 */

	content.data = result;
	patched->version = ++session->version;
	sm_change(&changes, Anum_version, Int32GetDatum(session->version));
	sm_change(&changes, Anum_sealed_data,
			  sm_session_seal(scan->schema, session, &content, &key_id));
	sm_change(&changes, Anum_key_id, Int32GetDatum(key_id));
	if (patch->used)
		sm_mark_used(&changes, session, patch->current, GetCurrentTimestamp());

	detail = sm_detail_begin();
	sm_detail_int(&detail, "version", session->version);
	sm_session_event(scan->schema, SM_EVENT_UPDATED, session, &sm_no_client,
					 sm_detail_end(&detail));
	sm_scan_update(scan, &changes);
	sm_count(SM_UPDATED);
}

/*
 * End the live session that the scan stands on and has locked.  "events" may
 * be NULL.
 */
void
sm_end_session(SmScan *scan, SmEventWriter *events, SmEventType type,
			   text *reason)
{
	end_session(scan, events, type, reason, NULL);
}

/*
 * Sealed data is not what was sealed for its row.
 */
void
sm_report_corrupt(const SmSchema *schema, const SmSession *session)
{
	char	   *id = DatumGetCString(DirectFunctionCall1(uuid_out,
														 UUIDPGetDatum(session->session_id)));

	(void) sm_finding_keep(SM_EVENT_CORRUPT, session->session_id, true, NULL, 0,
						   &sm_no_client);
	ereport(ERROR,
			(errcode(ERRCODE_SM_DATA_CORRUPT),
			 errmsg("data of session %s is corrupt", id),
			 errdetail("It was changed, or moved from another row, by something other than this extension."),
			 errhint("End the session: SELECT %s('%s');",
					 sm_schema_qualify(schema, "session_invalidate_id"), id)));
}

/*
 * The same as a warning, so that the user's other sessions can be dealt with.
 */
void
sm_warn_corrupt(const SmSession *session)
{
	ereport(WARNING,
			(errcode(ERRCODE_SM_DATA_CORRUPT),
			 errmsg("data of session %s is corrupt",
					DatumGetCString(DirectFunctionCall1(uuid_out,
														UUIDPGetDatum(session->session_id)))),
			 errhint("End the session with session_invalidate_id().")));
}

/*
 * Say in a session that is being made who acts as its user, and until when
 * that person's own session can last at most.
 *
 * The look-up is that of a use by its holder, so a token that is refused
 * leaves the same events.
 */
static void
find_actor(const SmSchema *schema, const SmLogin *login, SmSession *session)
{
	SmToken		token;
	SmScan		scan;
	SmSession  *actor = &scan.session;
	bool		moved;

	if (!sm_token_from_text(login->actor_token, &token))
		report_actor_not_live();
	if (sm_find_live(&scan, schema, &token, RowExclusiveLock,
					 SM_EVENT_REJECTED, &login->client) != SM_LOOKUP_LIVE ||
		!sm_client_allowed(schema, &token, actor, &login->client, false, &moved))
		report_actor_not_live();
	if (actor->actor_session_id != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the actor's session is itself one in which somebody acts as its user"),
				 errhint("Pass the token of the session that the acting person logged in with.")));
	if (datum_image_eq(PointerGetDatum(actor->user_id),
					   PointerGetDatum(login->user_id), false, -1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a user cannot be the actor of a session of the same user")));
	session->actor_session_id = palloc(sizeof(pg_uuid_t));
	*session->actor_session_id = *actor->session_id;
	session->actor_id = DatumGetTextPCopy(PointerGetDatum(actor->user_id));
	session->absolute_expires_at = actor->absolute_expires_at;
	sm_scan_end(&scan);
}

/* The token that was given for the actor's is not one of a live session. */
static void
report_actor_not_live(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_SM_ACTOR_NOT_LIVE),
			 errmsg("the actor's session is not live"),
			 errhint("The acting person has to log in first.")));
}

/* An id for a session of the given bucket. */
static void
new_id(pg_uuid_t *id, TimestampTz now, uint16 bucket)
{
	uint8		random[6];

	sm_random(random, sizeof(random));
	sm_id_make(id->data,
			   now + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY,
			   random, bucket);
}

/*
 * Insert a session, all of which is given but what its token and its keys
 * make, and return its token.  "predecessor" is the id of the session that it
 * takes the place of, or NULL.
 */
static text *
make_session(const SmSchema *schema, const SmSession *session,
			 const SmContent *content, const pg_uuid_t *predecessor)
{
	const SmKey *key;
	SmOwner		owner;
	uint8		verifier[SM_VERIFIER_LEN];
	text	   *token;
	Jsonb	   *detail = NULL;
	SmClient	client;
	int32		key_id;
	TimestampTz sweep_at;
	Datum		values[Natts_user_sessions] = {0};
	bool		nulls[Natts_user_sessions];

	/*
	 * Before a key is chosen: session_key_retire() waits for who has the
	 * lock, and sees no row of who has not.
	 */
	LockRelationOid(schema->sessions, RowExclusiveLock);
	/* this may read the keys again, after which no pointer to one is good */
	sweep_at = first_look(schema, session);
	memset(nulls, true, sizeof(nulls));
#define PUT(column, value) \
	(values[Anum_##column - 1] = (value), nulls[Anum_##column - 1] = false)
	PUT(sealed_data, sm_session_seal(schema, session, content, &key_id));
	key = sm_key_active(schema);
	(void) sm_session_owner(session, &owner);
	token = new_token(key, &owner, verifier);
	PUT(session_id, UUIDPGetDatum(session->session_id));
	PUT(created_at, TimestampTzGetDatum(session->created_at));
	PUT(authenticated_at, TimestampTzGetDatum(session->authenticated_at));
	PUT(last_seen_at, TimestampTzGetDatum(session->last_seen_at));
	PUT(expires_at, TimestampTzGetDatum(session->expires_at));
	PUT(absolute_expires_at, TimestampTzGetDatum(session->absolute_expires_at));
	PUT(sweep_at, TimestampTzGetDatum(sweep_at));
	PUT(ttl, interval_datum(session->ttl));
	PUT(version, Int32GetDatum(session->version));
	PUT(key_id, Int32GetDatum(key_id));
	PUT(verifier_key_id, Int32GetDatum(key->id));
	PUT(user_id, PointerGetDatum(session->user_id));
	PUT(verifier, bytea_datum(verifier, SM_VERIFIER_LEN));
	if (session->tenant_id)
		PUT(tenant_id, PointerGetDatum(session->tenant_id));
	if (session->ip)
		PUT(ip, InetPGetDatum(session->ip));
	if (session->user_agent)
		PUT(user_agent, PointerGetDatum(session->user_agent));
	if (session->idle_timeout != 0)
		PUT(idle_timeout, interval_datum(session->idle_timeout));
	if (session->actor_session_id)
	{
		PUT(actor_session_id, UUIDPGetDatum(session->actor_session_id));
		PUT(actor_id, PointerGetDatum(session->actor_id));
	}
	if (session->device_binding_id)
	{
		PUT(device_binding_id, UUIDPGetDatum(session->device_binding_id));
		PUT(device_bound_at, TimestampTzGetDatum(session->device_bound_at));
		PUT(device_proved_at, TimestampTzGetDatum(session->device_proved_at));
	}
	sm_store_insert(schema, values, nulls);

	if (predecessor)
	{
		JsonbParseState *building = sm_detail_begin();

		detail_uuid(&building, "predecessor", predecessor);
		detail = sm_detail_end(&building);
	}
	client.ip = session->ip;
	client.user_agent = session->user_agent;
	sm_session_event(schema, SM_EVENT_CREATED, session, &client, detail);
	if (session->actor_session_id)
		record_impersonation(schema, session, &client);
	sm_count(SM_CREATED);
	return token;
}

/*
 * When the sweep has to look at a new session: when it dies if nothing more
 * happens to it, nor to its actor's.
 */
static TimestampTz
first_look(const SmSchema *schema, const SmSession *session)
{
	TimestampTz at = sm_session_deadline(session);

	if (session->actor_session_id)
		at = Min(at, Max(session->created_at, sm_actor_deadline(schema, session)));
	return at;
}

/*
 * Record with the actor's own session in which session that person acts as
 * another user; as whom stands with that session alone, so that erasing its
 * user leaves nothing here.
 */
static void
record_impersonation(const SmSchema *schema, const SmSession *session,
					 const SmClient *client)
{
	JsonbParseState *detail = sm_detail_begin();
	SmEvent		event = {
		.type = SM_EVENT_IMPERSONATED,
		.session_id = session->actor_session_id,
		.user_id = session->actor_id,
		.client = *client
	};

	detail_uuid(&detail, "session_id", session->session_id);
	event.detail = sm_detail_end(&detail);
	sm_event(schema, &event);
}

/*
 * End the live session that the scan stands on and has locked; "successor" is
 * the id of the session that takes its place, or NULL.  "events" may be NULL.
 */
static void
end_session(SmScan *scan, SmEventWriter *events, SmEventType type,
			text *reason, const pg_uuid_t *successor)
{
	SmChanges	changes = {0};
	JsonbParseState *detail = sm_detail_begin();
	SmEvent		event = {.type = type};

	sm_event_of(&event, &scan->session);
	sm_detail_text(&detail, "reason", reason);
	if (successor)
		detail_uuid(&detail, "successor", successor);
	event.detail = sm_detail_end(&detail);
	if (events)
		sm_events_add(events, &event);
	else
		sm_event(scan->schema, &event);

	/* what has been acknowledged as ended must not come back after a crash */
	sm_commit_durably();
	sm_change(&changes, Anum_revoked_at, TimestampTzGetDatum(GetCurrentTimestamp()));
	sm_change(&changes, Anum_revoked_reason, PointerGetDatum(reason));
	sm_scan_update(scan, &changes);
	count_end(type, reason);
	if (sm_notify)
		notify(&scan->session, reason);
}

/* A token for a session, and its verifier. */
static text *
new_token(const SmKey *key, const SmOwner *owner,
		  uint8 verifier[SM_VERIFIER_LEN])
{
	uint8		secret[SM_SECRET_LEN];
	uint8		digest[SM_DIGEST_LEN];
	text	   *token = palloc(VARHDRSZ + SM_TOKEN_LEN);

	sm_random(secret, sizeof(secret));
	sm_token_digest(owner->session_id, secret, digest);
	sm_verifier(key->subkeys.verifier, owner, digest, verifier);
	SET_VARSIZE(token, VARHDRSZ + SM_TOKEN_LEN);
	sm_token_format(SM_TOKEN_SECRET, owner->session_id, secret, VARDATA(token));
	sm_wipe(secret, sizeof(secret));
	return token;
}

/*
 * Make room for one more session of a user, or refuse it.  Holds the user's
 * lock exclusively, so the count is exact.  Sessions in which somebody else
 * acts as the user neither count nor make room: the user did not log in there.
 */
static void
enforce_limit(const SmSchema *schema, text *user_id, TimestampTz now,
			  SmSeen *seen)
{
	SmScan		scan;
	Candidate  *live = NULL;
	int			n = 0;
	int			allocated = 0;
	SmBoundedWaits waits;
	text	   *reason;

	sm_scan_by_user(&scan, schema, user_id, RowExclusiveLock);
	while (sm_scan_next(&scan))
	{
		sm_seen_session(seen, &scan.session);
		if (scan.session.actor_session_id != NULL ||
			sm_session_life(schema, &scan.session, now) != SM_LIFE_ACTIVE)
			continue;
		if (n == allocated)
		{
			allocated = Max(16, allocated * 2);
			live = live ? repalloc(live, allocated * sizeof(Candidate))
				: palloc(allocated * sizeof(Candidate));
		}
		live[n].created_at = scan.session.created_at;
		live[n].id = *scan.session.session_id;
		n++;
	}
	sm_scan_end(&scan);

	if (n < sm_max_sessions_per_user)
		return;
	if (sm_on_limit == SM_LIMIT_DENY)
	{
		sm_count(SM_LIMIT_DENIED);
		ereport(ERROR,
				(errcode(ERRCODE_SM_LIMIT_REACHED),
				 errmsg("the user has reached the limit of sessions"),
				 errdetail("The limit is %d.", sm_max_sessions_per_user),
				 errhint("End one of the user's sessions first.")));
	}

	qsort(live, n, sizeof(Candidate), compare_created);
	reason = cstring_to_text("evicted");
	/* who waits here holds up everybody else who wants the user's lock */
	sm_bound_waits(&waits);
	for (int i = 0; i <= n - sm_max_sessions_per_user; i++)
	{
		sm_scan_by_id(&scan, schema, live[i].id.data, RowExclusiveLock);
		if (sm_scan_next(&scan) &&
			sm_scan_lock(&scan, LockTupleNoKeyExclusive, LockWaitBlock) &&
			sm_session_life(schema, &scan.session, now) == SM_LIFE_ACTIVE)
			sm_end_session(&scan, NULL, SM_EVENT_EVICTED, reason);
		sm_scan_end(&scan);
	}
	sm_unbound_waits(&waits);
}

static int
compare_created(const void *a, const void *b)
{
	TimestampTz x = ((const Candidate *) a)->created_at;
	TimestampTz y = ((const Candidate *) b)->created_at;

	return (x > y) - (x < y);
}

/*
 * Refresh the session that the scan stands on, whose token this is or was.
 */
static void
refresh(SmScan *scan, SmToken *token, const SmRefresh *request,
		SmRenewal *renewal)
{
	static const SmRenewal unproved = {.status = SM_STATUS_UNPROVED};
	SmSession  *session = &scan->session;
	SmChanges	changes = {0};
	bool		previous;
	bool		moved;
	TimestampTz now;
	TimestampTz expires_at;

	if (!sm_lock_live(scan, token) ||
		!sm_client_allowed(scan->schema, token, session, &request->client,
						   true, &moved))
		return;
	now = GetCurrentTimestamp();
	previous = (token->match == SM_MATCH_PREVIOUS);
	/* a replay is one whether the device proves itself or not */
	if (previous &&
		!lost_its_answer(scan, token, &request->client, now, renewal) &&
		renewal->expires_at == 0)
		return;
	if (!sm_proved(scan->schema, token, session, SM_EVENT_REJECTED,
				   &request->client))
	{
		*renewal = unproved;
		return;
	}
	if (renewal->expires_at != 0)
		return;

	/* only a caller that gives a ttl may shorten the session's life */
	expires_at = now + (request->has_ttl ? request->ttl : session->ttl);
	if (!request->has_ttl)
		expires_at = Max(expires_at, session->expires_at);
	expires_at = Min(expires_at, session->absolute_expires_at);
	describe(renewal, "extended", session, expires_at);

	sm_change(&changes, Anum_expires_at, TimestampTzGetDatum(expires_at));
	sm_mark_used(&changes, session, !previous, now);
	sm_change_client(&changes, &request->client);
	if (request->rotate || previous)
		rotate_token(scan, &changes,
					 previous ? ROTATION_LOST_ANSWER : ROTATION_REFRESH,
					 now, renewal);
	else
		renew_verifier(scan, &changes, token);
	sm_session_event(scan->schema,
					 renewal->token ? SM_EVENT_ROTATED : SM_EVENT_REFRESHED,
					 session, &request->client, NULL);
	sm_count(renewal->token ? SM_ROTATED : SM_REFRESHED);
	sm_scan_update(scan, &changes);
}

/*
 * The previous token comes back for one of three reasons.  Requests crossed
 * (within the grace): the other one has the new token.  The answer with the
 * successor was lost (past the grace, successor never used): replace it once
 * more, which is what true says.  Or two parties hold tokens of one session
 * (successor used): it ends, as RFC 9700, section 4.14.2, has it for refresh
 * tokens.  A token replaced by an elevation is never given a successor: that
 * would hand on more than its holder had proved.
 */
static bool
lost_its_answer(SmScan *scan, const SmToken *token, const SmClient *client,
				TimestampTz now, SmRenewal *renewal)
{
	SmSession  *session = &scan->session;
	bool		elevated = TIMESTAMP_IS_NOBEGIN(session->previous_valid_until);
	bool		crossed = now < session->rotated_at +
		(int64) sm_rotation_grace * USECS_PER_SEC;

	if (sm_in_grace(session, now))
	{
		describe(renewal, "already_rotated", session, session->expires_at);
		return false;
	}
	if (session->successor_used && !(elevated && crossed))
	{
		sm_count(SM_REUSED);
		(void) sm_finding_keep(SM_EVENT_TOKEN_REUSED, session->session_id,
							   true, NULL, 0, client);
		sm_session_event(scan->schema, SM_EVENT_TOKEN_REUSED, session, client,
						 NULL);
		sm_end_session(scan, NULL, SM_EVENT_INVALIDATED,
					   cstring_to_text("token_reused"));
		describe(renewal, "reused", session, 0);
		return false;
	}
	if (elevated)
		sm_refused(scan->schema, SM_EVENT_REJECTED, token, session,
				   "superseded", client);
	return !elevated;
}

/*
 * A new auth, with those members of the old one that are for client packages:
 * their names begin with an underscore, and whoever elevates a session need
 * not know of them.  Of two with one name the new one stays.
 */
static Jsonb *
keep_reserved(Jsonb *old, Jsonb *new)
{
	JsonbParseState *state = NULL;
	Jsonb	   *sources[] = {old, new};

	if (old == NULL)
		return new;
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < (int) lengthof(sources); i++)
	{
		JsonbIterator *members = JsonbIteratorInit(&sources[i]->root);
		JsonbValue	key;
		JsonbValue	value;

		JsonbIteratorNext(&members, &key, true);
		while (JsonbIteratorNext(&members, &key, true) == WJB_KEY)
		{
			JsonbIteratorNext(&members, &value, true);
			if (sources[i] == old &&
				(key.val.string.len == 0 || key.val.string.val[0] != '_'))
				continue;
			pushJsonbValue(&state, WJB_KEY, &key);
			pushJsonbValue(&state, WJB_VALUE, &value);
		}
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* Elevate the live session that the scan stands on and has locked. */
static void
elevate(SmScan *scan, Jsonb *auth, Jsonb *data, SmRenewal *renewal)
{
	const SmSchema *schema = scan->schema;
	SmSession  *session = &scan->session;
	SmContent	content;
	SmChanges	changes = {0};
	TimestampTz now;
	int32		key_id;

	if (!sm_session_open(schema, session, &content))
		sm_report_corrupt(schema, session);
	now = GetCurrentTimestamp();
	content.auth = keep_reserved(content.auth, auth);
	if (data != NULL)
	{
		content.data = data;
		session->version++;
		sm_change(&changes, Anum_version, Int32GetDatum(session->version));
	}
	session->authenticated_at = now;
	sm_change(&changes, Anum_authenticated_at, TimestampTzGetDatum(now));
	sm_change(&changes, Anum_sealed_data,
			  sm_session_seal(schema, session, &content, &key_id));
	sm_change(&changes, Anum_key_id, Int32GetDatum(key_id));
	sm_change(&changes, Anum_last_seen_at, TimestampTzGetDatum(now));
	describe(renewal, "rotated", session, session->expires_at);
	rotate_token(scan, &changes, ROTATION_ELEVATION, now, renewal);
	sm_scan_update(scan, &changes);
	sm_session_event(schema, SM_EVENT_ELEVATED, session, &sm_no_client, NULL);
	sm_count(SM_ELEVATED);
}

/*
 * Put a session in another tenant in the place of the live one that the scan
 * stands on and has locked.
 */
static void
switch_tenant(SmScan *scan, text *tenant_id, Jsonb *data, SmRenewal *renewal)
{
	const SmSchema *schema = scan->schema;
	SmSession  *old = &scan->session;
	SmSession	session = {0};
	SmContent	content;
	pg_uuid_t	id;
	TimestampTz now;

	if (!sm_session_open(schema, old, &content))
		sm_report_corrupt(schema, old);
	/* one tenant's data does not reach another unless the caller passes it */
	content.data = (data != NULL) ? data : empty_object();
	now = GetCurrentTimestamp();
	new_id(&id, now, sm_id_bucket(old->session_id->data));
	session.session_id = &id;
	session.created_at = session.last_seen_at = now;
	session.authenticated_at = old->authenticated_at;
	session.absolute_expires_at = old->absolute_expires_at;
	/* as a refresh extends it */
	session.expires_at = Min(Max(now + old->ttl, old->expires_at),
							 old->absolute_expires_at);
	session.ttl = old->ttl;
	session.idle_timeout = old->idle_timeout;
	session.actor_session_id = old->actor_session_id;
	session.actor_id = old->actor_id;
	session.device_binding_id = old->device_binding_id;
	session.device_bound_at = old->device_bound_at;
	session.device_proved_at = old->device_proved_at;
	session.version = 1;
	session.user_id = old->user_id;
	session.tenant_id = tenant_id;
	session.ip = old->ip;
	session.user_agent = old->user_agent;

	end_session(scan, NULL, SM_EVENT_INVALIDATED,
				cstring_to_text("tenant_switched"), &id);
	describe(renewal, "rotated", &session, session.expires_at);
	renewal->token = make_session(schema, &session, &content, old->session_id);
}

/*
 * Replace the token of the session that the scan stands on and has locked, as a
 * refresh does; returns the new one.
 */
text *
sm_replace_token(SmScan *scan, SmChanges *changes, TimestampTz now)
{
	SmRenewal	renewal = SM_ENDED;

	rotate_token(scan, changes, ROTATION_REFRESH, now, &renewal);
	return renewal.token;
}

/* Replace the token of the session that the scan stands on. */
static void
rotate_token(SmScan *scan, SmChanges *changes, Rotation rotation,
			 TimestampTz now, SmRenewal *renewal)
{
	SmSession  *session = &scan->session;
	const SmKey *key = sm_key_active(scan->schema);
	SmOwner		owner;
	uint8		verifier[SM_VERIFIER_LEN];
	TimestampTz valid_until = DT_NOBEGIN;

	/* what may do more is not for who holds the old one: that gets no grace */
	if (rotation != ROTATION_ELEVATION)
		valid_until = now + (int64) sm_rotation_grace * USECS_PER_SEC;
	/* a lost token is forgotten: the one before is still told from a guess */
	if (rotation != ROTATION_LOST_ANSWER)
	{
		sm_change(changes, Anum_previous_verifier, PointerGetDatum(session->verifier));
		sm_change(changes, Anum_previous_key_id, Int32GetDatum(session->verifier_key_id));
	}
	(void) sm_session_owner(session, &owner);
	renewal->status = "rotated";
	sm_commit_visibly();
	renewal->token = new_token(key, &owner, verifier);
	sm_change(changes, Anum_verifier, bytea_datum(verifier, SM_VERIFIER_LEN));
	sm_change(changes, Anum_verifier_key_id, Int32GetDatum(key->id));
	sm_change(changes, Anum_rotated_at, TimestampTzGetDatum(now));
	sm_change(changes, Anum_previous_valid_until, TimestampTzGetDatum(valid_until));
	sm_change_null(changes, Anum_successor_used_at);
}

/*
 * Move a session's verifier to the active key, if it is under another one.
 * That takes the token's digest, which only its holder's calls bring along.
 */
static void
renew_verifier(SmScan *scan, SmChanges *changes, const SmToken *token)
{
	const SmKey *key = sm_key_active(scan->schema);
	SmOwner		owner;
	uint8		verifier[SM_VERIFIER_LEN];

	if (key->id == scan->session.verifier_key_id)
		return;
	(void) sm_session_owner(&scan->session, &owner);
	sm_verifier(key->subkeys.verifier, &owner, token->digest, verifier);
	sm_change(changes, Anum_verifier, bytea_datum(verifier, SM_VERIFIER_LEN));
	sm_change(changes, Anum_verifier_key_id, Int32GetDatum(key->id));
}

/*
 * Say what a renewal came to, in memory that outlives the scan; 0 for
 * "expires_at" if the session is over.
 */
static void
describe(SmRenewal *renewal, const char *status, const SmSession *session,
		 TimestampTz expires_at)
{
	renewal->status = status;
	renewal->known = true;
	renewal->session_id = *session->session_id;
	renewal->user_id = DatumGetTextPCopy(PointerGetDatum(session->user_id));
	renewal->expires_at = expires_at;
	renewal->absolute_expires_at = session->absolute_expires_at;
}

static void
count_end(SmEventType type, const text *reason)
{
	static const struct
	{
		const char *reason;
		SmCounter	counter;
	}			counters[] = {
		{"logout", SM_INVALIDATED_LOGOUT},
		{"logout_all", SM_INVALIDATED_LOGOUT_ALL},
		{"admin", SM_INVALIDATED_ADMIN}
	};

	if (type == SM_EVENT_EVICTED)
	{
		sm_count(SM_EVICTED);
		return;
	}
	for (int i = 0; i < (int) lengthof(counters); i++)
		if (VARSIZE_ANY_EXHDR(reason) == strlen(counters[i].reason) &&
			memcmp(VARDATA_ANY(reason), counters[i].reason,
				   VARSIZE_ANY_EXHDR(reason)) == 0)
		{
			sm_count(counters[i].counter);
			return;
		}
	sm_count(SM_INVALIDATED_OTHER);
}

/*
 * Notify the listeners, once this transaction commits, that a session has
 * ended: a server that holds connections open can close them.
 */
static void
notify(const SmSession *session, const text *reason)
{
	JsonbParseState *payload = sm_detail_begin();
	char	   *id = DatumGetCString(DirectFunctionCall1(uuid_out,
														 UUIDPGetDatum(session->session_id)));
	Jsonb	   *json;

	sm_detail_cstring(&payload, "session_id", id);
	sm_detail_text(&payload, "user_id", session->user_id);
	sm_detail_text(&payload, "reason", reason);
	json = sm_detail_end(&payload);
	Async_Notify("session_revoked", JsonbToCString(NULL, &json->root, VARSIZE(json)));
}

static Jsonb *
empty_object(void)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
}

static void
detail_uuid(JsonbParseState **detail, const char *key, const pg_uuid_t *id)
{
	sm_detail_cstring(detail, key,
					  DatumGetCString(DirectFunctionCall1(uuid_out,
														  UUIDPGetDatum(id))));
}

static Datum
bytea_datum(const uint8 *bytes, int len)
{
	bytea	   *value = palloc(VARHDRSZ + len);

	SET_VARSIZE(value, VARHDRSZ + len);
	memcpy(VARDATA(value), bytes, len);
	return PointerGetDatum(value);
}

static Datum
interval_datum(int64 us)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = us;
	return IntervalPGetDatum(interval);
}
