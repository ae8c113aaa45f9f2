/*-------------------------------------------------------------------------
 *
 * assertion.c
 *	  What a database says of a session, signed, for another database.
 *
 * An assertion is a JSON Web Token (RFC 7519) that says whose session it is,
 * for one audience and for ASSERTION_SECONDS at most:
 *
 *	header	{"alg":"EdDSA","kid":"…","typ":"session+jwt"}
 *	claims	iss		installation that made it
 *			aud		for whom it is
 *			sub		user
 *			sid		session
 *			tenant	unless the session has none
 *			act		{"sub": …}: the person who acts as the user, if somebody does
 *			iat, exp	when it was made and when it ends, in seconds since 1970
 *
 * It is signed by Ed25519 and not by a MAC, so that a database that believes
 * assertions cannot make any.  The key pair comes from a subkey of the active
 * session key; its id is the thumbprint of its public half (RFC 7638).
 *
 * Whoever checks an assertion builds the header that each key it trusts would
 * have written, and compares bytes: no algorithm is chosen by what was sent.
 * Nothing of an assertion is parsed before its signature has been checked.
 *
 * Sources: RFC 7515 (JWS), RFC 7519 (JWT), RFC 8037 (EdDSA in JOSE), RFC 8693,
 * section 4.1 ("act"), RFC 8725 (best practices).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "keys/keyring.h"
#include "session/assertion.h"
#include "session/authenticate.h"

#define ASSERTION_SECONDS	30

/*
 * How far ahead of the clock here an assertion may end: by how much the clock
 * of who made it may be fast.  One that is slow makes what has ended already.
 */
#define MAX_SECONDS_AHEAD	(2 * ASSERTION_SECONDS)

/*
 * Longest claim.  Names may have been shorter in the encoding of the database
 * that made the assertion, but no more than that.
 */
#define MAX_CLAIM_LEN		(4 * SM_MAX_NAME_LEN)

/* Room for three names, each character of which may take six in JSON. */
#define MAX_ASSERTION_LEN	32768

/* The text of a signature, which follows the second dot. */
#define SIGNATURE_TEXT_LEN	86

/* From PostgreSQL's epoch to 1970, in seconds. */
#define UNIX_OFFSET \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

static int64 unix_seconds(TimestampTz time);
static char *header_of(const uint8 public_key[SM_PUBLIC_KEY_LEN]);
static char *thumbprint(const char *x);
static void append_claim(StringInfo json, const char *name, const text *value);
static bool find_issuer(const SmSchema *schema, const char *message,
						size_t header_len, size_t message_len,
						const uint8 signature[SM_SIGNATURE_LEN],
						pg_uuid_t *issuer);
static bool decode_issuer(const SmSchema *schema, TupleTableSlot *slot,
						  pg_uuid_t *issuer,
						  uint8 public_key[SM_PUBLIC_KEY_LEN]);
static Jsonb *parse_claims(const char *part, size_t len);
static bool claim_is(Jsonb *claims, const char *name, const char *value);
static bool has_claim(Jsonb *claims, const char *name);
static text *actor_of(Jsonb *claims);
static bool claim_time(Jsonb *claims, const char *name, int64 *seconds);
static text *claim_text(const JsonbContainer *claims, const char *name);
static char *uuid_text(const pg_uuid_t *id);

/*
 * Say whose a live session is, which ends at "until" at the latest.
 */
