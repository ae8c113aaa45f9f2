/*-------------------------------------------------------------------------
 *
 * session.c
 *	  The functions of one session's life, which its token opens: create,
 *	  update, refresh, elevate, switch tenants, invalidate, status, reason of
 *	  the end; and what can be told from a token or an id alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "guc.h"
#include "keys/keyring.h"
#include "session/authenticate.h"
#include "session/lifecycle.h"
#include "session/locks.h"
#include "shared.h"
#include "sql/arguments.h"
#include "sql/result.h"

PG_FUNCTION_INFO_V1(sm_session_create);
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
PG_FUNCTION_INFO_V1(sm_session_token_bucket);

static Datum create(FunctionCallInfo fcinfo, const SmSchema *schema);
static Datum renewal_row(FunctionCallInfo fcinfo, const SmRenewal *renewal);

/*
 * session_create(user_id, data, ttl, ip, user_agent, tenant_id, auth,
 *				  max_lifetime, idle_timeout, actor_token)
 */
Datum
sm_session_create(PG_FUNCTION_ARGS)
{
	/* not later: the SQL of another version has other arguments */
	const SmSchema *schema = sm_called_schema(fcinfo);
	Datum		result;

	PG_TRY();
	{
		result = create(fcinfo, schema);
	}
	PG_CATCH();
	{
		/* a login that is denied is counted where that is decided */
		if (geterrcode() != ERRCODE_SM_LIMIT_REACHED)
			sm_count(SM_LOGINS_FAILED);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return result;
}

static Datum
create(FunctionCallInfo fcinfo, const SmSchema *schema)
{
	int64		longest = (int64) sm_max_lifetime * USECS_PER_SEC;
	SmLogin		login;
	SmSession	session;
	bool		new_device;
	text	   *token;
	static const Oid types[] = {
		UUIDOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		BOOLOID
	};
	Datum		row[6];
	bool		row_nulls[6] = {false};

	login.user_id = sm_arg_user_id(fcinfo, 0);
	login.ttl = sm_arg_lifetime(fcinfo, 2, "ttl",
								"session_manager.max_lifetime", longest, false);
	login.max_lifetime = sm_arg_lifetime(fcinfo, 7, "max_lifetime",
										 "session_manager.max_lifetime",
										 longest, false);
	if (sm_idle_timeout > 0)
		login.idle_timeout = sm_arg_lifetime(fcinfo, 8, "idle_timeout",
											 "session_manager.idle_timeout",
											 (int64) sm_idle_timeout * USECS_PER_SEC,
											 false);
	else
		login.idle_timeout = sm_arg_lifetime(fcinfo, 8, "idle_timeout",
											 "session_manager.max_lifetime",
											 longest, false);
	login.actor_token = PG_ARGISNULL(9) ? NULL : PG_GETARG_TEXT_PP(9);
	login.data = sm_arg_object(fcinfo, 1, "session data");
	login.auth = sm_arg_object(fcinfo, 6, "auth");
	login.client = sm_arg_client(fcinfo, 3);
	login.tenant_id = sm_arg_tenant_id(fcinfo, 5);

	PreventCommandIfReadOnly("session_create()");
	token = sm_log_in(schema, &login, &session, &new_device);

	row[0] = UUIDPGetDatum(session.session_id);
	row[1] = PointerGetDatum(token);
	row[2] = TimestampTzGetDatum(session.created_at);
	row[3] = TimestampTzGetDatum(session.expires_at);
	row[4] = TimestampTzGetDatum(session.absolute_expires_at);
	row[5] = BoolGetDatum(new_device);
	return sm_result_row(fcinfo, types, lengthof(types), row, row_nulls);
}

/*
 * session_update(token, patch, expected_version, replace)
 */
Datum
sm_session_update(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmToken		token;
	SmPatch		patch = {
		.patch = sm_arg_object(fcinfo, 1, "patch"),
		.replace = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3)
	};
	int32		expected_version = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);
	SmPatched	patched;
	static const Oid types[] = {INT4OID, JSONBOID};
	Datum		values[2];
	bool		nulls[2] = {false};

	PreventCommandIfReadOnly("session_update()");
	if (PG_ARGISNULL(0))
		return sm_result_none(fcinfo);
	if (patch.patch == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("patch must not be null")));
	schema = sm_arg_token(fcinfo, &token);
	if (schema == NULL ||
		!sm_update(schema, &token, &patch,
				   PG_ARGISNULL(2) ? NULL : &expected_version, &patched))
		return sm_result_none(fcinfo);
	values[0] = Int32GetDatum(patched.version);
	values[1] = JsonbPGetDatum(patched.data);
	return sm_result_row(fcinfo, types, lengthof(types), values, nulls);
}

/*
 * session_refresh(token, rotate, ttl, ip, user_agent)
 */
Datum
sm_session_refresh(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmToken		token;
	SmRefresh	request;
	SmRenewal	renewal = SM_ENDED;

	request.rotate = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	request.has_ttl = !PG_ARGISNULL(2);
	request.ttl = sm_arg_lifetime(fcinfo, 2, "ttl",
								  "session_manager.max_lifetime",
								  (int64) sm_max_lifetime * USECS_PER_SEC, true);
	request.client = sm_arg_client(fcinfo, 3);

	PreventCommandIfReadOnly("session_refresh()");
	schema = sm_arg_token(fcinfo, &token);
	if (schema)
		sm_refresh(schema, &token, &request, &renewal);
	return renewal_row(fcinfo, &renewal);
}

/*
 * session_elevate(token, auth, data)
 */
