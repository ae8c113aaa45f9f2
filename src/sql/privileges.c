/*-------------------------------------------------------------------------
 *
 * privileges.c
 *	  Hands out the extension's functions, and columns to read, in bundles.
 *
 * session_grant() and session_revoke() build a GRANT or REVOKE and run it as
 * the caller: one that may not grant the functions gets GRANT's own error.
 * Functions are looked up by name among the extension's members and named with
 * schemas and full signature, so that search_path finds nothing.
 *
 * Bundles overlap, and PostgreSQL does not record by which one a role came
 * to a function.  session_revoke() takes exactly the functions of the bundle
 * it is given: from a role that has another bundle as well, what both share
 * goes too, and granting the other one again brings it back.
 *
 * A grant includes USAGE on the schema.  A revoke does not take it away: the
 * role may have had it before, or need it for what else is in the schema.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "spi.h"

#define APP			0x01
#define ADMIN		0x02
#define MONITOR		0x04
#define READER		0x08

/* those that include the view session_stats */
#define VIEW_BUNDLES	(ADMIN | MONITOR)

typedef struct Bundle
{
	const char *name;
	int			bit;
} Bundle;

typedef struct BundledFunction
{
	const char *name;			/* of all its forms */
	int			bundles;
} BundledFunction;

typedef struct ReadableTable
{
	const char *name;
	const char *columns;
} ReadableTable;

static const Bundle bundles[] = {
	{"app", APP},
	{"admin", ADMIN},
	{"monitor", MONITOR},
	{"reader", READER}
};

/*
 * In the order of the installation script.  In no bundle, and so left to the
 * owner: session_trust, session_distrust, session_key_generate,
 * session_hand_over, session_grant, session_revoke and the trigger functions.
 */
static const BundledFunction functions[] = {
	{"session_create", APP | ADMIN},
	{"session_get", APP | ADMIN},
	{"session_get_json", APP | ADMIN},
	{"session_update", APP | ADMIN},
	{"session_refresh", APP | ADMIN},
	{"session_elevate", APP | ADMIN},
	{"session_switch_tenant", APP | ADMIN},
	{"session_invalidate", APP | ADMIN},
	{"session_get_id", APP | ADMIN},
	{"session_invalidate_id", APP | ADMIN},
	{"session_invalidate_all", APP | ADMIN},
	{"session_update_user", APP | ADMIN},
	{"session_list", APP | ADMIN},
	{"session_bind", APP | ADMIN},
	{"session_bind_id", APP | ADMIN},
	{"session_user_id", APP | ADMIN},
	{"session_tenant_id", APP | ADMIN},
	{"session_actor_id", APP | ADMIN},
	{"session_id", APP | ADMIN},
	{"session_device_challenge", APP | ADMIN},
	{"session_bind_device", APP | ADMIN},
	{"session_prove_device", APP | ADMIN},
	{"session_device", APP | ADMIN},
	{"session_device_report", APP | ADMIN},
	{"session_assertion", APP | ADMIN},
	{"session_assertion_id", APP | ADMIN},
	{"session_assertion_keys", APP | ADMIN | MONITOR},
	{"session_audience", APP | ADMIN | MONITOR},
	{"session_status", ADMIN},
	{"session_end_reason", APP | ADMIN},
	{"session_token_digest", APP | ADMIN},
	{"session_bucket", APP | ADMIN | MONITOR},
	{"session_token_bucket", APP | ADMIN | MONITOR},
	{"session_event_severity", APP | ADMIN | MONITOR},
	{"session_invalidate_tenant", ADMIN},
	{"session_invalidate_everything", ADMIN},
	{"session_history", APP | ADMIN},
	{"session_critical_events", APP | ADMIN},
	{"session_activity", APP | ADMIN | MONITOR},
	{"session_top", APP | ADMIN},
	{"session_active_count", APP | ADMIN | MONITOR},
	{"session_active_estimate", APP | ADMIN | MONITOR},
	{"session_cleanup", APP | ADMIN},
	{"session_export", ADMIN},
	{"session_erase", ADMIN},
	{"session_key_add", ADMIN},
	{"session_key_activate", ADMIN},
	{"session_key_retire", ADMIN},
	{"session_key_revoke", ADMIN},
	{"session_keys", ADMIN | MONITOR},
	{"session_reencrypt", ADMIN},
	{"session_info", ADMIN | MONITOR},
	{"session_audit", APP | ADMIN | MONITOR},
	{"session_cache_settings", APP | ADMIN},
	{"session_counters", ADMIN | MONITOR},
	{"session_stats_reset", ADMIN}
};

/*
 * What the bundle "reader" may SELECT: no verifier, no seal, no MAC, no check
 * value, and nothing that one could be guessed from.  The bundle "app" can
 * learn most of it as well, by session_list() and session_history(); ids and
 * states of keys, versions and times of rotations it cannot, and these are no
 * secrets.
 * Partitions are read through session_events, whose privileges count.
 */