text *
sm_assert(const SmSchema *schema, const SmSession *session,
		  const text *audience, TimestampTz now,
		  TimestampTz until)
{
	const SmKey *key;
	uint8		public_key[SM_PUBLIC_KEY_LEN];
	uint8		signature[SM_SIGNATURE_LEN];
	pg_uuid_t	installation;
	int64		ends_at;
	StringInfoData json;
	StringInfoData assertion;
	char	   *utf8;

	if (session->actor_session_id)
		until = Min(until, sm_actor_deadline(schema, session));
	/* a session's last second is rounded up: else it would be over already */
	ends_at = Min(unix_seconds(now) + ASSERTION_SECONDS,
				  unix_seconds(until + USECS_PER_SEC - 1));
	/* the session's key would not be there without */
	if (!sm_installation_id(schema, installation.data))
		elog(ERROR, "session_installation contains no id");

	initStringInfo(&json);
	appendStringInfo(&json, "{\"iss\":\"%s\"", uuid_text(&installation));
	append_claim(&json, "aud", audience);
	append_claim(&json, "sub", session->user_id);
	appendStringInfo(&json, ",\"sid\":\"%s\"", uuid_text(session->session_id));
	if (session->tenant_id)
		append_claim(&json, "tenant", session->tenant_id);
	if (session->actor_id)
	{
		appendStringInfoString(&json, ",\"act\":{\"sub\":");
		escape_json(&json, text_to_cstring(session->actor_id));
		appendStringInfoChar(&json, '}');
	}
	appendStringInfo(&json, ",\"iat\":" INT64_FORMAT ",\"exp\":" INT64_FORMAT "}",
					 unix_seconds(now), ends_at);
	utf8 = pg_server_to_any(json.data, json.len, PG_UTF8);

	/* only now: another look at the keys may reload them */
	key = sm_key_active(schema);
	sm_public_key(key->subkeys.signing, public_key);
	initStringInfo(&assertion);
	appendStringInfo(&assertion, "%s.%s", header_of(public_key),
					 sm_base64url(utf8, strlen(utf8)));
	sm_sign(key->subkeys.signing, assertion.data, assertion.len, signature);
	appendStringInfo(&assertion, ".%s", sm_base64url(signature, sizeof(signature)));
	return cstring_to_text_with_len(assertion.data, assertion.len);
}

/*
 * Can this be an assertion?  Of tokens only those with a proof have a dot.
 */
bool
sm_is_assertion(const text *credential)
{
	const char *data = VARDATA_ANY(credential);
	size_t		len = VARSIZE_ANY_EXHDR(credential);

	return memchr(data, '.', len) != NULL &&
		memcmp(data, SM_TOKEN_PREFIX, Min(len, SM_PREFIX_LEN)) != 0 &&
		memcmp(data, SM_DIGEST_PREFIX, Min(len, SM_PREFIX_LEN)) != 0;
}

/*
 * Whose session does an assertion tell of?  False unless a database that is
 * trusted here has made it for this one, and it has not ended.  Of "session"
 * only the ids of session, user, tenant and actor are set.
 */
bool
sm_assertion_opens(const SmSchema *schema, const text *assertion,
				   TimestampTz now, SmSession *session)
{
	const char *compact = VARDATA_ANY(assertion);
	size_t		len = VARSIZE_ANY_EXHDR(assertion);
	const char *header_end = memchr(compact, '.', len);
	const char *claims_end;
	uint8		signature[SM_SIGNATURE_LEN];
	size_t		signature_len;
	pg_uuid_t	issuer;
	pg_uuid_t	installation;
	Jsonb	   *claims;
	int64		ends_at;
	text	   *id;

	memset(session, 0, sizeof(SmSession));
	if (len > MAX_ASSERTION_LEN || header_end == NULL ||
		len < (size_t) (header_end - compact) + 1 + 1 + SIGNATURE_TEXT_LEN)
		return false;
	claims_end = compact + len - SIGNATURE_TEXT_LEN - 1;
	if (*claims_end != '.' || claims_end <= header_end ||
		!sm_base64url_decode(signature, sizeof(signature), &signature_len,
							 claims_end + 1, SIGNATURE_TEXT_LEN) ||
		signature_len != sizeof(signature) ||
		!find_issuer(schema, compact, header_end - compact,
					 claims_end - compact, signature, &issuer))
		return false;

	claims = parse_claims(header_end + 1, claims_end - header_end - 1);
	if (claims == NULL ||
		!sm_installation_id(schema, installation.data) ||
		!claim_is(claims, "iss", uuid_text(&issuer)) ||
		!claim_is(claims, "aud", uuid_text(&installation)) ||
		!claim_time(claims, "exp", &ends_at) ||
		ends_at * USECS_PER_SEC <= now + UNIX_OFFSET * USECS_PER_SEC ||
		ends_at > unix_seconds(now) + MAX_SECONDS_AHEAD)
		return false;

	/*
	 * a tenant or an actor that cannot be read must not pass for none
	 */
	session->user_id = claim_text(&claims->root, "sub");
	session->tenant_id = claim_text(&claims->root, "tenant");
	session->actor_id = actor_of(claims);
	id = claim_text(&claims->root, "sid");
	if (session->user_id == NULL || id == NULL ||
		(session->tenant_id == NULL && has_claim(claims, "tenant")) ||
		(session->actor_id == NULL && has_claim(claims, "act")))
		return false;
	session->session_id = DatumGetUUIDP(DirectFunctionCall1(uuid_in,
															CStringGetDatum(text_to_cstring(id))));
	return true;
}

