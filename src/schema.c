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
 * Everything above reaches columns by their numbers and takes them for what
 * the install script made them.  An owner may alter tables, and the library
 * may be of another version than the script, so that is looked at here: each
 * column that is known to C, by name and type, and each index that is scanned.
 * Columns behind those are the owner's and left alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_type.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"
#include "nodes/readfuncs.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "schema.h"
#include "shared.h"
#include "version.h"

typedef struct Column
{
	const char *name;
	Oid			type;
	Oid			collation;		/* if it matters */
} Column;

static const Column sessions_columns[Natts_user_sessions] = {
	[Anum_session_id - 1] = {"session_id", UUIDOID, InvalidOid},
	[Anum_created_at - 1] = {"created_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_authenticated_at - 1] = {"authenticated_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_absolute_expires_at - 1] = {"absolute_expires_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_sweep_at - 1] = {"sweep_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_ttl - 1] = {"ttl", INTERVALOID, InvalidOid},
	[Anum_last_seen_at - 1] = {"last_seen_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_expires_at - 1] = {"expires_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_version - 1] = {"version", INT4OID, InvalidOid},
	[Anum_key_id - 1] = {"key_id", INT4OID, InvalidOid},
	[Anum_verifier_key_id - 1] = {"verifier_key_id", INT4OID, InvalidOid},
	[Anum_state_mac - 1] = {"state_mac", BYTEAOID, InvalidOid},
	[Anum_revoked_at - 1] = {"revoked_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_revoked_reason - 1] = {"revoked_reason", TEXTOID, InvalidOid},
	[Anum_rotated_at - 1] = {"rotated_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_successor_used_at - 1] = {"successor_used_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_previous_valid_until - 1] = {"previous_valid_until", TIMESTAMPTZOID, InvalidOid},
	[Anum_previous_key_id - 1] = {"previous_key_id", INT4OID, InvalidOid},
	[Anum_device_proved_at - 1] = {"device_proved_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_previous_verifier - 1] = {"previous_verifier", BYTEAOID, InvalidOid},
	[Anum_verifier - 1] = {"verifier", BYTEAOID, InvalidOid},
	[Anum_sealed_data - 1] = {"sealed_data", BYTEAOID, InvalidOid},
	[Anum_user_id - 1] = {"user_id", TEXTOID, C_COLLATION_OID},
	[Anum_tenant_id - 1] = {"tenant_id", TEXTOID, C_COLLATION_OID},
	[Anum_idle_timeout - 1] = {"idle_timeout", INTERVALOID, InvalidOid},
	[Anum_actor_session_id - 1] = {"actor_session_id", UUIDOID, InvalidOid},
	[Anum_actor_id - 1] = {"actor_id", TEXTOID, C_COLLATION_OID},
	[Anum_device_binding_id - 1] = {"device_binding_id", UUIDOID, InvalidOid},
	[Anum_device_bound_at - 1] = {"device_bound_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_ip - 1] = {"ip", INETOID, InvalidOid},
	[Anum_user_agent - 1] = {"user_agent", TEXTOID, InvalidOid}
};

static const Column events_columns[Natts_session_events] = {
	[Anum_event_event_id - 1] = {"event_id", INT8OID, InvalidOid},
	[Anum_event_at - 1] = {"at", TIMESTAMPTZOID, InvalidOid},
	[Anum_event_session_id - 1] = {"session_id", UUIDOID, InvalidOid},
	[Anum_event_user_id - 1] = {"user_id", TEXTOID, InvalidOid},
	[Anum_event_tenant_id - 1] = {"tenant_id", TEXTOID, InvalidOid},
	[Anum_event_event - 1] = {"event", TEXTOID, InvalidOid},
	[Anum_event_ip - 1] = {"ip", INETOID, InvalidOid},
	[Anum_event_user_agent - 1] = {"user_agent", TEXTOID, InvalidOid},
	[Anum_event_detail - 1] = {"detail", JSONBOID, InvalidOid}
};

static const Column keys_columns[Natts_session_keys] = {
	[Anum_keys_key_id - 1] = {"key_id", INT4OID, InvalidOid},
	[Anum_keys_state - 1] = {"state", TEXTOID, InvalidOid},
	[Anum_keys_check_value - 1] = {"check_value", BYTEAOID, InvalidOid},
	[Anum_keys_created_at - 1] = {"created_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_keys_activated_at - 1] = {"activated_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_keys_retired_at - 1] = {"retired_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_keys_revoked_at - 1] = {"revoked_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_keys_resealed_at - 1] = {"resealed_at", TIMESTAMPTZOID, InvalidOid}
};

static const Column installation_columns[Natts_session_installation] = {
	[Anum_installation_singleton - 1] = {"singleton", BOOLOID, InvalidOid},
	[Anum_installation_installation_id - 1] = {"installation_id", UUIDOID, InvalidOid},
	[Anum_installation_created_at - 1] = {"created_at", TIMESTAMPTZOID, InvalidOid}
};

static const Column outbox_columns[Natts_session_outbox] = {
	[Anum_outbox_session_id - 1] = {"session_id", UUIDOID, InvalidOid},
	[Anum_outbox_at - 1] = {"at", TIMESTAMPTZOID, InvalidOid}
};

static const Column issuers_columns[Natts_session_issuers] = {
	[Anum_issuers_public_key - 1] = {"public_key", BYTEAOID, InvalidOid},
	[Anum_issuers_issuer - 1] = {"issuer", UUIDOID, InvalidOid},
	[Anum_issuers_added_at - 1] = {"added_at", TIMESTAMPTZOID, InvalidOid},
	[Anum_issuers_key_id - 1] = {"key_id", INT4OID, InvalidOid},
	[Anum_issuers_mac - 1] = {"mac", BYTEAOID, InvalidOid}
};

static SmSchema current;
static bool current_valid = false;

/* Cleared by a change during a look-up, whose result then serves one call. */
static bool unchanged;

static void resolve(Oid namespace);
static bool look(Oid namespace, bool report);
static void relation_changed(Datum arg, Oid relid);
static bool find_relation(Oid namespace, const char *relname, bool report,
						  Oid *relid);
static bool check_table(Oid relid, char relkind, const Column *columns, int n,
						bool report);
static bool check_index(Oid relid, Oid table, int attnum, const Column *column,
						bool unique, bool without_nulls, bool report);
static bool is_not_null(HeapTuple tuple, int attnum);
static bool is_default_class(Oid class, Oid type);
static Oid	access_method(Oid relid);
pg_noreturn static void report_altered(Oid relid, const char *detail);

/*
 * Register a callback for changes of relations.  Called once, from _PG_init.
 */
void
sm_schema_init(void)
{
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
}

/*
 * The relations that a function of the extension belongs to.
 */
const SmSchema *
sm_schema_of_function(Oid function)
{
	/* a change committed elsewhere must not wait for the next table lock */
	AcceptInvalidationMessages();

	if (!current_valid)
	{
		sm_shared_attach();
		resolve(get_func_namespace(function));
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
 * What is not as the library knows it may be another version's.  If it is not,
 * an update may have been committed between the look at the tables and the one
 * at the version: the next look then sees its tables.
 */
static void
resolve(Oid namespace)
{
	if (look(namespace, false))
		return;
	sm_version_check();
	AcceptInvalidationMessages();
	look(namespace, true);
}

/*
 * Find the relations.  Where one is missing, or is not as the library knows it,
 * that is an error if it is to be reported, and false otherwise.
 *
 * Do not look until nothing has changed meanwhile, which may never end, as with
 * debug_discard_caches every look is itself a reason to look again.  A change
 * that arrives after its relation was found was made while this call was under
 * way; the next call sees it.
 */
static bool
look(Oid namespace, bool report)
{
	const struct
	{
		const char *name;
		Oid		   *relid;
	}			relations[] = {
		{"user_sessions", &current.sessions},
		{"user_sessions_pkey", &current.sessions_pkey},
		{"user_sessions_user_id_idx", &current.sessions_user_idx},
		{"user_sessions_sweep_at_idx", &current.sessions_sweep_idx},
		{"user_sessions_tenant_id_idx", &current.sessions_tenant_idx},
		{"session_events", &current.events},
		{"session_events_default", &current.events_default},
		{"session_events_event_id_seq", &current.events_seq},
		{"session_keys", &current.keys},
		{"session_installation", &current.installation},
		{"session_outbox", &current.outbox},
		{"session_issuers", &current.issuers}
	};

	unchanged = true;
	current.namespace = namespace;
	for (int i = 0; i < (int) lengthof(relations); i++)
		if (!find_relation(namespace, relations[i].name, report,
						   relations[i].relid))
			return false;
	if (!check_table(current.sessions, RELKIND_RELATION,
					 sessions_columns, Natts_user_sessions, report) ||
		!check_index(current.sessions_pkey, current.sessions, Anum_session_id,
					 &sessions_columns[Anum_session_id - 1], true, false, report) ||
		!check_index(current.sessions_user_idx, current.sessions, Anum_user_id,
					 &sessions_columns[Anum_user_id - 1], false, false, report) ||
		!check_index(current.sessions_sweep_idx, current.sessions, Anum_sweep_at,
					 &sessions_columns[Anum_sweep_at - 1], false, false, report) ||
		!check_index(current.sessions_tenant_idx, current.sessions, Anum_tenant_id,
					 &sessions_columns[Anum_tenant_id - 1], false, true, report) ||
		!check_table(current.events, RELKIND_PARTITIONED_TABLE,
					 events_columns, Natts_session_events, report) ||
		!check_table(current.events_seq, RELKIND_SEQUENCE, NULL, 0, report) ||
		!check_table(current.keys, RELKIND_RELATION,
					 keys_columns, Natts_session_keys, report) ||
		!check_table(current.installation, RELKIND_RELATION,
					 installation_columns, Natts_session_installation, report) ||
		!check_table(current.outbox, RELKIND_RELATION,
					 outbox_columns, Natts_session_outbox, report) ||
		!check_table(current.issuers, RELKIND_RELATION,
					 issuers_columns, Natts_session_issuers, report))
		return false;
	current_valid = unchanged;
	return true;
}

static void
relation_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) ||
		relid == current.sessions ||
		relid == current.sessions_pkey ||
		relid == current.sessions_user_idx ||
		relid == current.sessions_sweep_idx ||
		relid == current.sessions_tenant_idx ||
		relid == current.events ||
		relid == current.events_default ||
		relid == current.events_seq ||
		relid == current.keys ||
		relid == current.installation ||
		relid == current.outbox ||
		relid == current.issuers)
		current_valid = unchanged = false;
}

static bool
find_relation(Oid namespace, const char *relname, bool report, Oid *relid)
{
	*relid = get_relname_relid(relname, namespace);
	if (!OidIsValid(*relid) && report)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" of extension session_manager does not exist",
						relname),
				 errhint("Drop the extension and create it again, or restore the relation.")));
	return OidIsValid(*relid);
}

