/*-------------------------------------------------------------------------
 *
 * assertion.c
 *	  Identity for other databases: session_assertion, session_assertion_id
 *	  and the keys that they sign with; whose assertions session_bind believes here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "commit.h"
#include "compat.h"
#include "keys/keyring.h"
#include "session/assertion.h"
#include "session/authenticate.h"
#include "session/events.h"
#include "session/use.h"
#include "spi.h"
#include "sql/arguments.h"

PG_FUNCTION_INFO_V1(sm_session_assertion);
PG_FUNCTION_INFO_V1(sm_session_assertion_id);
PG_FUNCTION_INFO_V1(sm_session_assertion_keys);
PG_FUNCTION_INFO_V1(sm_session_audience);
PG_FUNCTION_INFO_V1(sm_session_trust);
PG_FUNCTION_INFO_V1(sm_session_distrust);

static pg_uuid_t *read_issuer(Jsonb *keys);
static void trust_key(const SmSchema *schema, const pg_uuid_t *issuer,
					  const JsonbValue *key);
static const SmSchema *trust_begin(FunctionCallInfo fcinfo, const char *name);
static void put_on_record(const SmSchema *schema, SmEventType type,
						  const pg_uuid_t *issuer, int n);
static int	forget_issuer(const SmSchema *schema, const pg_uuid_t *issuer);
pg_noreturn static void report_keys(const char *detail);

/*
 * session_assertion(token, audience)
 */