Datum
sm_session_elevate(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmToken		token;
	Jsonb	   *auth = sm_arg_object(fcinfo, 1, "auth");
	Jsonb	   *data = sm_arg_object(fcinfo, 2, "session data");
	SmRenewal	renewal = SM_ENDED;

	PreventCommandIfReadOnly("session_elevate()");
	if (PG_ARGISNULL(0))
		return renewal_row(fcinfo, &renewal);
	if (auth == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("auth must not be null")));
	schema = sm_arg_token(fcinfo, &token);
	if (schema)
		sm_elevate(schema, &token, auth, data, &renewal);
	return renewal_row(fcinfo, &renewal);
}

/*
 * session_switch_tenant(token, tenant_id, data)
 */
Datum
sm_session_switch_tenant(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmToken		token;
	text	   *tenant_id = sm_arg_tenant_id(fcinfo, 1);
	Jsonb	   *data = sm_arg_object(fcinfo, 2, "session data");
	SmRenewal	renewal = SM_ENDED;

	PreventCommandIfReadOnly("session_switch_tenant()");
	schema = sm_arg_token(fcinfo, &token);
	if (schema)
		sm_switch_tenant(schema, &token, tenant_id, data, &renewal);
	return renewal_row(fcinfo, &renewal);
}

/*
 * session_invalidate(token, reason)
 */
Datum
sm_session_invalidate(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmToken		token;
	text	   *reason = sm_arg_reason(fcinfo, 1);
	text	   *user_id = NULL;

	PreventCommandIfReadOnly("session_invalidate()");
	schema = sm_arg_token(fcinfo, &token);
	if (schema)
		user_id = sm_invalidate(schema, &token, reason);
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
		[SM_LIFE_REVOKED] = "revoked",
		[SM_LIFE_ACTOR_ENDED] = "actor_ended"
	};
	const SmSchema *schema;
	SmToken		token;
	SmScan		scan;
	SmMatch		match;
	TimestampTz now = GetCurrentTimestamp();
	const char *status = "unknown";
	bool		suspicious;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	schema = sm_called_schema(fcinfo);
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

				/* what has ended by its own fields needs no proof */
				if (life != SM_LIFE_ACTIVE ||
					(sm_session_intact(schema, &scan.session) &&
					 sm_actor_lives(schema, &scan.session, now)))
					status = names[life];
				if (life == SM_LIFE_ACTIVE && status == names[life] &&
					sm_proof_verdict(schema, &scan.session, &token, now,
									 &suspicious) > SM_PROOF_NOT_NEEDED)
					status = SM_STATUS_UNPROVED;
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

	schema = sm_arg_token(fcinfo, &token);
	if (schema == NULL)
		PG_RETURN_NULL();

	if (sm_find(&scan, schema, &token, AccessShareLock, SM_EVENT_REJECTED,
				&sm_no_client) != SM_MATCH_NONE)
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
				/* an UPDATE by hand may have given none */
				if (scan.session.revoked_reason != NULL)
					reason = DatumGetTextPCopy(PointerGetDatum(scan.session.revoked_reason));
				break;
			case SM_LIFE_ACTOR_ENDED:
				reason = cstring_to_text("actor_ended");
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
	size_t		len = sm_token_len(VARDATA_ANY(token), VARSIZE_ANY_EXHDR(token));
	uint8		id[SM_ID_LEN];
	uint8		payload[SM_SECRET_LEN];
	uint8		digest[SM_DIGEST_LEN];
	text	   *result;

	switch (sm_token_parse(VARDATA_ANY(token), len, id, payload))
	{
		case SM_TOKEN_SECRET:
			sm_token_digest(id, payload, digest);
			sm_wipe(payload, sizeof(payload));
			/* a proof that follows stays as it is */
			result = cstring_to_text_with_len(VARDATA_ANY(token),
											  VARSIZE_ANY_EXHDR(token));
			sm_token_format(SM_TOKEN_DIGEST, id, digest, VARDATA(result));
			PG_RETURN_TEXT_P(result);
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
 * session_token_bucket(token)
 */
Datum
sm_session_token_bucket(PG_FUNCTION_ARGS)
{
	text	   *token = PG_GETARG_TEXT_PP(0);
	uint8		id[SM_ID_LEN];
	uint8		payload[SM_SECRET_LEN];
	size_t		len = sm_token_len(VARDATA_ANY(token), VARSIZE_ANY_EXHDR(token));
	SmTokenKind kind = sm_token_parse(VARDATA_ANY(token), len, id, payload);

	sm_wipe(payload, sizeof(payload));
	if (kind == SM_TOKEN_MALFORMED)
		PG_RETURN_NULL();
	PG_RETURN_INT32(sm_id_bucket(id));
}

/*
 * The row that session_refresh, session_elevate and session_switch_tenant
 * return.
 */
static Datum
renewal_row(FunctionCallInfo fcinfo, const SmRenewal *renewal)
{
	static const Oid types[] = {
		TEXTOID, UUIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID
	};
	Datum		values[6];
	bool		nulls[6];

	values[0] = CStringGetTextDatum(renewal->status);
	values[1] = UUIDPGetDatum(&renewal->session_id);
	values[2] = PointerGetDatum(renewal->user_id);
	values[3] = PointerGetDatum(renewal->token);
	values[4] = TimestampTzGetDatum(renewal->expires_at);
	values[5] = TimestampTzGetDatum(renewal->absolute_expires_at);
	nulls[0] = false;
	nulls[1] = nulls[2] = !renewal->known;
	nulls[3] = (renewal->token == NULL);
	nulls[4] = nulls[5] = (renewal->expires_at == 0);
	return sm_result_row(fcinfo, types, lengthof(types), values, nulls);
}