/*
 * Is a relation of the kind, and are its first columns the ones, that C code
 * takes them for?  From the catalogue's caches: a lock on the table must not
 * hold up a look-up.
 */
static bool
check_table(Oid relid, char relkind, const Column *columns, int n, bool report)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class class;
	bool		same = HeapTupleIsValid(tuple);

	if (!same && report)
		report_altered(relid, "It no longer exists.");
	if (!same)
		return false;
	class = (Form_pg_class) GETSTRUCT(tuple);
	/* rows are looked at as heap tuples */
	same = class->relkind == relkind &&
		(relkind != RELKIND_RELATION || class->relam == HEAP_TABLE_AM_OID);
	ReleaseSysCache(tuple);
	if (!same && report)
		report_altered(relid, "It is a relation of another kind, or its access method is not heap.");

	for (int i = 0; same && i < n; i++)
	{
		Form_pg_attribute attribute;

		tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid),
								Int16GetDatum(i + 1));
		same = HeapTupleIsValid(tuple);
		if (same)
		{
			attribute = (Form_pg_attribute) GETSTRUCT(tuple);
			same = !attribute->attisdropped &&
				attribute->atttypid == columns[i].type &&
				(!OidIsValid(columns[i].collation) ||
				 attribute->attcollation == columns[i].collation) &&
				strcmp(NameStr(attribute->attname), columns[i].name) == 0;
			ReleaseSysCache(tuple);
		}
		if (!same && report)
			report_altered(relid, psprintf(OidIsValid(columns[i].collation) ?
										   "Column %d is not \"%s\" of type %s and collation \"C\"." :
										   "Column %d is not \"%s\" of type %s.",
										   i + 1, columns[i].name,
										   format_type_be(columns[i].type)));
	}
	return same;
}

