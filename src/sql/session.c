/*-------------------------------------------------------------------------
 *
 * session.c
 *	  The life of one session: create, get, update, refresh, elevate,
 *	  invalidate, status, reason of the end.
 *
 * Each function takes the token apart, finds the row under the latest
 * snapshot, authenticates, and, to write, locks the row and authenticates
 * again.  A function that has to leave something behind returns a status
 * instead of raising an error, which would undo it.  No function ever
 * inserts a session but session_create, and session_switch_tenant in the place
 * of one that is alive under its row's lock: nothing that has ended comes back.
 *
 * Locks, in this order: the advisory locks of logins (create, switch_tenant)
 * and of the user (create, switch_tenant, invalidate), the row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"

#include "cache/cache.h"
#include "guc.h"
#include "keys/keyring.h"
#include "session/authenticate.h"
#include "session/locks.h"
#include "session/patch.h"
#include "session/touch.h"
#include "session/verdict.h"
#include "shared.h"
#include "sql/arguments.h"
#include "sql/result.h"
#include "sql/session.h"

PG_FUNCTION_INFO_V1(sm_session_create);
PG_FUNCTION_INFO_V1(sm_session_get);
PG_FUNCTION_INFO_V1(sm_session_update);
PG_FUNCTION_INFO_V1(sm_session_refresh);
PG_FUNCTION_INFO_V1(sm_session_elevate);
PG_FUNCTION_INFO_V1(sm_session_switch_tenant);
PG_FUNCTION_INFO_V1(sm_session_invalidate);
PG_FUNCTION_INFO_V1(sm_session_status);
PG_FUNCTION_INFO_V1(sm_session_end_reason);
PG_FUNCTION_INFO_V1(sm_session_token_digest);
PG_FUNCTION_INFO_V1(sm_session_bucket_user);
PG_FUNCTION_INFO_V1(sm_session_bucket_id);

/* What session_refresh, session_elevate and session_switch_tenant say. */
typedef struct Renewal
{
	const char *status;
	const SmSession *session;	/* NULL if it has ended */
	text	   *token;			/* NULL unless there is a new one */
	TimestampTz expires_at;
} Renewal;

static void new_id(pg_uuid_t *id, TimestampTz now, uint16 bucket);
static text *make_session(const SmSchema *schema, const SmSession *session,
						  const SmContent *content,
						  const pg_uuid_t *predecessor);
static void end_session(SmScan *scan, SmEventWriter *events, SmEventType type,
						text *reason, const pg_uuid_t *successor);
static text *new_token(const SmKey *key, const SmOwner *owner,
					   uint8 verifier[SM_VERIFIER_LEN]);
static void enforce_limit(const SmSchema *schema, text *user_id,
						  TimestampTz now);
static int	compare_created(const void *a, const void *b);
static bool client_allowed(const SmSchema *schema, const SmToken *token,
						   const SmSession *session, inet *ip,
						   text *user_agent, bool may_move, bool *moved);
static void mark_used(SmChanges *changes, const SmSession *session,
					  bool current, TimestampTz now);
static void rotate_token(SmChanges *changes, const SmSchema *schema,
						 SmSession *session, bool previous, bool elevated,
						 TimestampTz now, Renewal *renewal);
static void refresh(SmScan *scan, SmToken *token, bool rotate, int64 ttl,
					bool has_ttl, inet *ip, text *user_agent,
					Renewal *renewal);
static Datum renewal_row(FunctionCallInfo fcinfo, const Renewal *renewal);
static void count_end(SmEventType type, const text *reason);
static void notify(const SmSession *session, const text *reason);
static Jsonb *empty_object(void);
static void detail_uuid(JsonbParseState **detail, const char *key,
						const pg_uuid_t *id);
static Datum bytea_datum(const uint8 *bytes, int len);
static Datum ttl_datum(int64 us);

/*
 * session_create(user_id, data, ttl, ip, user_agent, tenant_id, auth,
 *				  max_lifetime)
 */
Datum
sm_session_create(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	text	   *user_id = sm_arg_user_id(fcinfo, 0);
	int64		longest = (int64) sm_max_lifetime * USECS_PER_SEC;
	int64		ttl = sm_arg_lifetime(fcinfo, 2, "ttl", longest, false);
	int64		max_lifetime = sm_arg_lifetime(fcinfo, 7, "max_lifetime",
											   longest, false);
	SmSession	session = {0};
	SmContent	content;
	pg_uuid_t	id;
	uint16		bucket;
	text	   *token;
	TimestampTz now;
	static const Oid types[] = {
		UUIDOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID
	};
	Datum		row[5];
	bool		row_nulls[5] = {false};

	content.data = sm_arg_object(fcinfo, 1, "session data");
	content.auth = sm_arg_object(fcinfo, 6, "auth");
	session.user_id = user_id;
	session.ip = sm_arg_ip(fcinfo, 3);
	session.user_agent = sm_arg_user_agent(fcinfo, 4);
	session.tenant_id = sm_arg_tenant_id(fcinfo, 5);

	PreventCommandIfReadOnly("session_create()");
	schema = sm_schema_of(fcinfo);
	bucket = (uint16) sm_user_text_hash(user_id);
	sm_check_shard(bucket);

	sm_lock_login(user_id);
	now = GetCurrentTimestamp();
	if (sm_max_sessions_per_user > 0)
		enforce_limit(schema, user_id, now);

	if (content.data == NULL)
		content.data = empty_object();
	if (max_lifetime == 0)
		max_lifetime = longest;
	if (ttl == 0)
		ttl = Min((int64) sm_ttl * USECS_PER_SEC, max_lifetime);

	new_id(&id, now, bucket);
	session.session_id = &id;
	session.created_at = session.authenticated_at = session.last_seen_at = now;
	session.absolute_expires_at = now + max_lifetime;
	session.expires_at = now + Min(ttl, max_lifetime);
	session.ttl = ttl;
	session.version = 1;
	token = make_session(schema, &session, &content, NULL);

	row[0] = UUIDPGetDatum(&id);
	row[1] = PointerGetDatum(token);
	row[2] = TimestampTzGetDatum(now);
	row[3] = TimestampTzGetDatum(session.expires_at);
	row[4] = TimestampTzGetDatum(session.absolute_expires_at);
	return sm_result_row(fcinfo, types, lengthof(types), row, row_nulls);
}

