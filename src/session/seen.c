/*-------------------------------------------------------------------------
 *
 * seen.c
 *	  Has a user been seen with a client's network, or with its device?
 *
 * A login is of a new device if the user has been seen before, but neither in
 * this network, as client_binding compares them, nor with this kind of device
 * (device.c).  Where an address or a user agent is not given, that counts as a
 * network or a device of its own: who leaves out the user agent is not
 * familiar for that, and an application that reports no addresses at all has
 * one network.
 *
 * The user's rows are looked at first, where most logins find what they look
 * for at the first row; then events of logins and refreshes, newest first,
 * partition by partition, as far back as event_retention.  What only failed,
 * as a guess at a token, does not make its client familiar, nor does a session
 * in which somebody else acts as the user.  No more than
 * MAX_ROWS and MAX_EVENTS index entries are looked at, so that a login of a
 * user with very many sessions costs no more; what lies behind them counts as
 * not seen.
 *
 * Everything is read by SnapshotSelf: what has been committed by now, without
 * the predicate locks of SERIALIZABLE, by which two logins that have nothing to
 * do with each other would conflict.  Two logins at once do not see each other,
 * so that both may be of the same new device.  No login waits here: a partition
 * that is locked, as to be dropped, is passed over.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_opclass.h"
#include "executor/tuptable.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "session/events.h"
#include "session/seen.h"

#define MAX_ROWS		100
#define MAX_EVENTS		300
#define MAX_PARTITIONS	128

/* Where the columns of an event are in a partition, and the index. */
typedef struct EventColumns
{
	Oid			partition;
	Oid			index;			/* by user and time; InvalidOid: there is none */
	AttrNumber	user_id;
	AttrNumber	at;
	AttrNumber	event;
	AttrNumber	ip;
	AttrNumber	user_agent;
	AttrNumber	detail;
} EventColumns;

/* What has been looked up, by the partition's OID. */
#define N_KNOWN		32

static EventColumns known_columns[N_KNOWN];

/* The partition that is being looked up; InvalidOid once it changes. */
static Oid	looked_up = InvalidOid;

static void compare(SmSeen *seen, const SmClient *known);
static bool same_network(const SmSeen *seen, inet *known);
static bool same_device(SmSeen *seen, const text *known);
static void parse(SmSeen *seen);
static SmDevice device_of(const text *user_agent);
static bool is_given(const text *user_agent);
static void look_at_events(SmSeen *seen, const SmSchema *schema, text *user_id);
static void look_at_partition(SmSeen *seen, Relation parent, Oid relid,
							  text *user_id, TimestampTz since);
static bool look_at_event(SmSeen *seen, TupleTableSlot *slot,
						  const EventColumns *columns, TimestampTz since);
static void partition_changed(Datum arg, Oid relid);
static EventColumns find_columns(Relation parent, Relation partition);
static AttrNumber find_column(Relation parent, Relation partition,
							  AttrNumber attnum);
static Oid	find_index(Relation partition, const EventColumns *columns);
static bool serves(Oid index, const EventColumns *columns);
static void *index_vector(HeapTuple tuple, AttrNumber attnum);

/*
 * Register a callback for changes of partitions.  Called once, from _PG_init.
 */
void
sm_seen_init(void)
{
	CacheRegisterRelcacheCallback(partition_changed, (Datum) 0);
}

/*
 * Start finding out about the client of a login.
 */
void
sm_seen_begin(SmSeen *seen, const SmClient *client)
{
	memset(seen, 0, sizeof(SmSeen));
	seen->client = *client;
	seen->matters = sm_new_device_events &&
		(client->ip != NULL || is_given(client->user_agent));
	seen->rows_left = MAX_ROWS;
	seen->events_left = MAX_EVENTS;
	if (client->ip != NULL)
		seen->network = sm_network(client->ip);
}

/*
 * Take one of the user's sessions into account, whatever has become of it.
 */
void
sm_seen_session(SmSeen *seen, const SmSession *session)
{
	SmClient	known = {session->ip, session->user_agent};

	if (seen->matters && !seen->familiar && seen->rows_left-- > 0 &&
		session->actor_session_id == NULL)
		compare(seen, &known);
}

/*
 * Look at the user's sessions, where the caller does not do so anyway.  From
 * the end of the index: rows usually are where they have been added.
 */