/*
 * Is the condition of an index that this column is not null, and no more?
 */
static bool
is_not_null(HeapTuple tuple, int attnum)
{
	bool		isnull;
	Datum		condition = SysCacheGetAttr(INDEXRELID, tuple,
											Anum_pg_index_indpred, &isnull);
	Node	   *node = stringToNode(TextDatumGetCString(condition));
	NullTest   *test;

	if (IsA(node, List) && list_length((List *) node) == 1)
		node = linitial((List *) node);
	if (!IsA(node, NullTest))
		return false;
	test = (NullTest *) node;
	return test->nulltesttype == IS_NOT_NULL && IsA(test->arg, Var) &&
		((Var *) test->arg)->varattno == attnum;
}

/*
 * Does an index find every row of its table by this column, in the order of
 * its type?  Rows without a value may be left out if "without_nulls".
 */
static bool
check_index(Oid relid, Oid table, int attnum, const Column *column, bool unique,
			bool without_nulls, bool report)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(relid));
	Form_pg_index index;
	bool		same = false;

	if (HeapTupleIsValid(tuple))
	{
		Datum		classes;
		Datum		collations;
		bool		isnull;

		index = (Form_pg_index) GETSTRUCT(tuple);
		same = index->indrelid == table && index->indislive &&
			index->indisready && index->indisvalid &&
			(!unique || (index->indisunique && index->indimmediate)) &&
			index->indnkeyatts == 1 && index->indkey.values[0] == attnum &&
			(heap_attisnull(tuple, Anum_pg_index_indpred, NULL) ||
			 (without_nulls && is_not_null(tuple, attnum))) &&
			access_method(relid) == BTREE_AM_OID;
		if (same)
		{
			classes = SysCacheGetAttr(INDEXRELID, tuple, Anum_pg_index_indclass,
									  &isnull);
			collations = SysCacheGetAttr(INDEXRELID, tuple,
										 Anum_pg_index_indcollation, &isnull);
			same = is_default_class(((oidvector *) DatumGetPointer(classes))->values[0],
									column->type) &&
				(!OidIsValid(column->collation) ||
				 ((oidvector *) DatumGetPointer(collations))->values[0] ==
				 column->collation);
		}
		ReleaseSysCache(tuple);
	}
	if (!same && report)
		report_altered(relid, psprintf(unique ?
									   "It is not a valid unique B-tree index on all rows by \"%s\"." :
									   "It is not a valid B-tree index on all rows by \"%s\".",
									   column->name));
	return same;
}

/*
 * Is an operator class the default one of a type?  GetDefaultOpClass would read
 * the whole of pg_opclass, each time that the caches were reset.
 */
static bool
is_default_class(Oid class, Oid type)
{
	HeapTuple	tuple = SearchSysCache1(CLAOID, ObjectIdGetDatum(class));
	Form_pg_opclass form;
	bool		same = false;

	if (HeapTupleIsValid(tuple))
	{
		form = (Form_pg_opclass) GETSTRUCT(tuple);
		same = form->opcdefault && form->opcintype == type;
		ReleaseSysCache(tuple);
	}
	return same;
}

static Oid
access_method(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			relam = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		relam = ((Form_pg_class) GETSTRUCT(tuple))->relam;
		ReleaseSysCache(tuple);
	}
	return relam;
}

static void
report_altered(Oid relid, const char *detail)
{
	char	   *name = get_rel_name(relid);

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("relation \"%s\" of extension session_manager does not have the structure that the library expects",
					name ? name : "?"),
			 errdetail("%s", detail),
			 errhint("Undo the change, or install the same version of the library and the extension.")));
}
