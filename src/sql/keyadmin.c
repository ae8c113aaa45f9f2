/*-------------------------------------------------------------------------
 *
 * keyadmin.c
 *	  Key administration: the states of keys in session_keys.
 *
 *	added -> active -> inactive -> retired
 *	any of them     -> revoked
 *
 * Runs as the extension's owner, except session_key_generate, which writes to
 * the server's file system and requires a superuser.  Changes of states
 * exclude each other by a lock on session_keys; a trigger on that table makes
 * every backend read it again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/rel.h"

#include "commit.h"
#include "guc.h"
#include "keys/keyring.h"
#include "session/authenticate.h"
#include "session/locks.h"
#include "spi.h"
#include "sql/arguments.h"
#include "sql/result.h"

PG_FUNCTION_INFO_V1(sm_session_key_generate);
PG_FUNCTION_INFO_V1(sm_session_key_add);
PG_FUNCTION_INFO_V1(sm_session_key_activate);
PG_FUNCTION_INFO_V1(sm_session_key_retire);
PG_FUNCTION_INFO_V1(sm_session_key_revoke);
PG_FUNCTION_INFO_V1(sm_session_keys);
PG_FUNCTION_INFO_V1(sm_session_keys_changed);

static const SmSchema *admin_begin(FunctionCallInfo fcinfo, const char *name);
static void admin_end(void);
static int64 query_int64(const char *sql);
static void create_installation(const SmSchema *schema);
static void record_key(const SmSchema *schema, int32 key_id);
static char *key_state(const SmSchema *schema, int32 key_id);
static int64 trusted_by(const SmSchema *schema, int32 key_id);
static void key_event(const SmSchema *schema, SmEventType type, int32 key_id);

/*
 * session_key_generate()
 */
Datum
sm_session_key_generate(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	int64		highest;
	int32		key_id;

	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to generate a session key"),
				 errhint("Append a line \"id:64 hex digits\" to the key file and call session_key_add(id).")));
	if (sm_key_file[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_SM_KEY_UNAVAILABLE),
				 errmsg("session_manager.key_file is not set"),
				 errhint("ALTER SYSTEM SET session_manager.key_file = '/etc/postgresql/session_manager.keys'; SELECT pg_reload_conf(); then try again.")));

	schema = admin_begin(fcinfo, "session_key_generate()");
	create_installation(schema);
	highest = query_int64(psprintf("SELECT pg_catalog.max(key_id)::pg_catalog.int8 FROM %s",
								   sm_schema_qualify(schema, "session_keys")));
	key_id = sm_key_file_append((int32) highest);
	record_key(schema, key_id);
	admin_end();
	PG_RETURN_INT32(key_id);
}

/*
 * session_key_add(key_id)
 */
Datum
sm_session_key_add(PG_FUNCTION_ARGS)
{
	int32		key_id = PG_GETARG_INT32(0);
	const SmSchema *schema = admin_begin(fcinfo, "session_key_add()");

	if (key_id < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key_id must be greater than zero")));
	if (key_state(schema, key_id) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("session key %d has already been added", key_id)));
	create_installation(schema);
	record_key(schema, key_id);
	admin_end();
	PG_RETURN_VOID();
}

/*
 * session_key_activate(key_id)
 */
Datum
sm_session_key_activate(PG_FUNCTION_ARGS)
{
	int32		key_id = PG_GETARG_INT32(0);
	const SmSchema *schema = admin_begin(fcinfo, "session_key_activate()");
	char	   *keys = sm_schema_qualify(schema, "session_keys");
	char	   *state = key_state(schema, key_id);

	if (state == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("session key %d is not known", key_id),
				 errhint("Add it first: SELECT %s(%d);",
						 sm_schema_qualify(schema, "session_key_add"), key_id)));
	if (strcmp(state, "retired") == 0 || strcmp(state, "revoked") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot activate session key %d in state \"%s\"", key_id, state),
				 errhint("Activate another key, or create one with session_key_generate().")));
	(void) sm_key_usable(schema, key_id);

	if (strcmp(state, "active") != 0)
	{
		(void) sm_spi_execute(psprintf("UPDATE %s SET state = 'inactive' WHERE state = 'active'",
									   keys));
		(void) sm_spi_execute(psprintf("UPDATE %s SET state = 'active', activated_at = pg_catalog.clock_timestamp(),"
									   " resealed_at = NULL WHERE key_id = %d", keys, key_id));
		key_event(schema, SM_EVENT_KEY_ACTIVATED, key_id);
	}
	admin_end();
	PG_RETURN_VOID();
}

/*
 * session_key_retire(key_id)
 */