void
sm_seen_sessions(SmSeen *seen, const SmSchema *schema, text *user_id)
{
	Relation	rel;
	Relation	index;
	TupleTableSlot *slot = NULL;
	ScanKeyData key;
	IndexScanDesc scan;

	if (!seen->matters)
		return;
	rel = table_open(schema->sessions, RowExclusiveLock);
	index = index_open(schema->sessions_user_idx, RowExclusiveLock);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(user_id));
	scan = sm_index_beginscan(rel, index, SnapshotSelf, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (!seen->familiar && seen->rows_left-- > 0 &&
		   index_getnext_tid(scan, BackwardScanDirection) != NULL)
	{
		SmClient	known = sm_no_client;
		Datum		value;
		bool		isnull;

		if (slot == NULL)
			slot = table_slot_create(rel, NULL);
		if (!index_fetch_heap(scan, slot) ||
			!slot_attisnull(slot, Anum_actor_session_id))
			continue;
		value = slot_getattr(slot, Anum_user_agent, &isnull);
		if (!isnull)
			known.user_agent = DatumGetTextPP(value);
		value = slot_getattr(slot, Anum_ip, &isnull);
		if (!isnull)
			known.ip = DatumGetInetPP(value);
		compare(seen, &known);
	}
	index_endscan(scan);
	if (slot != NULL)
		ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	table_close(rel, NoLock);
}

/*
 * Is this a new device?  To be asked once the sessions have been looked at.
 */
bool
sm_seen_is_new(SmSeen *seen, const SmSchema *schema, text *user_id)
{
	if (seen->matters && !seen->familiar)
		look_at_events(seen, schema, user_id);
	return seen->matters && seen->before && !seen->familiar;
}

/*
 * What an event tells of the client: what there is of "browser", "system" and
 * "network".
 */
Jsonb *
sm_seen_detail(SmSeen *seen)
{
	JsonbParseState *detail = sm_detail_begin();

	parse(seen);
	if (seen->device.browser_len > 0)
		sm_detail_text(&detail, "browser",
					   cstring_to_text_with_len(seen->device.browser,
												seen->device.browser_len));
	if (seen->device.system[0] != '\0')
		sm_detail_cstring(&detail, "system", seen->device.system);
	if (seen->client.ip != NULL)
		sm_detail_cstring(&detail, "network", sm_network_text(&seen->network));
	return sm_detail_end(&detail);
}

/* Compare the client with one that the user has been seen with. */
static void
compare(SmSeen *seen, const SmClient *known)
{
	seen->before = true;
	seen->familiar = same_network(seen, known->ip) ||
		same_device(seen, known->user_agent);
}

static bool
same_network(const SmSeen *seen, inet *known)
{
	SmNetwork	network;

	if (known == NULL || seen->client.ip == NULL)
		return known == seen->client.ip;
	network = sm_network(known);
	return sm_network_equal(&network, &seen->network);
}

static bool
same_device(SmSeen *seen, const text *known)
{
	const text *user_agent = seen->client.user_agent;
	SmDevice	device;

	if (!is_given(known) || !is_given(user_agent))
		return is_given(known) == is_given(user_agent);
	if (VARSIZE_ANY_EXHDR(known) == VARSIZE_ANY_EXHDR(user_agent) &&
		memcmp(VARDATA_ANY(known), VARDATA_ANY(user_agent),
			   VARSIZE_ANY_EXHDR(known)) == 0)
		return true;
	parse(seen);
	device = device_of(known);
	return sm_device_equal(&device, &seen->device);
}

/* Parse the client's user agent, which most logins do not need. */
static void
parse(SmSeen *seen)
{
	if (!seen->parsed)
		seen->device = device_of(seen->client.user_agent);
	seen->parsed = true;
}

static SmDevice
device_of(const text *user_agent)
{
	return is_given(user_agent) ?
		sm_device(VARDATA_ANY(user_agent), VARSIZE_ANY_EXHDR(user_agent)) :
		sm_device("", 0);
}

static bool
is_given(const text *user_agent)
{
	return user_agent != NULL && VARSIZE_ANY_EXHDR(user_agent) > 0;
}

/*
 * Look at the user's events in each partition, newest first, and in the
 * default partition last: there, only a server without maintenance has more
 * than very few.
 */
