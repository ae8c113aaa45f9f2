/*-------------------------------------------------------------------------
 *
 * device.c
 *	  The functions of sessions that are bound to a device: challenge, bind,
 *	  prove, look, report.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "session/binding.h"
#include "session/device_key.h"
#include "sql/arguments.h"
#include "sql/result.h"

/* Longest cause that session_device_report takes, in bytes. */
#define MAX_CAUSE_LEN		64

PG_FUNCTION_INFO_V1(sm_session_device_challenge);
PG_FUNCTION_INFO_V1(sm_session_bind_device);
PG_FUNCTION_INFO_V1(sm_session_prove_device);
PG_FUNCTION_INFO_V1(sm_session_device);
PG_FUNCTION_INFO_V1(sm_session_device_report);

static text *arg_challenge(FunctionCallInfo fcinfo, int n);

/*
 * session_device_challenge(token)
 */
Datum
sm_session_device_challenge(PG_FUNCTION_ARGS)
{
	SmToken		token;
	const SmSchema *schema = sm_arg_token(fcinfo, &token);
	text	   *challenge = schema ? sm_challenge(schema, &token) : NULL;

	if (challenge == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(challenge);
}

/*
 * session_bind_device(token, key, challenge, ip, user_agent)
 */
Datum
sm_session_bind_device(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmToken		token;
	Jsonb	   *key = sm_arg_object(fcinfo, 1, "key");
	text	   *challenge = arg_challenge(fcinfo, 2);
	SmClient	client = sm_arg_client(fcinfo, 3);
	SmDevice	device = {.status = "ended"};
	bool		bound;
	static const Oid types[] = {
		TEXTOID, UUIDOID, TEXTOID, TEXTOID, UUIDOID, TEXTOID, TEXTOID,
		TIMESTAMPTZOID
	};
	Datum		values[8] = {0};
	bool		nulls[8] = {false};

	PreventCommandIfReadOnly("session_bind_device()");
	if (key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("key must not be null")));
	key = sm_device_key_check(key);
	schema = sm_arg_token(fcinfo, &token);
	if (schema)
		sm_bind_device(schema, &token, key, challenge, &client, &device);

	bound = (device.proof.text !=NULL);
	values[0] = CStringGetTextDatum(device.status);
	values[1] = UUIDPGetDatum(&device.session_id);
	values[2] = PointerGetDatum(device.user_id);
	values[3] = PointerGetDatum(device.token);
	values[4] = UUIDPGetDatum(&device.binding_id);
	values[5] = PointerGetDatum(device.thumbprint);
	values[6] = PointerGetDatum(device.proof.text);
	values[7] = TimestampTzGetDatum(device.proof.expires_at);
	for (int i = 1; i < (int) lengthof(nulls); i++)
		nulls[i] = !bound;
	return sm_result_row(fcinfo, types, lengthof(types), values, nulls);
}

/*
 * session_prove_device(token, challenge)
 */
Datum
sm_session_prove_device(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmToken		token;
	text	   *challenge = arg_challenge(fcinfo, 1);
	SmDevice	device = {.status = "ended"};
	static const Oid types[] = {TEXTOID, TEXTOID, TIMESTAMPTZOID};
	Datum		values[3];
	bool		nulls[3] = {false};

	PreventCommandIfReadOnly("session_prove_device()");
	schema = sm_arg_token(fcinfo, &token);
	if (schema)
		sm_prove_device(schema, &token, challenge, &device);

	values[0] = CStringGetTextDatum(device.status);
	values[1] = PointerGetDatum(device.proof.text);
	values[2] = TimestampTzGetDatum(device.proof.expires_at);
	nulls[1] = nulls[2] = (device.proof.text == NULL);
	return sm_result_row(fcinfo, types, lengthof(types), values, nulls);
}

/*
 * session_device(token)
 */
Datum
sm_session_device(PG_FUNCTION_ARGS)
{
	SmToken		token;
	const SmSchema *schema = sm_arg_token(fcinfo, &token);
	SmDevice	device = {0};
	static const Oid types[] = {
		UUIDOID, TEXTOID, UUIDOID, JSONBOID, TEXTOID, TIMESTAMPTZOID,
		TIMESTAMPTZOID
	};
	Datum		values[7];
	bool		nulls[7] = {false};

	if (schema == NULL || !sm_find_device(schema, &token, &device))
		return sm_result_none(fcinfo);
	values[0] = UUIDPGetDatum(&device.session_id);
	values[1] = PointerGetDatum(device.user_id);
	values[2] = UUIDPGetDatum(&device.binding_id);
	values[3] = JsonbPGetDatum(device.key);
	values[4] = PointerGetDatum(device.thumbprint);
	values[5] = TimestampTzGetDatum(device.bound_at);
	values[6] = TimestampTzGetDatum(device.proved_at);
	return sm_result_row(fcinfo, types, lengthof(types), values, nulls);
}

/*
 * session_device_report(token, skipped, cause, ip, user_agent)
 */
Datum
sm_session_device_report(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmToken		token;
	SmDeviceReport report = {.client = sm_arg_client(fcinfo, 3)};

	PreventCommandIfReadOnly("session_device_report()");
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("skipped and cause must not be null")));
	report.skipped = PG_GETARG_BOOL(1);
	report.cause = PG_GETARG_TEXT_PP(2);
	if (VARSIZE_ANY_EXHDR(report.cause) > MAX_CAUSE_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cause is too long"),
				 errdetail("The limit is %d bytes.", MAX_CAUSE_LEN)));
	schema = sm_arg_token(fcinfo, &token);
	PG_RETURN_BOOL(schema != NULL && sm_report_device(schema, &token, &report));
}

static text *
arg_challenge(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("challenge must not be null")));
	return PG_GETARG_TEXT_PP(n);
}