/*
 * session_get(token, ip, user_agent, touch)
 *
 * The hot path.  A touch that is due is noted in shared memory; only where
 * there is none, or no room in it, is the row written, and then without
 * waiting for anybody, and never in a read-only transaction.
 */
Datum
sm_session_get(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmToken		token;
	SmScan		scan;
	SmSession  *session = &scan.session;
	inet	   *ip = sm_arg_ip(fcinfo, 1);
	text	   *user_agent = sm_arg_user_agent(fcinfo, 2);
	bool		may_touch;
	SmLookup	lookup;
	bool		moved;
	bool		due;
	TimestampTz now;
	SmContent	content;
	static const Oid types[] = {
		UUIDOID, TEXTOID, TEXTOID, JSONBOID, INT4OID, JSONBOID,
		TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, BOOLOID
	};
	Datum		values[12];
	bool		nulls[12] = {false};

	if (PG_ARGISNULL(0))
		return sm_result_none(fcinfo);
	schema = sm_schema_of(fcinfo);
	/* not before: that is what finds this database in shared memory */
	may_touch = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3) && sm_can_touch();
	if (!sm_token_from_text(PG_GETARG_TEXT_PP(0), &token))
	{
		sm_count(SM_GET_MALFORMED);
		return sm_result_none(fcinfo);
	}

	lookup = sm_find_live(&scan, schema, &token, AccessShareLock, SM_EVENT_REJECTED,
							ip, user_agent);
	if (lookup == SM_LOOKUP_LIVE &&
		!client_allowed(schema, &token, session, ip, user_agent, may_touch,
						&moved))
		lookup = SM_LOOKUP_REJECTED;
	if (lookup != SM_LOOKUP_LIVE)
	{
		sm_count((SmCounter) lookup);
		sm_scan_end(&scan);
		return sm_result_none(fcinfo);
	}
	if (!sm_session_open(schema, session, &content))
	{
		sm_count(SM_GET_CORRUPT);
		sm_report_corrupt(schema, session);
	}
	sm_count(SM_GET_HIT);

	now = GetCurrentTimestamp();
	due = may_touch && (moved || sm_touch_due(session, &token, now));
	if (sm_database != NULL && RecoveryInProgress() &&
		sm_touch_due(session, &token, now))
		sm_count(SM_TOUCHES_DROPPED);

	values[0] = UUIDPGetDatum(session->session_id);
	values[1] = PointerGetDatum(session->user_id);
	values[2] = PointerGetDatum(session->tenant_id);
	nulls[2] = (session->tenant_id == NULL);
	values[3] = JsonbPGetDatum(content.data);
	values[4] = Int32GetDatum(session->version);
	values[5] = PointerGetDatum(content.auth);
	nulls[5] = (content.auth == NULL);
	values[6] = TimestampTzGetDatum(session->created_at);
	values[7] = TimestampTzGetDatum(session->authenticated_at);
	values[8] = TimestampTzGetDatum(due ? now : session->last_seen_at);
	values[9] = TimestampTzGetDatum(session->expires_at);
	values[10] = TimestampTzGetDatum(session->absolute_expires_at);
	/* a cached session is used unseen, by its current token, from anywhere */
	values[11] = BoolGetDatum(sm_cache_on() &&
							  !sm_touch_due(session, &token, now) &&
							  token.match == SM_MATCH_CURRENT &&
							  sm_client_binding == SM_BINDING_OFF &&
							  !RecoveryInProgress() &&
							  !IsolationUsesXactSnapshot() &&
							  sm_scan_row_is_settled(&scan));
	(void) sm_result_row(fcinfo, types, lengthof(types), values, nulls);

	if (due)
		sm_touch_session(&scan, &token, now, moved, ip, user_agent);
	sm_scan_end(&scan);
	return (Datum) 0;
}

/*
 * session_update(token, patch, expected_version, replace)
 */