Datum
sm_session_key_retire(PG_FUNCTION_ARGS)
{
	int32		key_id = PG_GETARG_INT32(0);
	const SmSchema *schema;
	SmBoundedWaits waits;
	char	   *state;
	int64		sealed;
	int64		verified;
	int64		trusted;
	char	   *sessions;

	PreventCommandIfReadOnly("session_key_retire()");
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("session_key_retire() must run at isolation level READ COMMITTED")));

	/*
	 * Rows that are being written may still use a key that was active until
	 * now.  Wait before locking: writers of sessions may need to read the
	 * keys.
	 */
	sm_bound_waits(&waits);
	sm_wait_for_writers(sm_called_schema(fcinfo));
	sm_unbound_waits(&waits);
	schema = admin_begin(fcinfo, "session_key_retire()");
	state = key_state(schema, key_id);
	sessions = sm_schema_qualify(schema, "user_sessions");

	if (state == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("session key %d is not known", key_id)));
	if (strcmp(state, "active") == 0 || strcmp(state, "revoked") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot retire session key %d in state \"%s\"", key_id, state),
				 strcmp(state, "active") == 0 ?
				 errhint("Activate another key first.") : 0));

	sealed = query_int64(psprintf("SELECT pg_catalog.count(*) FROM %s WHERE key_id = %d",
								  sessions, key_id));
	verified = query_int64(psprintf("SELECT pg_catalog.count(*) FROM %s"
									" WHERE verifier_key_id = %d OR previous_key_id = %d",
									sessions, key_id, key_id));
	trusted = trusted_by(schema, key_id);
	if (sealed > 0 || verified > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("session key %d is in use", key_id),
				 errdetail("It seals %lld sessions and verifies the tokens of %lld.",
						   (long long) sealed, (long long) verified),
				 errhint("Move seals with session_reencrypt(). Verifiers move when a session is refreshed, those of previous tokens when it is rotated; both disappear with the session.")));

	if (trusted > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("session key %d is in use", key_id),
				 errdetail("It confirms that %lld keys of other databases are trusted.",
						   (long long) trusted),
				 errhint("Call %s() again for each of these databases.",
						 sm_schema_qualify(schema, "session_trust"))));

	(void) sm_spi_execute(psprintf("UPDATE %s SET state = 'retired', retired_at = pg_catalog.clock_timestamp()"
								   " WHERE key_id = %d AND state <> 'retired'",
								   sm_schema_qualify(schema, "session_keys"), key_id));
	if (strcmp(state, "retired") != 0)
		key_event(schema, SM_EVENT_KEY_RETIRED, key_id);
	admin_end();
	PG_RETURN_VOID();
}

/*
 * session_key_revoke(key_id)
 */
Datum
sm_session_key_revoke(PG_FUNCTION_ARGS)
{
	int32		key_id = PG_GETARG_INT32(0);
	const SmSchema *schema = admin_begin(fcinfo, "session_key_revoke()");
	char	   *state = key_state(schema, key_id);
	int64		trusted;

	if (state == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("session key %d is not known", key_id)));
	if (strcmp(state, "revoked") != 0)
	{
		(void) sm_spi_execute(psprintf("UPDATE %s SET state = 'revoked', check_value = NULL,"
									   " revoked_at = pg_catalog.clock_timestamp() WHERE key_id = %d",
									   sm_schema_qualify(schema, "session_keys"), key_id));
		key_event(schema, SM_EVENT_KEY_REVOKED, key_id);
		/* whatever synchronous_commit says */
		sm_commit_durably();
		trusted = trusted_by(schema, key_id);
		if (trusted > 0)
			ereport(NOTICE,
					(errmsg("session key %d confirmed that %lld keys of other databases are trusted: they no longer are",
							key_id, (long long) trusted),
					 errhint("Call %s() again for each of these databases.",
							 sm_schema_qualify(schema, "session_trust"))));
		if (strcmp(state, "active") == 0)
			ereport(NOTICE,
					(errmsg("no session key is active now: nobody can log in"),
					 errhint("Run SELECT %s(); to create and activate a key.",
							 sm_schema_qualify(schema, "session_key_generate"))));
	}
	admin_end();
	PG_RETURN_VOID();
}

/*
 * session_keys()
 */
Datum
sm_session_keys(PG_FUNCTION_ARGS)
{
	const SmSchema *schema = sm_called_schema(fcinfo);
	static const Oid types[] = {
		INT4OID, TEXTOID, BOOLOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, TIMESTAMPTZOID
	};
	SmResult	result = sm_result_begin(fcinfo, types, lengthof(types));
	const SmKey *ring;
	int			n;

	n = sm_key_list(schema, &ring);
	sm_spi_connect();
	(void) sm_spi_execute(psprintf("SELECT key_id, state, false, created_at, activated_at, retired_at, revoked_at"
								   " FROM %s ORDER BY key_id",
								   sm_schema_qualify(schema, "session_keys")));
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		Datum		values[7];
		bool		nulls[7];

		heap_deform_tuple(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						  values, nulls);
		for (int i = 0; i < n; i++)
			if (ring[i].id == DatumGetInt32(values[0]))
				values[2] = BoolGetDatum(ring[i].material == SM_MATERIAL_PRESENT);
		tuplestore_putvalues(result.store, result.desc, values, nulls);
	}
	sm_spi_finish();
	return (Datum) 0;
}