static void
look_at_events(SmSeen *seen, const SmSchema *schema, text *user_id)
{
	Relation	parent = table_open(schema->events, RowExclusiveLock);
	PartitionDesc desc = RelationGetPartitionDesc(parent, true);
	PartitionBoundInfo bounds = desc->boundinfo;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz since = DT_NOBEGIN;
	int			partitions_left = MAX_PARTITIONS;

	if (sm_event_retention > 0)
		since = now - (int64) sm_event_retention * USECS_PER_SEC;
	/* the partition at index i is for what comes before bound i */
	for (int i = bounds ? bounds->ndatums : -1; i >= 0 && !seen->familiar; i--)
	{
		if (i < bounds->ndatums &&
			bounds->kind[i][0] == PARTITION_RANGE_DATUM_VALUE &&
			DatumGetTimestampTz(bounds->datums[i][0]) <= since)
			break;
		if (i > 0 && bounds->kind[i - 1][0] == PARTITION_RANGE_DATUM_VALUE &&
			DatumGetTimestampTz(bounds->datums[i - 1][0]) > now)
			continue;
		if (bounds->indexes[i] < 0)
			continue;
		if (partitions_left-- == 0)
			break;
		look_at_partition(seen, parent, desc->oids[bounds->indexes[i]],
						  user_id, since);
	}
	if (bounds && bounds->default_index >= 0 && !seen->familiar)
		look_at_partition(seen, parent, desc->oids[bounds->default_index],
						  user_id, since);
	table_close(parent, NoLock);
}

static void
look_at_partition(SmSeen *seen, Relation parent, Oid relid, text *user_id,
				  TimestampTz since)
{
	Relation	rel;
	EventColumns columns;

	if (seen->events_left <= 0 ||
		!ConditionalLockRelationOid(relid, AccessShareLock))
		return;
	rel = try_relation_open(relid, NoLock);
	if (rel == NULL)
	{
		UnlockRelationOid(relid, AccessShareLock);
		return;
	}
	columns = find_columns(parent, rel);
	if (OidIsValid(columns.index) &&
		ConditionalLockRelationOid(columns.index, AccessShareLock))
	{
		Relation	index = index_open(columns.index, NoLock);
		TupleTableSlot *slot = NULL;
		ScanKeyData key;
		IndexScanDesc scan;
		bool		goes_on = true;

		/*
		 * Not by time as well: a key more would be compared with each entry
		 * of the user's on the page, where the first one usually is enough.
		 */
		ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ,
					PointerGetDatum(user_id));
		scan = sm_index_beginscan(rel, index, SnapshotSelf, 1);
		index_rescan(scan, &key, 1, NULL, 0);
		while (goes_on && !seen->familiar && seen->events_left-- > 0 &&
			   index_getnext_tid(scan, BackwardScanDirection) != NULL)
		{
			if (slot == NULL)
				slot = table_slot_create(rel, NULL);
			if (index_fetch_heap(scan, slot))
				goes_on = look_at_event(seen, slot, &columns, since);
		}
		index_endscan(scan);
		if (slot != NULL)
			ExecDropSingleTupleTableSlot(slot);
		index_close(index, AccessShareLock);
	}
	relation_close(rel, AccessShareLock);
}

/*
 * Take an event into account if its client was the user's; false for one from
 * before since, as are those that follow it in the index.
 */
static bool
look_at_event(SmSeen *seen, TupleTableSlot *slot, const EventColumns *columns,
			  TimestampTz since)
{
	static const SmEventType uses[] = {
		SM_EVENT_CREATED, SM_EVENT_REFRESHED, SM_EVENT_ROTATED
	};
	SmClient	known = sm_no_client;
	bool		is_use = false;
	bool		isnull;
	Datum		value = slot_getattr(slot, columns->at, &isnull);

	if (DatumGetTimestampTz(value) < since)
		return false;
	value = slot_getattr(slot, columns->event, &isnull);
	for (int i = 0; i < (int) lengthof(uses) && !isnull && !is_use; i++)
	{
		const text *event = DatumGetTextPP(value);
		const char *name = sm_event_name(uses[i]);

		is_use = VARSIZE_ANY_EXHDR(event) == strlen(name) &&
			memcmp(VARDATA_ANY(event), name, strlen(name)) == 0;
	}
	if (!is_use && seen->before)
		return true;
	/* who acted for the user did so from a device of their own */
	value = slot_getattr(slot, columns->detail, &isnull);
	if (!isnull && sm_detail_has(DatumGetJsonbP(value), "actor"))
		return true;
	seen->before = true;
	if (!is_use)
		return true;
	value = slot_getattr(slot, columns->ip, &isnull);
	if (!isnull)
		known.ip = DatumGetInetPP(value);
	value = slot_getattr(slot, columns->user_agent, &isnull);
	if (!isnull)
		known.user_agent = DatumGetTextPP(value);
	compare(seen, &known);
	return true;
}

