/*-------------------------------------------------------------------------
 *
 * schema.c
 *	  Finds the extension's own relations.
 *
 * The schema is that of the function being called: nothing here, nor above,
 * looks at search_path.  An extension exists at most once in a database, so
 * one set of OIDs is enough; it is forgotten when a relation in it changes,
 * which covers DROP EXTENSION and CREATE EXTENSION in an open connection.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "schema.h"
#include "shared.h"

static SmSchema current;
static bool current_valid = false;

/* Cleared by a change during a look-up, whose result then serves one call. */
static bool unchanged;

static void resolve(Oid namespace);
static void relation_changed(Datum arg, Oid relid);
static Oid	own_relation(Oid namespace, const char *relname);
static void check_columns(Oid relid, int natts);

/*
 * Ask to hear of changes.  Called once, from _PG_init.
 */
void
sm_schema_init(void)
{
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
}

/*
 * The relations that belong to the function being called.
 */
const SmSchema *
sm_schema_of(FunctionCallInfo fcinfo)
{
	/* a change committed elsewhere must not wait for the next table lock */
	AcceptInvalidationMessages();

	if (!current_valid)
	{
		sm_shared_attach();
		resolve(get_func_namespace(fcinfo->flinfo->fn_oid));
	}
	return &current;
}

/*
 * The relations in a schema that is known to be the extension's.
 */
const SmSchema *
sm_schema_in(Oid namespace)
{
	if (!current_valid || current.namespace != namespace)
	{
		current_valid = false;
		resolve(namespace);
	}
	return &current;
}

/*
 * Quoted name of one of the extension's relations, for SQL text.
 */
char *
sm_schema_qualify(const SmSchema *schema, const char *relname)
{
	return quote_qualified_identifier(get_namespace_name(schema->namespace),
									  relname);
}

/*
 * Look once: looking again until nothing has changed meanwhile may never end,
 * as with debug_discard_caches every look is itself a reason to look again.
 * A change that arrives after its relation was found was made while this call
 * was under way; the next call sees it.
 */
static void
resolve(Oid namespace)
{
	unchanged = true;
	current.namespace = namespace;
	current.sessions = own_relation(namespace, "user_sessions");
	current.sessions_pkey = own_relation(namespace, "user_sessions_pkey");
	current.sessions_user_idx = own_relation(namespace, "user_sessions_user_id_idx");
	current.sessions_sweep_idx = own_relation(namespace, "user_sessions_sweep_at_idx");
	current.events = own_relation(namespace, "session_events");
	current.events_default = own_relation(namespace, "session_events_default");
	current.events_seq = own_relation(namespace, "session_events_event_id_seq");
	current.keys = own_relation(namespace, "session_keys");
	current.installation = own_relation(namespace, "session_installation");
	current.outbox = own_relation(namespace, "session_outbox");
	check_columns(current.sessions, Natts_user_sessions);
	check_columns(current.events, Natts_session_events);
	current_valid = unchanged;
}

static void
relation_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) ||
		relid == current.sessions ||
		relid == current.sessions_pkey ||
		relid == current.sessions_user_idx ||
		relid == current.sessions_sweep_idx ||
		relid == current.events ||
		relid == current.events_default ||
		relid == current.events_seq ||
		relid == current.keys ||
		relid == current.installation ||
		relid == current.outbox)
		current_valid = unchanged = false;
}

static Oid
own_relation(Oid namespace, const char *relname)
{
	Oid			relid = get_relname_relid(relname, namespace);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" of extension session_manager does not exist",
						relname),
				 errhint("Drop the extension and create it again, or restore what was removed.")));
	return relid;
}

/* A newer library beside an older catalogue must not read past its columns. */
static void
check_columns(Oid relid, int natts)
{
	/* from the catalogue: a lock on the table must not hold up a look-up */
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	int			found = 0;

	if (HeapTupleIsValid(tuple))
	{
		found = ((Form_pg_class) GETSTRUCT(tuple))->relnatts;
		ReleaseSysCache(tuple);
	}
	if (found < natts)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the library of session_manager is newer than the extension in this database"),
				 errhint("Run ALTER EXTENSION session_manager UPDATE.")));
}