/*
 * Is there a key of an issuer, whatever policies hide it?
 */
bool
sm_issuer_trusted(const SmSchema *schema, const pg_uuid_t *issuer)
{
	Relation	rel = table_open(schema->issuers, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	bool		found = false;

	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, Anum_issuers_issuer, &isnull);

		found = !isnull && memcmp(DatumGetUUIDP(value), issuer, sizeof(pg_uuid_t)) == 0;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * The public keys of what is, or may yet be, signed here: a JSON Web Key Set
 * (RFC 7517), and whose they are.
 */
Jsonb *
sm_assertion_keys(const SmSchema *schema)
{
	const SmKey *keys;
	int			n;
	pg_uuid_t	installation;
	StringInfoData json;
	const char *separator = "";

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	if (sm_installation_id(schema, installation.data))
		appendStringInfo(&json, "\"issuer\":\"%s\",", uuid_text(&installation));
	appendStringInfoString(&json, "\"keys\":[");
	n = sm_key_list(schema, &keys);
	for (int i = 0; i < n; i++)
	{
		uint8		public_key[SM_PUBLIC_KEY_LEN];
		char	   *x;

		if (keys[i].material != SM_MATERIAL_PRESENT ||
			(keys[i].state != SM_KEY_ADDED && keys[i].state != SM_KEY_ACTIVE &&
			 keys[i].state != SM_KEY_INACTIVE))
			continue;
		sm_public_key(keys[i].subkeys.signing, public_key);
		x = sm_base64url(public_key, sizeof(public_key));
		appendStringInfo(&json,
						 "%s{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"%s\",\"kid\":\"%s\",\"alg\":\"EdDSA\",\"use\":\"sig\"}",
						 separator, x, thumbprint(x));
		separator = ",";
	}
	appendStringInfoString(&json, "]}");
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data)));
}

/*
 * The public key of a JSON Web Key; false if it is none of Ed25519.
 */
bool
sm_assertion_key_read(const JsonbContainer *key,
					  uint8 public_key[SM_PUBLIC_KEY_LEN])
{
	text	   *type = claim_text(key, "kty");
	text	   *curve = claim_text(key, "crv");
	text	   *x = claim_text(key, "x");
	size_t		len;

	return type != NULL && strcmp(text_to_cstring(type), "OKP") == 0 &&
		curve != NULL && strcmp(text_to_cstring(curve), "Ed25519") == 0 &&
		x != NULL &&
		sm_base64url_decode(public_key, SM_PUBLIC_KEY_LEN, &len,
							VARDATA_ANY(x), VARSIZE_ANY_EXHDR(x)) &&
		len == SM_PUBLIC_KEY_LEN;
}

static int64
unix_seconds(TimestampTz time)
{
	int64		seconds = time / USECS_PER_SEC;

	/* rounded down, also before 2000 */
	if (time % USECS_PER_SEC < 0)
		seconds--;
	return seconds + UNIX_OFFSET;
}

/* The first part of what a key pair signs. */
static char *
header_of(const uint8 public_key[SM_PUBLIC_KEY_LEN])
{
	char	   *header = psprintf("{\"alg\":\"EdDSA\",\"kid\":\"%s\",\"typ\":\"session+jwt\"}",
								  thumbprint(sm_base64url(public_key, SM_PUBLIC_KEY_LEN)));

	return sm_base64url(header, strlen(header));
}

/* Of a key, whose "x" is given: RFC 7638, and RFC 8037, appendix A.3. */
static char *
thumbprint(const char *x)
{
	char	   *key = psprintf("{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"%s\"}", x);
	uint8		hash[SM_SHA256_LEN];

	sm_sha256(key, strlen(key), hash);
	return sm_base64url(hash, sizeof(hash));
}

static void
append_claim(StringInfo json, const char *name, const text *value)
{
	appendStringInfo(json, ",\"%s\":", name);
	escape_json(json, text_to_cstring(value));
}

/*
 * Which of the issuers that this database trusts has written the header with
 * which a message begins, and signed the message?
 */