Datum
sm_session_update(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmToken		token;
	SmScan		scan;
	Jsonb	   *patch = sm_arg_object(fcinfo, 1, "patch");
	bool		replace = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	int32		version;
	Jsonb	   *data;
	static const Oid types[] = {INT4OID, JSONBOID};
	Datum		values[2];
	bool		nulls[2] = {false};

	PreventCommandIfReadOnly("session_update()");
	if (PG_ARGISNULL(0))
		return sm_result_none(fcinfo);
	if (patch == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("patch must not be null")));
	schema = sm_schema_of(fcinfo);
	if (!sm_token_from_text(PG_GETARG_TEXT_PP(0), &token))
		return sm_result_none(fcinfo);

	if (sm_find_live(&scan, schema, &token, RowExclusiveLock, SM_EVENT_REJECTED,
							NULL, NULL) != SM_LOOKUP_LIVE ||
		!sm_lock_live(&scan, &token) ||
		!sm_token_works(&scan.session, token.match, GetCurrentTimestamp()))
	{
		sm_scan_end(&scan);
		return sm_result_none(fcinfo);
	}
	if (!PG_ARGISNULL(2) && PG_GETARG_INT32(2) != scan.session.version)
		ereport(ERROR,
				(errcode(ERRCODE_SM_VERSION_CONFLICT),
				 errmsg("session data has been changed by somebody else"),
				 errdetail("The version is %d, not %d.",
						   scan.session.version, PG_GETARG_INT32(2)),
				 errhint("Read the session again and decide anew.")));
	sm_patch_session(&scan, patch, replace, true,
							token.match == SM_MATCH_CURRENT, &version, &data);
	values[0] = Int32GetDatum(version);
	values[1] = JsonbPGetDatum(data);
	(void) sm_result_row(fcinfo, types, lengthof(types), values, nulls);
	sm_scan_end(&scan);
	return (Datum) 0;
}

/*
 * session_refresh(token, rotate, ttl, ip, user_agent)
 */
Datum
sm_session_refresh(PG_FUNCTION_ARGS)
{
	SmToken		token;
	SmScan		scan;
	bool		rotate = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	int64		ttl = sm_arg_lifetime(fcinfo, 2, "ttl",
									  (int64) sm_max_lifetime * USECS_PER_SEC,
									  true);
	inet	   *ip = sm_arg_ip(fcinfo, 3);
	text	   *user_agent = sm_arg_user_agent(fcinfo, 4);
	Renewal		renewal = {.status = "ended"};
	const SmSchema *schema;
	Datum		result;

	PreventCommandIfReadOnly("session_refresh()");
	if (PG_ARGISNULL(0))
		return renewal_row(fcinfo, &renewal);
	schema = sm_schema_of(fcinfo);
	if (!sm_token_from_text(PG_GETARG_TEXT_PP(0), &token))
		return renewal_row(fcinfo, &renewal);

	if (sm_find(&scan, schema, &token, RowExclusiveLock, SM_EVENT_REJECTED,
							ip, user_agent) != SM_MATCH_NONE)
		refresh(&scan, &token, rotate, ttl, !PG_ARGISNULL(2), ip, user_agent,
				&renewal);
	result = renewal_row(fcinfo, &renewal);
	sm_scan_end(&scan);
	return result;
}

/*
 * session_elevate(token, auth, data)
 *
 * Only the current token will do: a replaced one must not gain anything.
 */
Datum
sm_session_elevate(PG_FUNCTION_ARGS)
{
	SmToken		token;
	SmScan		scan;
	SmSession  *session = &scan.session;
	Jsonb	   *auth = sm_arg_object(fcinfo, 1, "auth");
	Jsonb	   *data = sm_arg_object(fcinfo, 2, "session data");
	Renewal		renewal = {.status = "ended"};
	SmContent	content;
	SmChanges	changes = {0};
	TimestampTz now;
	int32		key_id;
	const SmSchema *schema;
	Datum		result;

	PreventCommandIfReadOnly("session_elevate()");
	if (PG_ARGISNULL(0))
		return renewal_row(fcinfo, &renewal);
	if (auth == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("auth must not be null")));
	schema = sm_schema_of(fcinfo);
	if (!sm_token_from_text(PG_GETARG_TEXT_PP(0), &token))
		return renewal_row(fcinfo, &renewal);

	if (sm_find_live(&scan, schema, &token, RowExclusiveLock, SM_EVENT_REJECTED,
							NULL, NULL) == SM_LOOKUP_LIVE &&
		sm_lock_live(&scan, &token))
	{
		if (token.match == SM_MATCH_PREVIOUS)
		{
			if (sm_token_works(session, token.match, GetCurrentTimestamp()))
			{
				renewal.status = "already_rotated";
				renewal.session = session;
				renewal.expires_at = session->expires_at;
			}
		}
		else
		{
			if (!sm_session_open(schema, session, &content))
				sm_report_corrupt(schema, session);
			now = GetCurrentTimestamp();
			content.auth = auth;
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
			renewal.session = session;
			renewal.expires_at = session->expires_at;
			rotate_token(&changes, schema, session, false, true, now, &renewal);
			sm_scan_update(&scan, &changes);
			sm_session_event(schema, SM_EVENT_ELEVATED, session, NULL, NULL, NULL);
			sm_count(SM_ELEVATED);
		}
	}
	result = renewal_row(fcinfo, &renewal);
	sm_scan_end(&scan);
	return result;
}

/*
 * session_switch_tenant(token, tenant_id, data)
 *
 * A session's tenant is bound into its verifier and its seal, so going on in
 * another one takes a new session.  It replaces one that is alive, under the
 * user's lock and the row's: whatever ends the old one either comes first, and
 * then there is no new one, or finds the new one.  One for one, it does not
 * count against the limit.
 *
 * Only the current token will do, as for session_elevate.
 */