/*
 * A partition has changed, or its indexes have: forget what was looked up.
 */
static void
partition_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == looked_up)
		looked_up = InvalidOid;
	if (!OidIsValid(relid))
		memset(known_columns, 0, sizeof(known_columns));
	else if (known_columns[relid % N_KNOWN].partition == relid)
		known_columns[relid % N_KNOWN].partition = InvalidOid;
}

/*
 * The columns of a partition, which may be in another order than its parent's,
 * and its index; none if an owner has attached what is no table.
 */
static EventColumns
find_columns(Relation parent, Relation partition)
{
	Oid			relid = RelationGetRelid(partition);
	EventColumns columns = known_columns[relid % N_KNOWN];

	if (columns.partition == relid)
		return columns;
	looked_up = columns.partition = relid;
	columns.user_id = find_column(parent, partition, Anum_event_user_id);
	columns.at = find_column(parent, partition, Anum_event_at);
	columns.event = find_column(parent, partition, Anum_event_event);
	columns.ip = find_column(parent, partition, Anum_event_ip);
	columns.user_agent = find_column(parent, partition, Anum_event_user_agent);
	columns.detail = find_column(parent, partition, Anum_event_detail);
	columns.index = InvalidOid;
	if (partition->rd_rel->relkind == RELKIND_RELATION)
		columns.index = find_index(partition, &columns);
	if (looked_up == relid)
		known_columns[relid % N_KNOWN] = columns;
	return columns;
}

static AttrNumber
find_column(Relation parent, Relation partition, AttrNumber attnum)
{
	TupleDesc	desc = RelationGetDescr(partition);
	const char *name = NameStr(TupleDescAttr(RelationGetDescr(parent), attnum - 1)->attname);

	if (attnum <= desc->natts &&
		!TupleDescAttr(desc, attnum - 1)->attisdropped &&
		strcmp(NameStr(TupleDescAttr(desc, attnum - 1)->attname), name) == 0)
		return attnum;
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped &&
			strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
			return i + 1;
	elog(ERROR, "partition \"%s\" has no column \"%s\"",
		 RelationGetRelationName(partition), name);
}

/*
 * The index of a partition by user and time.  There is none in a partition
 * that somebody else has made without it.
 */
static Oid
find_index(Relation partition, const EventColumns *columns)
{
	List	   *indexes = RelationGetIndexList(partition);
	ListCell   *lc;
	Oid			found = InvalidOid;

	foreach(lc, indexes)
	{
		if (serves(lfirst_oid(lc), columns))
		{
			found = lfirst_oid(lc);
			break;
		}
	}
	list_free(indexes);
	return found;
}

/* From the catalogue's caches: opening each index to look would cost more. */
static bool
serves(Oid index, const EventColumns *columns)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	bool		good;
	Form_pg_index form;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_index) GETSTRUCT(tuple);
	good = form->indnkeyatts >= 2 &&
		form->indkey.values[0] == columns->user_id &&
		form->indkey.values[1] == columns->at &&
		form->indislive && form->indisready && form->indisvalid &&
		heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
	if (good)
	{
		oidvector  *classes = index_vector(tuple, Anum_pg_index_indclass);
		oidvector  *collations = index_vector(tuple, Anum_pg_index_indcollation);
		int2vector *options = index_vector(tuple, Anum_pg_index_indoption);

		/* those of a B-tree */
		good = classes->values[0] == TEXT_BTREE_OPS_OID &&
			classes->values[1] == TIMESTAMPTZ_BTREE_OPS_OID &&
			collations->values[0] == C_COLLATION_OID &&
			options->values[0] == 0 && options->values[1] == 0;
	}
	ReleaseSysCache(tuple);
	return good;
}

/* A column of pg_index that is never null, and never out of line. */
static void *
index_vector(HeapTuple tuple, AttrNumber attnum)
{
	bool		isnull;

	return DatumGetPointer(SysCacheGetAttr(INDEXRELID, tuple, attnum, &isnull));
}