/*
 * Trigger on session_keys: every backend reads the table again from the
 * commit on, and this one from the next command on.
 */
Datum
sm_session_keys_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("session_keys_changed() was not called by trigger manager")));
	CacheInvalidateRelcache(trigger->tg_relation);
	return PointerGetDatum(NULL);
}

/* Refuse where nothing can be written, and exclude other administrators. */
static const SmSchema *
admin_begin(FunctionCallInfo fcinfo, const char *name)
{
	const SmSchema *schema;

	PreventCommandIfReadOnly(name);
	schema = sm_called_schema(fcinfo);
	sm_spi_connect();
	(void) sm_spi_execute(psprintf("LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE",
								   sm_schema_qualify(schema, "session_keys")));
	return schema;
}

static void
admin_end(void)
{
	sm_spi_finish();
}

/* The one value of a query; 0 if it is null. */
static int64
query_int64(const char *sql)
{
	bool		isnull;
	Datum		value;

	(void) sm_spi_execute(sql);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? 0 : DatumGetInt64(value);
}

/* Make the row that separates this database's subkeys, unless it is there. */
static void
create_installation(const SmSchema *schema)
{
	pg_uuid_t	id;
	Oid			type = UUIDOID;
	Datum		value;

	sm_random(&id, sizeof(id));
	/* version 4, RFC 9562 */
	id.data[6] = (id.data[6] & 0x0F) | 0x40;
	id.data[8] = (id.data[8] & 0x3F) | 0x80;
	value = UUIDPGetDatum(&id);
	(void) sm_spi_execute_with(psprintf("INSERT INTO %s (installation_id, created_at)"
										" VALUES ($1, pg_catalog.clock_timestamp()) ON CONFLICT DO NOTHING",
										sm_schema_qualify(schema, "session_installation")),
							   1, &type, &value, InvalidSnapshot);
}

/* Record a key of the file; it becomes active if no key is. */
static void
record_key(const SmSchema *schema, int32 key_id)
{
	char	   *keys = sm_schema_qualify(schema, "session_keys");
	bytea	   *check = palloc(VARHDRSZ + SM_CHECK_LEN);
	Oid			type = BYTEAOID;
	Datum		value;
	int64		active;

	SET_VARSIZE(check, VARHDRSZ + SM_CHECK_LEN);
	if (!sm_key_file_check(schema, key_id, (uint8 *) VARDATA(check)))
		ereport(ERROR,
				(errcode(ERRCODE_SM_KEY_UNAVAILABLE),
				 errmsg("session key %d is not available", key_id),
				 sm_key_file_problem() ?
				 errdetail("%s", sm_key_file_problem()) :
				 errdetail("The key file has no key with this id."),
				 errhint("Append a line \"%d:64 hex digits\" to the file named by session_manager.key_file.",
						 key_id)));
	value = PointerGetDatum(check);
	(void) sm_spi_execute_with(psprintf("INSERT INTO %s (key_id, state, check_value, created_at)"
										" VALUES (%d, 'added', $1, pg_catalog.clock_timestamp())",
										keys, key_id),
							   1, &type, &value, InvalidSnapshot);
	key_event(schema, SM_EVENT_KEY_ADDED, key_id);

	active = query_int64(psprintf("SELECT pg_catalog.count(*) FROM %s WHERE state = 'active'",
								  keys));
	if (active == 0)
	{
		(void) sm_spi_execute(psprintf("UPDATE %s SET state = 'active', activated_at = pg_catalog.clock_timestamp()"
									   " WHERE key_id = %d", keys, key_id));
		key_event(schema, SM_EVENT_KEY_ACTIVATED, key_id);
	}
}

/* State of a key in session_keys, or NULL. */
static char *
key_state(const SmSchema *schema, int32 key_id)
{
	(void) sm_spi_execute(psprintf("SELECT state FROM %s WHERE key_id = %d",
								   sm_schema_qualify(schema, "session_keys"), key_id));
	if (SPI_processed == 0)
		return NULL;
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/* How many keys of other databases are trusted on the word of a key? */
static int64
trusted_by(const SmSchema *schema, int32 key_id)
{
	return query_int64(psprintf("SELECT pg_catalog.count(*) FROM %s WHERE key_id = %d",
								sm_schema_qualify(schema, "session_issuers"), key_id));
}

static void
key_event(const SmSchema *schema, SmEventType type, int32 key_id)
{
	SmEvent		event = {.type = type};
	JsonbParseState *detail = sm_detail_begin();

	sm_detail_int(&detail, "key_id", key_id);
	event.detail = sm_detail_end(&detail);
	sm_event(schema, &event);
}