Datum
sm_session_switch_tenant(PG_FUNCTION_ARGS)
{
	SmToken		token;
	SmScan		scan;
	SmSession  *old = &scan.session;
	SmSession	session = {0};
	text	   *tenant_id = sm_arg_tenant_id(fcinfo, 1);
	Jsonb	   *data = sm_arg_object(fcinfo, 2, "session data");
	Renewal		renewal = {.status = "ended"};
	SmContent	content;
	pg_uuid_t	id;
	TimestampTz now;
	const SmSchema *schema;
	Datum		result;

	PreventCommandIfReadOnly("session_switch_tenant()");
	if (PG_ARGISNULL(0))
		return renewal_row(fcinfo, &renewal);
	schema = sm_schema_of(fcinfo);
	if (!sm_token_from_text(PG_GETARG_TEXT_PP(0), &token))
		return renewal_row(fcinfo, &renewal);

	if (sm_find_live(&scan, schema, &token, RowExclusiveLock, SM_EVENT_REJECTED,
					 NULL, NULL) == SM_LOOKUP_LIVE)
	{
		sm_lock_login(old->user_id);
		if (sm_lock_live(&scan, &token) &&
			sm_token_works(old, token.match, GetCurrentTimestamp()))
		{
			if (token.match == SM_MATCH_PREVIOUS)
			{
				renewal.status = "already_rotated";
				renewal.session = old;
				renewal.expires_at = old->expires_at;
			}
			else
			{
				if (!sm_session_open(schema, old, &content))
					sm_report_corrupt(schema, old);
				/* what one tenant knows is not for another, unless given */
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
				session.version = 1;
				session.user_id = old->user_id;
				session.tenant_id = tenant_id;
				session.ip = old->ip;
				session.user_agent = old->user_agent;

				end_session(&scan, NULL, SM_EVENT_INVALIDATED,
							cstring_to_text("tenant_switched"), &id);
				renewal.status = "rotated";
				renewal.session = &session;
				renewal.expires_at = session.expires_at;
				renewal.token = make_session(schema, &session, &content,
											 old->session_id);
			}
		}
	}
	result = renewal_row(fcinfo, &renewal);
	sm_scan_end(&scan);
	return result;
}

/*
 * session_invalidate(token, reason)
 *
 * Any token that the session ever answered to and still knows ends it: who
 * logs out with one that has just been replaced means it.
 */