static const ReadableTable readable[] = {
	{"user_sessions",
		"session_id, created_at, authenticated_at, last_seen_at, expires_at,"
		" absolute_expires_at, version, key_id, verifier_key_id, user_id,"
		" tenant_id, ip, user_agent, idle_timeout, actor_session_id, actor_id,"
		" device_bound_at, device_proved_at,"
	" rotated_at, revoked_at, revoked_reason"},
	{"session_events",
	"event_id, at, session_id, user_id, tenant_id, event, ip, user_agent, detail"},
	{"session_keys", "key_id, state"}
};

PG_FUNCTION_INFO_V1(sm_session_grant);
PG_FUNCTION_INFO_V1(sm_session_revoke);

static void change_privileges(FunctionCallInfo fcinfo, const char *verb,
							  const char *preposition, bool with_usage);
static int	bundle_bit(const char *name);
static const char *role_name(Oid role);
static void append_functions(StringInfo sql, Oid extension, int bit);

/*
 * session_grant(role, bundle)
 */
Datum
sm_session_grant(PG_FUNCTION_ARGS)
{
	change_privileges(fcinfo, "GRANT", "TO", true);
	PG_RETURN_VOID();
}

/*
 * session_revoke(role, bundle)
 */
Datum
sm_session_revoke(PG_FUNCTION_ARGS)
{
	change_privileges(fcinfo, "REVOKE", "FROM", false);
	PG_RETURN_VOID();
}

static void
change_privileges(FunctionCallInfo fcinfo, const char *verb,
				  const char *preposition, bool with_usage)
{
	const char *role = role_name(PG_GETARG_OID(0));
	int			bit = bundle_bit(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	Oid			namespace = get_func_namespace(fcinfo->flinfo->fn_oid);
	const char *schema = quote_identifier(get_namespace_name(namespace));

	sm_spi_connect();

	if (bit == READER)
	{
		for (size_t i = 0; i < lengthof(readable); i++)
			(void) sm_spi_execute(psprintf("%s SELECT (%s) ON %s.%s %s %s",
										   verb, readable[i].columns, schema, readable[i].name,
										   preposition, role));
	}
	else
	{
		StringInfoData sql;

		initStringInfo(&sql);
		appendStringInfo(&sql, "%s EXECUTE ON FUNCTION ", verb);
		append_functions(&sql,
						 getExtensionOfObject(ProcedureRelationId,
											  fcinfo->flinfo->fn_oid),
						 bit);
		appendStringInfo(&sql, " %s %s", preposition, role);
		(void) sm_spi_execute(sql.data);
	}

	if (bit & VIEW_BUNDLES)
		(void) sm_spi_execute(psprintf("%s SELECT ON %s.session_stats %s %s",
									   verb, schema, preposition, role));
	if (with_usage)
		(void) sm_spi_execute(psprintf("%s USAGE ON SCHEMA %s %s %s",
									   verb, schema, preposition, role));

	sm_spi_finish();
}

static int
bundle_bit(const char *name)
{
	for (size_t i = 0; i < lengthof(bundles); i++)
	{
		if (strcmp(name, bundles[i].name) == 0)
			return bundles[i].bit;
	}

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized bundle of session functions: \"%s\"", name),
			 errhint("The bundles are \"app\", \"admin\", \"monitor\" and \"reader\".")));
	return 0;					/* keep compiler quiet */
}

/*
 * Quoted name of a role.  A regrole can be any number, and "-" is 0.
 */
static const char *
role_name(Oid role)
{
	char	   *name;

	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a role is required"),
				 errhint("Name the role that will call the functions.")));

	name = GetUserNameFromId(role, true);
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", role)));

	return quote_identifier(name);
}

/*
 * Append the functions of a bundle: all forms that are the extension's.
 * Others of the same name may be in the schema.
 */
static void
append_functions(StringInfo sql, Oid extension, int bit)
{
	const char *separator = "";

	for (size_t i = 0; i < lengthof(functions); i++)
	{
		CatCList   *forms;
		bool		found = false;

		if (!(functions[i].bundles & bit))
			continue;
		forms = SearchSysCacheList1(PROCNAMEARGSNSP,
									CStringGetDatum(functions[i].name));
		for (int form = 0; form < forms->n_members; form++)
		{
			HeapTuple	tuple = &forms->members[form]->tuple;
			Oid			oid = ((Form_pg_proc) GETSTRUCT(tuple))->oid;

			if (getExtensionOfObject(ProcedureRelationId, oid) != extension)
				continue;
			appendStringInfo(sql, "%s%s", separator,
							 format_procedure_qualified(oid));
			separator = ", ";
			found = true;
		}
		ReleaseCatCacheList(forms);
		if (!found || !OidIsValid(extension))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("extension session_manager does not have its function %s()",
							functions[i].name),
					 errhint("Drop the extension and create it again, or add what was removed.")));
	}
}