static bool
find_issuer(const SmSchema *schema, const char *message,
			size_t header_len, size_t message_len,
			const uint8 signature[SM_SIGNATURE_LEN], pg_uuid_t *issuer)
{
	Relation	rel = table_open(schema->issuers, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	bool		found = false;

	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		uint8		public_key[SM_PUBLIC_KEY_LEN];
		char	   *expected;

		if (!decode_issuer(schema, slot, issuer, public_key))
			continue;
		expected = header_of(public_key);
		found = strlen(expected) == header_len &&
			memcmp(expected, message, header_len) == 0 &&
			sm_signed(public_key, message, message_len, signature);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * Decode a row of session_issuers.  False if it is none that session_trust has
 * written, or the key of its MAC is gone.
 */
static bool
decode_issuer(const SmSchema *schema, TupleTableSlot *slot, pg_uuid_t *issuer,
			  uint8 public_key[SM_PUBLIC_KEY_LEN])
{
	Datum	   *values = slot->tts_values;
	uint8		mac[SM_TRUST_MAC_LEN];
	bytea	   *key;
	bytea	   *stored;
	int32		key_id;

	slot_getallattrs(slot);
	for (int i = 0; i < Natts_session_issuers; i++)
		if (slot->tts_isnull[i])
			return false;
	key = DatumGetByteaPP(values[Anum_issuers_public_key - 1]);
	stored = DatumGetByteaPP(values[Anum_issuers_mac - 1]);
	key_id = DatumGetInt32(values[Anum_issuers_key_id - 1]);
	if (VARSIZE_ANY_EXHDR(key) != SM_PUBLIC_KEY_LEN ||
		VARSIZE_ANY_EXHDR(stored) != SM_TRUST_MAC_LEN ||
		!sm_key_present(schema, key_id))
		return false;
	memcpy(public_key, VARDATA_ANY(key), SM_PUBLIC_KEY_LEN);
	*issuer = *DatumGetUUIDP(values[Anum_issuers_issuer - 1]);
	sm_trust_mac(sm_key_usable(schema, key_id)->subkeys.trust, issuer->data,
				 public_key, mac);
	return sm_equal(mac, VARDATA_ANY(stored), SM_TRUST_MAC_LEN);
}

/* The claims, whose signature has been checked; NULL if they are no object. */
static Jsonb *
parse_claims(const char *part, size_t len)
{
	size_t		max = len / 4 * 3 + 3;
	char	   *utf8 = palloc(max + 1);
	size_t		json_len;
	Jsonb	   *claims;

	if (!sm_base64url_decode(utf8, max, &json_len, part, len))
		return NULL;
	utf8[json_len] = '\0';
	claims = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
												CStringGetDatum(pg_any_to_server(utf8, json_len, PG_UTF8))));
	return JB_ROOT_IS_OBJECT(claims) ? claims : NULL;
}

static bool
claim_is(Jsonb *claims, const char *name, const char *value)
{
	text	   *claim = claim_text(&claims->root, name);

	return claim != NULL && strcmp(text_to_cstring(claim), value) == 0;
}

static bool
has_claim(Jsonb *claims, const char *name)
{
	return getKeyJsonValueFromContainer(&claims->root, name, strlen(name), NULL) != NULL;
}

/* The person who acts as the user; NULL if there is no name. */
static text *
actor_of(Jsonb *claims)
{
	JsonbValue *actor = getKeyJsonValueFromContainer(&claims->root, "act", 3, NULL);

	if (actor == NULL || actor->type != jbvBinary ||
		!JsonContainerIsObject(actor->val.binary.data))
		return NULL;
	return claim_text(actor->val.binary.data, "sub");
}

static bool
claim_time(Jsonb *claims, const char *name, int64 *seconds)
{
	JsonbValue *claim = getKeyJsonValueFromContainer(&claims->root, name,
													 strlen(name), NULL);

	if (claim == NULL || claim->type != jbvNumeric)
		return false;
	*seconds = DatumGetInt64(DirectFunctionCall1(numeric_int8,
												 NumericGetDatum(claim->val.numeric)));
	/* as microseconds, too, it has to be a number that C can hold */
	return *seconds > 0 && *seconds < PG_INT64_MAX / USECS_PER_SEC;
}

/* A member that is a text, and not too long; NULL if there is none. */
static text *
claim_text(const JsonbContainer *claims, const char *name)
{
	JsonbValue *claim = getKeyJsonValueFromContainer(unconstify(JsonbContainer *, claims),
													 name, strlen(name), NULL);

	if (claim == NULL || claim->type != jbvString ||
		claim->val.string.len == 0 || claim->val.string.len > MAX_CLAIM_LEN)
		return NULL;
	return cstring_to_text_with_len(claim->val.string.val, claim->val.string.len);
}

static char *
uuid_text(const pg_uuid_t *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
}