Datum
sm_session_invalidate(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmToken		token;
	SmScan		scan;
	text	   *reason = sm_arg_reason(fcinfo, 1);
	text	   *user_id = NULL;

	PreventCommandIfReadOnly("session_invalidate()");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	schema = sm_schema_of(fcinfo);
	if (!sm_token_from_text(PG_GETARG_TEXT_PP(0), &token))
		PG_RETURN_NULL();

	if (sm_find(&scan, schema, &token, RowExclusiveLock, SM_EVENT_REJECTED,
							NULL, NULL) != SM_MATCH_NONE)
	{
		/*
		 * A login may follow in this transaction, in place of the session.
		 * Whoever has the row already is too late for the order of locks.
		 */
		if (!sm_scan_row_is_ours(&scan))
			sm_lock_login(scan.session.user_id);
		if (sm_lock_live(&scan, &token))
		{
			sm_end_session(&scan, NULL, SM_EVENT_INVALIDATED, reason);
			user_id = DatumGetTextPCopy(PointerGetDatum(scan.session.user_id));
		}
	}
	sm_scan_end(&scan);
	if (user_id == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(user_id);
}

/*
 * session_status(token)
 */
Datum
sm_session_status(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {
		[SM_LIFE_ACTIVE] = "active",
		[SM_LIFE_EXPIRED] = "expired",
		[SM_LIFE_IDLE] = "idle",
		[SM_LIFE_REVOKED] = "revoked"
	};
	const SmSchema *schema;
	SmToken		token;
	SmScan		scan;
	SmMatch		match;
	TimestampTz now = GetCurrentTimestamp();
	const char *status = "unknown";

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	schema = sm_schema_of(fcinfo);
	if (!sm_token_from_text(PG_GETARG_TEXT_PP(0), &token))
		PG_RETURN_TEXT_P(cstring_to_text("malformed"));

	sm_scan_by_id(&scan, schema, token.id, AccessShareLock);
	if (sm_scan_next(&scan))
	{
		if (sm_session_key_revoked(schema, &scan.session))
			status = names[SM_LIFE_REVOKED];
		else
		{
			match = sm_authenticate(schema, &scan.session, &token);
			if (sm_token_works(&scan.session, match, now))
			{
				SmLife		life = sm_session_life(schema, &scan.session, now);

				/* what is dead by its own word needs no proof */
				if (life != SM_LIFE_ACTIVE ||
					sm_session_intact(schema, &scan.session))
					status = names[life];
			}
		}
	}
	sm_scan_end(&scan);
	PG_RETURN_TEXT_P(cstring_to_text(status));
}

/*
 * session_end_reason(token)
 *
 * For the device that held the session, so only a token that the session
 * knows is told, the current one or the previous.  Under a revoked key no
 * token can be told from a guess.
 */
Datum
sm_session_end_reason(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmToken		token;
	SmScan		scan;
	text	   *reason = NULL;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	schema = sm_schema_of(fcinfo);
	if (!sm_token_from_text(PG_GETARG_TEXT_PP(0), &token))
		PG_RETURN_NULL();

	if (sm_find(&scan, schema, &token, AccessShareLock, SM_EVENT_REJECTED,
				NULL, NULL) != SM_MATCH_NONE)
		switch (sm_session_life(schema, &scan.session, GetCurrentTimestamp()))
		{
			case SM_LIFE_ACTIVE:
				break;
			case SM_LIFE_EXPIRED:
				reason = cstring_to_text("expired");
				break;
			case SM_LIFE_IDLE:
				reason = cstring_to_text("idle");
				break;
			case SM_LIFE_REVOKED:
				/* whoever revoked it by hand may have given none */
				if (scan.session.revoked_reason != NULL)
					reason = cstring_to_text_with_len(VARDATA_ANY(scan.session.revoked_reason),
												  VARSIZE_ANY_EXHDR(scan.session.revoked_reason));
				break;
		}
	sm_scan_end(&scan);
	if (reason == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(reason);
}

/*
 * session_token_digest(token)
 */
Datum
sm_session_token_digest(PG_FUNCTION_ARGS)
{
	text	   *token = PG_GETARG_TEXT_PP(0);
	uint8		id[SM_ID_LEN];
	uint8		payload[SM_SECRET_LEN];
	uint8		digest[SM_DIGEST_LEN];
	char		out[SM_TOKEN_LEN];

	switch (sm_token_parse(VARDATA_ANY(token), VARSIZE_ANY_EXHDR(token),
						   id, payload))
	{
		case SM_TOKEN_SECRET:
			sm_token_digest(id, payload, digest);
			sm_wipe(payload, sizeof(payload));
			sm_token_format(SM_TOKEN_DIGEST, id, digest, out);
			PG_RETURN_TEXT_P(cstring_to_text_with_len(out, SM_TOKEN_LEN));
		case SM_TOKEN_DIGEST:
			PG_RETURN_TEXT_P(token);
		case SM_TOKEN_MALFORMED:
			break;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("malformed session token"),
			 errhint("A token is %d characters long and begins with \"%s\".",
					 SM_TOKEN_LEN, SM_TOKEN_PREFIX)));
}

/*
 * session_bucket(user_id text)
 */
Datum
sm_session_bucket_user(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32((uint16) sm_user_text_hash(PG_GETARG_TEXT_PP(0)));
}

/*
 * session_bucket(session_id uuid)
 */
Datum
sm_session_bucket_id(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(sm_id_bucket(PG_GETARG_UUID_P(0)->data));
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
 * Patch or replace the data of the live session that the scan stands on and
 * has locked.  "used" says that its holder does it, with the current token or
 * the previous.  Returns the version and data that result.
 */
void
sm_patch_session(SmScan *scan, Jsonb *patch, bool replace, bool used,
				 bool current, int32 *version, Jsonb **data)
{
	SmSession  *session = &scan->session;
	SmContent	content;
	SmChanges	changes = {0};
	JsonbParseState *detail;
	Jsonb	   *result;
	int32		key_id;

	if (!sm_session_open(scan->schema, session, &content))
		sm_report_corrupt(scan->schema, session);
	result = replace ? patch : sm_merge_patch(content.data, patch);
	if (VARSIZE(result) <= VARSIZE(content.data))
		 /* may always shrink */ ;
	else if (used)
		sm_check_size(result, "session data");
	else if (VARSIZE(result) / 2 > (Size) sm_max_data_size)
	{
		/*
		 * Without a token nobody is to learn how large the data is: any patch
		 * finds room beside the data that a holder may have.  Where others
		 * have taken that before, all goes on as if the patch had been applied.
		 */
		ereport(LOG_SERVER_ONLY,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("data of session %s is too large to be patched",
						DatumGetCString(DirectFunctionCall1(uuid_out,
															UUIDPGetDatum(session->session_id)))),
				 errhidestmt(true),
				 errhint("Let session_update_user() remove what is not needed, or raise session_manager.max_data_size.")));
		result = content.data;
	}
	*data = result;
	*version = session->version;
	if (used && compareJsonbContainers(&content.data->root, &result->root) == 0)
	{
		/* a first use is written all the same */
		if (scan->noted_successor_used_at != 0 ||
			(current && !session->successor_used))
		{
			mark_used(&changes, session, current, GetCurrentTimestamp());
			sm_scan_update(scan, &changes);
		}
		return;
	}
	/* whoever has no token learns nothing by whether anything is written */

	content.data = result;
	*version = ++session->version;
	sm_change(&changes, Anum_version, Int32GetDatum(*version));
	sm_change(&changes, Anum_sealed_data,
			  sm_session_seal(scan->schema, session, &content, &key_id));
	sm_change(&changes, Anum_key_id, Int32GetDatum(key_id));
	if (used)
		mark_used(&changes, session, current, GetCurrentTimestamp());

	detail = sm_detail_begin();
	sm_detail_int(&detail, "version", *version);
	sm_session_event(scan->schema, SM_EVENT_UPDATED, session, NULL, NULL,
					 sm_detail_end(&detail));
	sm_scan_update(scan, &changes);
	sm_count(SM_UPDATED);
}

/*
 * Can a use of a session be noted?  On a standby nobody writes, and without
 * shared memory a read-only transaction has nowhere to note it.  To be asked
 * after sm_schema_of, which finds the shared memory.
 */
bool
sm_can_touch(void)
{
	return sm_worker_comes() || !XactReadOnly;
}

/*
 * Is a use of a session to be noted?  The first use of a rotated token always
 * is: it tells a lost answer from a replay.
 */
bool
sm_touch_due(const SmSession *session, const SmToken *token, TimestampTz now)
{
	int64		interval = (int64) sm_touch_interval * USECS_PER_SEC;

	/* a session in use must not look idle for want of accuracy */
	if (sm_idle_timeout > 0)
		interval = Min(interval, (int64) sm_idle_timeout * USECS_PER_SEC / 2);
	return (token->match == SM_MATCH_CURRENT && !session->successor_used) ||
		now - session->last_seen_at >= interval;
}

/*
 * Note a use of the session that the scan stands on: in shared memory for a
 * worker to write, or else in its row.  Somebody who holds that, or the
 * table, is noting more than that: then nothing is written, rather than have
 * a read wait.  A session that "moved" to another network is written at once,
 * so that the next use is compared with that.  Nothing of the row may be looked at afterwards.
 */
void
sm_touch_session(SmScan *scan, const SmToken *token, TimestampTz seen_at,
				 bool moved, inet *ip, text *user_agent)
{
	SmChanges	changes = {0};
	SmSession  *session = &scan->session;
	TimestampTz seen = session->last_seen_at;
	TimestampTz now;
	SmMatch		match;

	if (sm_worker_comes() && (!moved || XactReadOnly))
	{
		bool		first = token->match == SM_MATCH_CURRENT && !session->successor_used;

		if (sm_touch_note(session->session_id, seen_at,
						  first ? &session->rotated_at : NULL, ip, user_agent))
		{
			sm_count(SM_TOUCHES_BUFFERED);
			return;
		}
		sm_count(SM_TOUCHES_FALLBACK);
	}
	if (XactReadOnly)
	{
		sm_count(SM_TOUCHES_DROPPED);
		return;
	}

	if (!ConditionalLockRelationOid(scan->schema->sessions, RowExclusiveLock) ||
		!sm_scan_lock(scan, LockTupleNoKeyExclusive, LockWaitSkip))
		return;
	now = GetCurrentTimestamp();
	if (sm_session_life(scan->schema, session, now) != SM_LIFE_ACTIVE)
		return;
	match = sm_authenticate(scan->schema, session, token);
	if (!sm_token_works(session, match, now) ||
		(session->last_seen_at != seen && session->successor_used && !moved))
		return;
	mark_used(&changes, session, match == SM_MATCH_CURRENT, now);
	if (ip)
		sm_change(&changes, Anum_ip, InetPGetDatum(ip));
	if (user_agent)
		sm_change(&changes, Anum_user_agent, PointerGetDatum(user_agent));
	sm_scan_update(scan, &changes);
	sm_count(SM_TOUCHES_DIRECT);
}

/*
 * Sealed data is not what was sealed for its row.
 */
void
sm_report_corrupt(const SmSchema *schema, const SmSession *session)
{
	char	   *id = DatumGetCString(DirectFunctionCall1(uuid_out,
														 UUIDPGetDatum(session->session_id)));

	(void) sm_verdict_keep(SM_EVENT_CORRUPT, session->session_id, true, false, NULL, 0,
						   NULL, NULL);
	ereport(ERROR,
			(errcode(ERRCODE_SM_DATA_CORRUPT),
			 errmsg("data of session %s is corrupt", id),
			 errdetail("It was changed, or moved from another row, by something other than this extension."),
			 errhint("End the session: SELECT %s('%s');",
					 sm_schema_qualify(schema, "session_invalidate_id"), id)));
}

/*
 * The same where the others of a user's sessions are to be dealt with.
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

/* An id for a session of the given bucket. */
static void
new_id(pg_uuid_t *id, TimestampTz now, uint16 bucket)
{
	uint8		random[8];

	sm_random(random, sizeof(random));
	sm_id_make(id->data,
			   (now + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY) / 1000,
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
	int32		key_id;
	Datum		values[Natts_user_sessions] = {0};
	bool		nulls[Natts_user_sessions];

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
	PUT(sweep_at, TimestampTzGetDatum(sm_session_deadline(session)));
	PUT(ttl, ttl_datum(session->ttl));
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
	sm_store_insert(schema, values, nulls);

	if (predecessor)
	{
		JsonbParseState *building = sm_detail_begin();

		detail_uuid(&building, "predecessor", predecessor);
		detail = sm_detail_end(&building);
	}
	sm_session_event(schema, SM_EVENT_CREATED, session, session->ip,
					 session->user_agent, detail);
	sm_count(SM_CREATED);
	return token;
}

/*
 * End the live session that the scan stands on and has locked; "successor" is
 * the id of the session that takes its place, or NULL.
 */
static void
end_session(SmScan *scan, SmEventWriter *events, SmEventType type,
			text *reason, const pg_uuid_t *successor)
{
	SmChanges	changes = {0};
	JsonbParseState *detail = sm_detail_begin();
	SmEvent		event = {
		.type = type,
		.session_id = scan->session.session_id,
		.user_id = scan->session.user_id,
		.tenant_id = scan->session.tenant_id
	};

	sm_detail_text(&detail, "reason", reason);
	if (successor)
		detail_uuid(&detail, "successor", successor);
	event.detail = sm_detail_end(&detail);
	if (events)
		sm_events_add(events, &event);
	else
		sm_event(scan->schema, &event);

	/* what has been acknowledged as ended must not come back after a crash */
	ForceSyncCommit();
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
 * lock exclusively, so the count is exact.
 */
static void
enforce_limit(const SmSchema *schema, text *user_id, TimestampTz now)
{
	typedef struct
	{
		TimestampTz created_at;
		pg_uuid_t	id;
	} Candidate;
	SmScan		scan;
	Candidate  *live = NULL;
	int			n = 0;
	int			allocated = 0;
	text	   *reason;

	sm_scan_by_user(&scan, schema, user_id, RowExclusiveLock);
	while (sm_scan_next(&scan))
	{
		if (sm_session_life(schema, &scan.session, now) != SM_LIFE_ACTIVE)
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
				 errmsg("the user has as many sessions as allowed"),
				 errdetail("The limit is %d.", sm_max_sessions_per_user),
				 errhint("End one of the user's sessions first.")));
	}

	StaticAssertStmt(offsetof(Candidate, created_at) == 0,
					 "compare_created looks at the first field");
	qsort(live, n, sizeof(Candidate), compare_created);
	reason = cstring_to_text("evicted");
	for (int i = 0; i <= n - sm_max_sessions_per_user; i++)
	{
		sm_scan_by_id(&scan, schema, live[i].id.data, RowExclusiveLock);
		if (sm_scan_next(&scan) &&
			sm_scan_lock(&scan, LockTupleNoKeyExclusive, LockWaitBlock) &&
			sm_session_life(schema, &scan.session, now) == SM_LIFE_ACTIVE)
			sm_end_session(&scan, NULL, SM_EVENT_EVICTED, reason);
		sm_scan_end(&scan);
	}
}

static int
compare_created(const void *a, const void *b)
{
	TimestampTz x = *(const TimestampTz *) a;
	TimestampTz y = *(const TimestampTz *) b;

	return (x > y) - (x < y);
}

/*
 * Apply session_manager.client_binding.  False if the session is not to be
 * used from this address.  "moved" is set if its row should follow the
 * address, which the caller may allow or not.
 */
static bool
client_allowed(const SmSchema *schema, const SmToken *token,
			   const SmSession *session, inet *ip, text *user_agent,
			   bool may_move, bool *moved)
{
	*moved = false;
	if (sm_client_binding == SM_BINDING_OFF ||
		!sm_client_changed(session->ip, ip))
		return true;
	if (sm_client_binding == SM_BINDING_STRICT)
	{
		sm_refused(schema, SM_EVENT_CLIENT_CHANGED, token, session, "refused",
				   ip, user_agent);
		return false;
	}
	if (ip != NULL && may_move && XactReadOnly)
	{
		/* the row is slow to follow */
		sm_refused(schema, SM_EVENT_CLIENT_CHANGED, token, session, "moved",
				   ip, user_agent);
		*moved = true;
	}
	else if (ip != NULL && may_move && sm_verdict_keep(SM_EVENT_CLIENT_CHANGED, session->session_id, true, false, "moved", 0, ip, user_agent))
		*moved = true;
	else if (ip != NULL && may_move)
	{
		JsonbParseState *detail = sm_detail_begin();

		sm_detail_cstring(&detail, "cause", "moved");
		sm_session_event(schema, SM_EVENT_CLIENT_CHANGED, session, ip,
						 user_agent, sm_detail_end(&detail));
		*moved = true;
	}
	return true;
}

/* What every use of a session by its holder leaves in a row being written. */
static void
mark_used(SmChanges *changes, const SmSession *session, bool current,
		  TimestampTz now)
{
	sm_change(changes, Anum_last_seen_at, TimestampTzGetDatum(now));
	if (current && !session->successor_used)
		sm_change(changes, Anum_successor_used_at, TimestampTzGetDatum(now));
}

/*
 * Replace a session's token.  "previous" says that the previous token asks
 * because the answer that carried its successor was lost: it then stays the
 * one to be told from a guess, and the lost one is forgotten.  "elevated"
 * says that the new token may do more than the old one: that gets no grace.
 */
static void
rotate_token(SmChanges *changes, const SmSchema *schema, SmSession *session,
			 bool previous, bool elevated, TimestampTz now, Renewal *renewal)
{
	const SmKey *key = sm_key_active(schema);
	SmOwner		owner;
	uint8		verifier[SM_VERIFIER_LEN];
	TimestampTz valid_until = DT_NOBEGIN;

	if (!elevated)
		valid_until = now + (int64) sm_rotation_grace * USECS_PER_SEC;
	if (!previous)
	{
		sm_change(changes, Anum_previous_verifier, PointerGetDatum(session->verifier));
		sm_change(changes, Anum_previous_key_id, Int32GetDatum(session->verifier_key_id));
	}
	(void) sm_session_owner(session, &owner);
	renewal->status = "rotated";
	renewal->token = new_token(key, &owner, verifier);
	sm_change(changes, Anum_verifier, bytea_datum(verifier, SM_VERIFIER_LEN));
	sm_change(changes, Anum_verifier_key_id, Int32GetDatum(key->id));
	sm_change(changes, Anum_rotated_at, TimestampTzGetDatum(now));
	sm_change(changes, Anum_previous_valid_until, TimestampTzGetDatum(valid_until));
	sm_change_null(changes, Anum_successor_used_at);
}

/*
 * Refresh the session that the scan stands on, whose token this is or was.
 *
 * The previous token comes back for one of three reasons.  Requests crossed
 * (within the grace): the other one has the new token.  The answer with the
 * successor was lost (past the grace, successor never used): replace it once
 * more.  Or two parties hold tokens of one session (successor used): it ends,
 * as RFC 9700, section 4.14.2, has it for refresh tokens.  A token replaced by
 * session_elevate is never given a successor: that would hand on more than
 * its holder had proved.
 */
static void
refresh(SmScan *scan, SmToken *token, bool rotate, int64 ttl,
		bool has_ttl, inet *ip, text *user_agent, Renewal *renewal)
{
	const SmSchema *schema = scan->schema;
	SmSession  *session = &scan->session;
	SmChanges	changes = {0};
	bool		previous;
	bool		moved;
	TimestampTz now;
	TimestampTz expires_at;

	if (!sm_lock_live(scan, token) ||
		!client_allowed(schema, token, session, ip, user_agent, true, &moved))
		return;
	now = GetCurrentTimestamp();
	previous = (token->match == SM_MATCH_PREVIOUS);
	if (previous)
	{
		bool		elevated = TIMESTAMP_IS_NOBEGIN(session->previous_valid_until);
		bool		crossed = now < session->rotated_at +
			(int64) sm_rotation_grace * USECS_PER_SEC;

		if (sm_in_grace(session, now))
		{
			renewal->status = "already_rotated";
			renewal->session = session;
			renewal->expires_at = session->expires_at;
			return;
		}
		if (session->successor_used && !(elevated && crossed))
		{
			sm_count(SM_REUSED);
			(void) sm_verdict_keep(SM_EVENT_TOKEN_REUSED, session->session_id,
								   true, true, NULL, 0, ip, user_agent);
			sm_session_event(schema, SM_EVENT_TOKEN_REUSED, session,
							 ip, user_agent, NULL);
			sm_end_session(scan, NULL, SM_EVENT_INVALIDATED,
						   cstring_to_text("token_reused"));
			renewal->status = "reused";
			renewal->session = session;
			return;
		}
		if (elevated)
		{
			sm_refused(schema, SM_EVENT_REJECTED, token, session, "superseded",
					   ip, user_agent);
			return;
		}
	}

	/* a shorter lifetime than it has is granted only to who asks for one */
	expires_at = now + (has_ttl ? ttl : session->ttl);
	if (!has_ttl)
		expires_at = Max(expires_at, session->expires_at);
	expires_at = Min(expires_at, session->absolute_expires_at);
	renewal->status = "extended";
	renewal->session = session;
	renewal->expires_at = expires_at;

	sm_change(&changes, Anum_expires_at, TimestampTzGetDatum(expires_at));
	mark_used(&changes, session, !previous, now);
	if (ip)
		sm_change(&changes, Anum_ip, InetPGetDatum(ip));
	if (user_agent)
		sm_change(&changes, Anum_user_agent, PointerGetDatum(user_agent));

	if (rotate || previous)
		rotate_token(&changes, schema, session, previous, false, now, renewal);
	else
	{
		const SmKey *key = sm_key_active(schema);

		/* the digest is at hand: the one time to move to another key */
		if (key->id != session->verifier_key_id)
		{
			SmOwner		owner;
			uint8		verifier[SM_VERIFIER_LEN];

			(void) sm_session_owner(session, &owner);
			sm_verifier(key->subkeys.verifier, &owner, token->digest, verifier);
			sm_change(&changes, Anum_verifier,
					  bytea_datum(verifier, SM_VERIFIER_LEN));
			sm_change(&changes, Anum_verifier_key_id, Int32GetDatum(key->id));
		}
	}
	sm_session_event(schema,
					 renewal->token ? SM_EVENT_ROTATED : SM_EVENT_REFRESHED,
					 session, ip, user_agent, NULL);
	sm_count(renewal->token ? SM_ROTATED : SM_REFRESHED);
	sm_scan_update(scan, &changes);
}

/* The row that session_refresh, session_elevate and session_switch_tenant return. */
static Datum
renewal_row(FunctionCallInfo fcinfo, const Renewal *renewal)
{
	static const Oid types[] = {
		TEXTOID, UUIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID
	};
	Datum		values[6] = {0};
	bool		nulls[6];

	memset(nulls, true, sizeof(nulls));
	values[0] = CStringGetTextDatum(renewal->status);
	nulls[0] = false;
	if (renewal->session)
	{
		values[1] = UUIDPGetDatum(renewal->session->session_id);
		values[2] = PointerGetDatum(renewal->session->user_id);
		nulls[1] = nulls[2] = false;
	}
	if (renewal->token)
	{
		values[3] = PointerGetDatum(renewal->token);
		nulls[3] = false;
	}
	if (renewal->expires_at != 0)
	{
		values[4] = TimestampTzGetDatum(renewal->expires_at);
		values[5] = TimestampTzGetDatum(renewal->session->absolute_expires_at);
		nulls[4] = nulls[5] = false;
	}
	return sm_result_row(fcinfo, types, lengthof(types), values, nulls);
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
 * Tell whoever listens, once this transaction commits, that a session is
 * over: a server that holds connections open can hang up.
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
ttl_datum(int64 us)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = us;
	return IntervalPGetDatum(interval);
}