Datum
sm_session_assertion(PG_FUNCTION_ARGS)
{
	const SmSchema *schema = sm_called_schema(fcinfo);
	text	   *audience = sm_arg_audience(fcinfo, 1);
	text	   *assertion = NULL;
	TimestampTz now = GetCurrentTimestamp();
	SmToken		token;
	SmScan		scan;

	if (PG_ARGISNULL(0) ||
		!sm_token_from_text(PG_GETARG_TEXT_PP(0), &token))
		PG_RETURN_NULL();
	if (sm_find_live(&scan, schema, &token, AccessShareLock,
					 SM_EVENT_REJECTED, &sm_no_client) == SM_LOOKUP_LIVE)
	{
		assertion = sm_assert(schema, &scan.session, audience, now,
							  Min(scan.session.expires_at,
								  scan.session.absolute_expires_at));
		if (sm_can_touch() && sm_touch_due(&scan.session, &token, now))
			sm_touch_session(&scan, &token, now, false, &sm_no_client);
	}
	sm_scan_end(&scan);
	if (assertion == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(assertion);
}

/*
 * session_assertion_id(session_id, user_id, audience)
 */
Datum
sm_session_assertion_id(PG_FUNCTION_ARGS)
{
	const SmSchema *schema = sm_called_schema(fcinfo);
	text	   *user_id = sm_arg_user_id(fcinfo, 1);
	text	   *audience = sm_arg_audience(fcinfo, 2);
	text	   *assertion = NULL;
	SmScan		scan;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (sm_find_live_id(&scan, schema, PG_GETARG_UUID_P(0), user_id))
		assertion = sm_assert(schema, &scan.session, audience,
							  GetCurrentTimestamp(),
							  sm_session_deadline(&scan.session));
	sm_scan_end(&scan);
	if (assertion == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(assertion);
}

/*
 * session_assertion_keys()
 */
Datum
sm_session_assertion_keys(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(sm_assertion_keys(sm_called_schema(fcinfo)));
}

/*
 * session_audience()
 */
Datum
sm_session_audience(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	if (!sm_installation_id(sm_called_schema(fcinfo), id->data))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(DatumGetCString(DirectFunctionCall1(uuid_out,
																		 UUIDPGetDatum(id)))));
}

/*
 * session_trust(keys)
 *
 * The keys that the issuer had here before and that are not in the set are
 * trusted no longer.
 */
Datum
sm_session_trust(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	Jsonb	   *keys = PG_GETARG_JSONB_P(0);
	pg_uuid_t  *issuer = read_issuer(keys);
	JsonbValue *list = getKeyJsonValueFromContainer(&keys->root, "keys", 4, NULL);
	JsonbIterator *it;
	JsonbValue	key;
	JsonbIteratorToken part;
	int			n = 0;

	if (list == NULL || list->type != jbvBinary ||
		!JsonContainerIsArray(list->val.binary.data))
		report_keys("It has no array \"keys\".");
	schema = trust_begin(fcinfo, "session_trust()");
	(void) forget_issuer(schema, issuer);
	it = JsonbIteratorInit(list->val.binary.data);
	while ((part = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
		if (part == WJB_ELEM)
		{
			trust_key(schema, issuer, &key);
			n++;
		}
	put_on_record(schema, SM_EVENT_ISSUER_TRUSTED, issuer, n);
	sm_spi_finish();
	PG_RETURN_INT32(n);
}

/*
 * session_distrust(issuer)
 */
Datum
sm_session_distrust(PG_FUNCTION_ARGS)
{
	const SmSchema *schema = trust_begin(fcinfo, "session_distrust()");
	pg_uuid_t  *issuer = PG_GETARG_UUID_P(0);
	int			n = forget_issuer(schema, issuer);

	if (n > 0)
		put_on_record(schema, SM_EVENT_ISSUER_DISTRUSTED, issuer, n);
	sm_spi_finish();
	PG_RETURN_INT32(n);
}

/* The installation that a key set is of. */
static pg_uuid_t *
read_issuer(Jsonb *keys)
{
	JsonbValue *issuer = NULL;

	if (JB_ROOT_IS_OBJECT(keys))
		issuer = getKeyJsonValueFromContainer(&keys->root, "issuer", 6, NULL);
	if (issuer == NULL || issuer->type != jbvString)
		report_keys("It has no \"issuer\".");
	return DatumGetUUIDP(DirectFunctionCall1(uuid_in,
											 CStringGetDatum(pnstrdup(issuer->val.string.val,
																	  issuer->val.string.len))));
}

static void
trust_key(const SmSchema *schema, const pg_uuid_t *issuer, const JsonbValue *key)
{
	const SmKey *mac_key = sm_key_active(schema);
	bytea	   *public_key = palloc(VARHDRSZ + SM_PUBLIC_KEY_LEN);
	bytea	   *mac = palloc(VARHDRSZ + SM_TRUST_MAC_LEN);
	Oid			types[] = {BYTEAOID, UUIDOID, INT4OID, BYTEAOID};
	Datum		values[] = {
		PointerGetDatum(public_key), UUIDPGetDatum(issuer),
		Int32GetDatum(mac_key->id), PointerGetDatum(mac)
	};

	SET_VARSIZE(public_key, VARHDRSZ + SM_PUBLIC_KEY_LEN);
	SET_VARSIZE(mac, VARHDRSZ + SM_TRUST_MAC_LEN);
	if (key->type != jbvBinary ||
		!JsonContainerIsObject(key->val.binary.data) ||
		!sm_assertion_key_read(key->val.binary.data,
							   (uint8 *) VARDATA(public_key)))
		report_keys("One of its keys is not a public key of Ed25519.");
	sm_trust_mac(mac_key->subkeys.trust, issuer->data,
				 (uint8 *) VARDATA(public_key), (uint8 *) VARDATA(mac));
	(void) sm_spi_execute_with(psprintf("INSERT INTO %s (public_key, issuer, added_at, key_id, mac)"
										" VALUES ($1, $2, pg_catalog.clock_timestamp(), $3, $4)",
										sm_schema_qualify(schema, "session_issuers")),
							   lengthof(types), types, values, InvalidSnapshot);
}

/*
 * Refuse where nothing can be written, or not all that is there be seen, and
 * exclude others that change whom this database trusts, or the keys that
 * confirm it.
 */
static const SmSchema *
trust_begin(FunctionCallInfo fcinfo, const char *name)
{
	const SmSchema *schema;

	PreventCommandIfReadOnly(name);
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s must run at isolation level READ COMMITTED", name)));
	schema = sm_called_schema(fcinfo);
	sm_spi_connect();
	(void) sm_spi_execute(psprintf("LOCK TABLE %s, %s IN SHARE ROW EXCLUSIVE MODE",
								   sm_schema_qualify(schema, "session_keys"),
								   sm_schema_qualify(schema, "session_issuers")));
	return schema;
}

/* Put on record that n keys of an issuer were added, or removed, and keep it so. */
static void
put_on_record(const SmSchema *schema, SmEventType type, const pg_uuid_t *issuer,
			  int n)
{
	SmEvent		event = {.type = type};
	JsonbParseState *detail = sm_detail_begin();

	sm_detail_cstring(&detail, "issuer",
					  DatumGetCString(DirectFunctionCall1(uuid_out,
														  UUIDPGetDatum(issuer))));
	sm_detail_int(&detail, "keys", n);
	event.detail = sm_detail_end(&detail);
	sm_event(schema, &event);
	/* whatever synchronous_commit says: who was distrusted must stay so */
	sm_commit_durably();
}

/* How many of its keys were trusted? */
static int
forget_issuer(const SmSchema *schema, const pg_uuid_t *issuer)
{
	Oid			type = UUIDOID;
	Datum		value = UUIDPGetDatum(issuer);
	uint64		n;

	n = sm_spi_execute_with(psprintf("DELETE FROM %s WHERE issuer OPERATOR(pg_catalog.=) $1",
									 sm_schema_qualify(schema, "session_issuers")),
							1, &type, &value, InvalidSnapshot);
	if (sm_issuer_trusted(schema, issuer))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not remove the keys of an issuer"),
				 errdetail("A policy or a trigger on session_issuers has kept them.")));
	return (int) n;
}

static void
report_keys(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("keys is not a key set of session_assertion_keys()"),
			 errdetail("%s", detail)));
}
