/*-------------------------------------------------------------------------
 *
 * store.c
 *	  Rows of user_sessions, reached directly through the table and index
 *	  access methods.
 *
 * Everything here reads under the latest snapshot, not the transaction's: a
 * revocation that has committed is seen by the very next call, inside a
 * REPEATABLE READ transaction as well.  A row is locked before it is written,
 * following it to its newest version, and its decoded form then is that
 * version's; whatever was checked before must be checked again.  No write
 * here can therefore fail with a serialization error at REPEATABLE READ.
 *
 * Access is not checked against table privileges: EXECUTE on the calling
 * function is what counts.  What the table's owner has added holds, by way of
 * writer.c.  The extension's own triggers, which report other writes to the
 * cache, are skipped where there are no others: what is written here is
 * recorded here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "cache/cache.h"
#include "cache/columns.h"
#include "cache/writer.h"
#include "compat.h"
#include "keys/keyring.h"
#include "session/store.h"
#include "session/touch.h"

/* How far to look for the first row that the sweep has to look at. */
#define FIRST_ENTRIES		500

#define BIT(column)	(UINT32_C(1) << (Anum_##column - 1))

StaticAssertDecl(Natts_user_sessions <= 32, "columns of user_sessions do not fit into a word");

/* Columns that are never null in a row as it was written. */
#define REQUIRED_COLUMNS \
	(BIT(session_id) | BIT(created_at) | BIT(authenticated_at) | \
	 BIT(absolute_expires_at) | BIT(sweep_at) | BIT(ttl) | BIT(last_seen_at) | \
	 BIT(expires_at) | BIT(version) | BIT(key_id) | BIT(verifier_key_id) | \
	 BIT(verifier) | BIT(sealed_data) | BIT(user_id))

/* What tells the life of a session lies up to this column, or is null if all is usual. */
#define LAST_LIFE_COLUMN	Anum_verifier_key_id

static void scan_begin(SmScan *scan, const SmSchema *schema, Oid indexid,
					   int n_keys, LOCKMODE lockmode);
static bool next_row(SmScan *scan);
static bool next_by_index(SmScan *scan);
static void forget_last_row(SmScan *scan);
static ItemPointer next_entry(SmScan *scan);
static void prefetch_page(HeapScanDesc scan);
static bool decode_life(SmScan *scan);
static void decode_columns(SmSession *session, const Datum *values,
						   const bool *nulls);
static void bind_state(SmScan *scan, SmChanges *changes);
static bool state_of(const SmSession *session, SmState *state);
static Datum make_state_mac(const SmSchema *schema, const SmSession *session);
static void prepare_write(SmScan *scan);
static bool lock_as_it_is(SmScan *scan, ItemPointerData *tid);
static TM_Result delete_row(SmScan *scan, ItemPointerData *tid, bool wait);
static void must_have(bool written);
static void seal_context(const SmSession *session, SmSealContext *context);
static bool text_equal(const text *a, const text *b);

/*
 * Start looking for the row of a session id.
 */
void
sm_scan_by_id(SmScan *scan, const SmSchema *schema, const uint8 *id,
			  LOCKMODE lockmode)
{
	ScanKeyInit(&scan->keys[0], 1, BTEqualStrategyNumber, F_UUID_EQ,
				UUIDPGetDatum((const pg_uuid_t *) id));
	scan_begin(scan, schema, schema->sessions_pkey, 1, lockmode);
}

/*
 * Start looking for a user's rows.
 */
void
sm_scan_by_user(SmScan *scan, const SmSchema *schema, text *user_id,
				LOCKMODE lockmode)
{
	ScanKeyInit(&scan->keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(user_id));
	scan_begin(scan, schema, schema->sessions_user_idx, 1, lockmode);
}

/*
 * Start looking for a tenant's rows.
 */
void
sm_scan_by_tenant(SmScan *scan, const SmSchema *schema, text *tenant_id,
				  LOCKMODE lockmode)
{
	ScanKeyInit(&scan->keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(tenant_id));
	scan_begin(scan, schema, schema->sessions_tenant_idx, 1, lockmode);
}

/*
 * Start looking for rows that the sweep has to look at, most overdue first,
 * behind a position.
 */
void
sm_scan_by_sweep_at(SmScan *scan, const SmSchema *schema,
					const SmSweepPosition *from, TimestampTz until)
{
	ScanKeyInit(&scan->keys[0], 1, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(from->at));
	ScanKeyInit(&scan->keys[1], 1, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(until));
	scan_begin(scan, schema, schema->sessions_sweep_idx, 2, RowExclusiveLock);
	if (ItemPointerIsValid(&from->row))
	{
		/* next_entry looks at the keys */
		scan->behind = *from;
		scan->index_scan->xs_want_itup = true;
		index_rescan(scan->index_scan, scan->keys, 2, NULL, 0);
	}
}

/*
 * Where a scan by sweep_at stands.
 */
void
sm_scan_position(SmScan *scan, SmSweepPosition *position)
{
	position->at = scan->session.sweep_at;
	position->row = scan->entry;
}

/*
 * The first time, not before "from", at which the sweep has to look at a row.
 * Gives up after FIRST_ENTRIES entries of the index whose rows are gone.
 */
SmFirst
sm_scan_first_sweep_at(const SmSchema *schema, TimestampTz from,
					   TimestampTz *at)
{
	SmScan		scan;
	SmFirst		found = SM_FIRST_FAR;

	ScanKeyInit(&scan.keys[0], 1, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(from));
	scan_begin(&scan, schema, schema->sessions_sweep_idx, 1, AccessShareLock);
	for (int i = 0; i < FIRST_ENTRIES && found == SM_FIRST_FAR; i++)
	{
		bool		isnull;

		if (index_getnext_tid(scan.index_scan, ForwardScanDirection) == NULL)
			found = SM_FIRST_NONE;
		else if (index_fetch_heap(scan.index_scan, scan.slot))
		{
			*at = DatumGetTimestampTz(slot_getattr(scan.slot, Anum_sweep_at, &isnull));
			found = SM_FIRST_FOUND;
		}
	}
	sm_scan_end(&scan);
	return found;
}

/*
 * Start looking at all rows by id, from the first above the given one.
 */
void
sm_scan_from_id(SmScan *scan, const SmSchema *schema, const uint8 *id)
{
	ScanKeyInit(&scan->keys[0], 1, BTGreaterStrategyNumber, F_UUID_GT,
				UUIDPGetDatum((const pg_uuid_t *) id));
	scan_begin(scan, schema, schema->sessions_pkey, 1, RowExclusiveLock);
}

/*
 * Start looking at all rows, in the order of the table.
 */
void
sm_scan_all(SmScan *scan, const SmSchema *schema, LOCKMODE lockmode)
{
	scan_begin(scan, schema, InvalidOid, 0, lockmode);
}

/*
 * How many blocks the table has.
 */
BlockNumber
sm_scan_blocks(SmScan *scan)
{
	return RelationGetNumberOfBlocks(scan->rel);
}

/*
 * Have a scan of all rows look at those of one block.
 */
void
sm_scan_block(SmScan *scan, BlockNumber block)
{
	ItemPointerData first;
	ItemPointerData last;

	ItemPointerSet(&first, block, FirstOffsetNumber);
	ItemPointerSet(&last, block, MaxOffsetNumber);
	if (scan->one_block)
		table_rescan_tidrange(scan->table_scan, &first, &last);
	else
	{
		table_endscan(scan->table_scan);
		scan->table_scan = table_beginscan_tidrange(scan->rel, scan->snapshot,
													&first, &last);
		scan->one_block = true;
	}
}

/*
 * Go to the next row and decode it; false at the end.
 */
bool
sm_scan_next(SmScan *scan)
{
	if (!next_row(scan))
		return false;
	forget_last_row(scan);
	sm_scan_decode(scan);
	return true;
}

/*
 * Go to the next row and decode only what sm_session_own_life looks at, and the
 * session of an actor; false at the end.  It does not know of uses that have
 * not been written yet: a session that seems idle has to be decoded as a whole.
 */
bool
sm_scan_next_life(SmScan *scan)
{
	if (!next_row(scan))
		return false;
	forget_last_row(scan);
	if (scan->table_scan && ((HeapScanDesc) scan->table_scan)->rs_cindex == 0)
		prefetch_page((HeapScanDesc) scan->table_scan);
	if (!decode_life(scan))
		sm_scan_decode(scan);
	return true;
}

/*
 * Decode the row that the scan stands on, with what has been recorded of it and
 * not been written yet.
 */
void
sm_scan_decode(SmScan *scan)
{
	SmSession  *session = &scan->session;
	TimestampTz seen;
	TimestampTz successor_used;

	slot_getallattrs(scan->slot);
	if (scan->row_context)
	{
		MemoryContext old = MemoryContextSwitchTo(scan->row_context);

		decode_columns(session, scan->slot->tts_values, scan->slot->tts_isnull);
		MemoryContextSwitchTo(old);
	}
	else
		decode_columns(session, scan->slot->tts_values, scan->slot->tts_isnull);
	scan->stored_last_seen_at = session->last_seen_at;
	scan->noted_successor_used_at = 0;
	if (sm_touch_seen(session->session_id, session->rotated_at, &seen,
					  &successor_used))
	{
		session->last_seen_at = Max(session->last_seen_at, seen);
		if (session->rotated && successor_used != 0)
		{
			session->successor_used = true;
			if (!session->successor_stored)
				scan->noted_successor_used_at = successor_used;
		}
	}
}

/*
 * Lock the newest version of the row that the scan stands on, and decode it.
 * False if it is gone, or locked by somebody else and we are not to wait.
 *
 * A key-share lock waits for no update.  It is to hold on the version that the
 * update makes as well: otherwise whoever deletes the row would not meet it
 * once the update has committed.  (If the transaction that updates goes on to
 * delete the row, this is waited for, whatever "wait" says.)
 */
bool
sm_scan_lock(SmScan *scan, LockTupleMode mode, LockWaitPolicy wait)
{
	TM_FailureData failure;
	ItemPointerData tid = scan->slot->tts_tid;
	uint8		flags = TUPLE_LOCK_FLAG_FIND_LAST_VERSION;
	TM_Result	result;

	if (mode == LockTupleKeyShare)
		flags |= TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS;
	result = table_tuple_lock(scan->rel, &tid, scan->snapshot, scan->slot,
							  GetCurrentCommandId(false), mode, wait,
							  flags, &failure);
	switch (result)
	{
		case TM_Ok:
			sm_scan_decode(scan);
			return true;
		case TM_Deleted:
		case TM_WouldBlock:
			return false;
		default:
			elog(ERROR, "unexpected result of locking a session: %d",
				 (int) result);
	}
}

/*
 * Write changes to the row that the scan stands on and has locked.  With them
 * goes a first use of its token that only shared memory knows of: a use that
 * has been acknowledged as written must not be one that a crash forgets, or a
 * replay would be taken for a lost answer.
 */
void
sm_scan_update(SmScan *scan, SmChanges *changes)
{
	int			columns[Natts_user_sessions];
	Datum		values[Natts_user_sessions];
	bool		nulls[Natts_user_sessions];
	SmNewValues new = {0, columns, values, nulls};

	/* it is bound to the rest of the row, which takes the key */
	if (scan->noted_successor_used_at != 0 &&
		!changes->replaces[Anum_successor_used_at - 1] &&
		sm_key_present(scan->schema, scan->session.key_id))
		sm_change(changes, Anum_successor_used_at,
				  TimestampTzGetDatum(scan->noted_successor_used_at));
	bind_state(scan, changes);
	for (int i = 0; i < Natts_user_sessions; i++)
		if (changes->replaces[i])
		{
			columns[new.n] = i + 1;
			values[new.n] = changes->values[i];
			nulls[new.n++] = changes->nulls[i];
		}
	prepare_write(scan);
	must_have(sm_writer_update(scan->writer, scan->slot, scan->snapshot, &new));
	CommandCounterIncrement();
	if (sm_cache_in_use() &&
		sm_cache_changes_matter(changes->replaces, changes->values,
								scan->session.expires_at))
		sm_cache_session_changed(scan->schema, scan->session.session_id);
}

/*
 * Delete the row that the scan stands on, in the version that it shows.  If
 * it has been locked this cannot fail; otherwise false if somebody is at it,
 * or has been: then it is not what was looked at.
 *
 * What is deleted without a lock has ended, and no cache holds it: it was taken
 * out when it was revoked, or was not to be kept there to its end.
 */
bool
sm_scan_delete(SmScan *scan, bool locked)
{
	ItemPointerData tid = scan->slot->tts_tid;
	TM_Result	result;

	if (!sm_cache_only_trigger(scan->rel))
	{
		if (!locked && !lock_as_it_is(scan, &tid))
			return false;
		prepare_write(scan);
		must_have(sm_writer_delete(scan->writer, scan->slot, scan->snapshot));
	}
	else
	{
		/* without triggers there is nothing to add, nor is a lock needed */
		CheckCmdReplicaIdentity(scan->rel, CMD_DELETE);
		result = delete_row(scan, &tid, locked);
		/* it may be this transaction that is at it, with an event */
		if (result == TM_BeingModified && lock_as_it_is(scan, &tid))
			result = delete_row(scan, &tid, true);
		if (locked && result != TM_Ok)
			elog(ERROR, "could not delete a session that is locked");
		if (result != TM_Ok)
			return false;
	}
	if (locked && sm_cache_in_use())
		sm_cache_session_changed(scan->schema, scan->session.session_id);
	return true;
}

/*
 * End a scan and the writing that was done in it.
 */
void
sm_scan_end(SmScan *scan)
{
	if (scan->writer)
		sm_writer_end(scan->writer);
	if (scan->index_scan)
	{
		index_endscan(scan->index_scan);
		index_close(scan->index, NoLock);
	}
	else
		table_endscan(scan->table_scan);
	if (scan->row_context)
		MemoryContextDelete(scan->row_context);
	ExecDropSingleTupleTableSlot(scan->slot);
	UnregisterSnapshot(scan->snapshot);
	table_close(scan->rel, NoLock);
}

/*
 * Is the row that the scan stands on the only one that anybody could see?
 * Not if we wrote it ourselves in this transaction, or if somebody is at it.
 */
bool
sm_scan_row_is_settled(SmScan *scan)
{
	BufferHeapTupleTableSlot *slot = (BufferHeapTupleTableSlot *) scan->slot;
	HeapTupleHeader header = slot->base.tuple->t_data;
	TransactionId xmax = InvalidTransactionId;
	uint16		infomask;

	LockBuffer(slot->buffer, BUFFER_LOCK_SHARE);
	infomask = header->t_infomask;
	if (!(infomask & HEAP_XMAX_INVALID) && !HEAP_XMAX_IS_LOCKED_ONLY(infomask))
		xmax = HeapTupleHeaderGetUpdateXid(header);
	LockBuffer(slot->buffer, BUFFER_LOCK_UNLOCK);

	if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(header)))
		return false;
	return !TransactionIdIsValid(xmax) ||
		(!TransactionIdIsCurrentTransactionId(xmax) &&
		 !TransactionIdIsInProgress(xmax) &&
		 !TransactionIdDidCommit(xmax));
}

/*
 * Has this transaction written or locked the row that the scan stands on?  A
 * key-share lock, which others may hold too, does not count.
 */
bool
sm_scan_row_is_ours(SmScan *scan)
{
	BufferHeapTupleTableSlot *slot = (BufferHeapTupleTableSlot *) scan->slot;
	HeapTupleHeader header = slot->base.tuple->t_data;
	TransactionId xmin;
	TransactionId xmax;
	uint16		infomask;
	MultiXactMember *members;
	int			n;
	bool		ours = false;

	LockBuffer(slot->buffer, BUFFER_LOCK_SHARE);
	infomask = header->t_infomask;
	xmin = HeapTupleHeaderGetXmin(header);
	xmax = HeapTupleHeaderGetRawXmax(header);
	LockBuffer(slot->buffer, BUFFER_LOCK_UNLOCK);

	if (TransactionIdIsCurrentTransactionId(xmin))
		return true;
	if (infomask & HEAP_XMAX_INVALID)
		return false;
	if (!(infomask & HEAP_XMAX_IS_MULTI))
		return !HEAP_XMAX_IS_KEYSHR_LOCKED(infomask) &&
			TransactionIdIsCurrentTransactionId(xmax);

	/* our pin keeps the row, and so its members, from being frozen */
	n = GetMultiXactIdMembers(xmax, &members, false,
							  HEAP_XMAX_IS_LOCKED_ONLY(infomask));
	for (int i = 0; i < n && !ours; i++)
		ours = members[i].status != MultiXactStatusForKeyShare &&
			TransactionIdIsCurrentTransactionId(members[i].xid);
	if (n > 0)
		pfree(members);
	return ours;
}

/*
 * Insert a row, all of it but its MAC.
 */
void
sm_store_insert(const SmSchema *schema, Datum *values, bool *nulls)
{
	Relation	rel = table_open(schema->sessions, RowExclusiveLock);
	SmWriter   *writer = sm_writer_begin(rel, rel, Natts_user_sessions);
	SmSession	session;

	decode_columns(&session, values, nulls);
	values[Anum_state_mac - 1] = make_state_mac(schema, &session);
	nulls[Anum_state_mac - 1] = false;
	must_have(sm_writer_insert(writer, values, nulls));
	sm_writer_end(writer);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

void
sm_change(SmChanges *changes, int attnum, Datum value)
{
	changes->values[attnum - 1] = value;
	changes->nulls[attnum - 1] = false;
	changes->replaces[attnum - 1] = true;
}

void
sm_change_null(SmChanges *changes, int attnum)
{
	changes->nulls[attnum - 1] = true;
	changes->replaces[attnum - 1] = true;
}

/*
 * Change the address and the user agent to what is known of them.
 */
void
sm_change_client(SmChanges *changes, const SmClient *client)
{
	if (client->ip)
		sm_change(changes, Anum_ip, InetPGetDatum(client->ip));
	if (client->user_agent)
		sm_change(changes, Anum_user_agent, PointerGetDatum(client->user_agent));
}

/*
 * Is a session a user's?  Every session is the NULL user's.
 */
bool
sm_session_of_user(const SmSession *session, const text *user_id)
{
	return user_id == NULL || text_equal(session->user_id, user_id);
}

/*
 * Is a session one of a tenant's?  Every session is of the NULL tenant.
 */
bool
sm_session_of_tenant(const SmSession *session, const text *tenant_id)
{
	return tenant_id == NULL ||
		(session->tenant_id != NULL && text_equal(session->tenant_id, tenant_id));
}

/*
 * Who owns a session.  False if the row lacks something, or holds a name
 * longer than any that was ever written: somebody else wrote it.
 */
bool
sm_session_owner(const SmSession *session, SmOwner *owner)
{
	owner->session_id = session->session_id->data;
	owner->user_id = VARDATA_ANY(session->user_id);
	owner->user_len = VARSIZE_ANY_EXHDR(session->user_id);
	owner->tenant_id = NULL;
	owner->tenant_len = 0;
	if (session->tenant_id)
	{
		owner->tenant_id = VARDATA_ANY(session->tenant_id);
		owner->tenant_len = VARSIZE_ANY_EXHDR(session->tenant_id);
	}
	owner->absolute_expires_at = session->absolute_expires_at;
	return !session->malformed && owner->user_len <= SM_MAX_NAME_LEN &&
		owner->tenant_len <= SM_MAX_NAME_LEN;
}

/*
 * Does the MAC of a session's row fit it?  Not once the session is revoked,
 * nor if somebody else has changed the row.  SM003 if the key is not there.
 */
bool
sm_session_intact(const SmSchema *schema, const SmSession *session)
{
	SmState		state;
	uint8		mac[SM_STATE_MAC_LEN];

	if (session->state_mac == NULL ||
		VARSIZE_ANY_EXHDR(session->state_mac) != SM_STATE_MAC_LEN ||
		!state_of(session, &state))
		return false;
	sm_state_mac(sm_key_usable(schema, session->key_id)->subkeys.state,
				 &state, mac);
	return sm_equal(mac, VARDATA_ANY(session->state_mac), SM_STATE_MAC_LEN);
}

/*
 * Open a session's content.  False if it is not what was sealed for this row;
 * SM003 if the key is not there.
 */
bool
sm_session_open(const SmSchema *schema, const SmSession *session,
				SmContent *content)
{
	const SmKey *key;
	SmSealContext context;
	bytea	   *sealed;
	bool		opened;

	if (!sm_session_owner(session, &context.owner))
		return false;
	key = sm_key_usable(schema, session->key_id);
	seal_context(session, &context);
	context.key_id = session->key_id;
	sealed = DatumGetByteaPP(session->sealed_data);
	opened = sm_open(key->subkeys.seal, &context, sealed, content);
	if ((Pointer) sealed != DatumGetPointer(session->sealed_data))
		pfree(sealed);
	return opened;
}

/*
 * Seal content for a session's row, as its other fields now are, under the
 * active key; sets the id of that.
 */
Datum
sm_session_seal(const SmSchema *schema, const SmSession *session,
				const SmContent *content, int32 *key_id)
{
	const SmKey *key = sm_key_active(schema);
	SmSealContext context;

	if (!sm_session_owner(session, &context.owner))
		elog(ERROR, "name of a session's owner is too long");
	seal_context(session, &context);
	context.key_id = *key_id = key->id;
	return PointerGetDatum(sm_seal(key->subkeys.seal, &context, content));
}

static void
scan_begin(SmScan *scan, const SmSchema *schema, Oid indexid,
		   int n_keys, LOCKMODE lockmode)
{
	scan->schema = schema;
	scan->context = CurrentMemoryContext;
	scan->writer = NULL;
	ItemPointerSetInvalid(&scan->behind.row);
	scan->index = NULL;
	scan->index_scan = NULL;
	scan->table_scan = NULL;
	scan->rel = table_open(schema->sessions, lockmode);
	scan->snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan->slot = table_slot_create(scan->rel, NULL);
	if (OidIsValid(indexid))
	{
		scan->index = index_open(indexid, lockmode);
		scan->index_scan = sm_index_beginscan(scan->rel, scan->index,
											  scan->snapshot, n_keys);
		index_rescan(scan->index_scan, scan->keys, n_keys, NULL, 0);
	}
	else
		scan->table_scan = table_beginscan(scan->rel, scan->snapshot, 0, NULL);
	scan->one_block = false;
	scan->has_row = false;
	scan->row_context = NULL;
}

/* As index_getnext_slot, except for what next_entry does. */
static bool
next_row(SmScan *scan)
{
	if (scan->index_scan)
		return next_by_index(scan);
	if (scan->one_block)
		return table_scan_getnextslot_tidrange(scan->table_scan,
											   ForwardScanDirection, scan->slot);
	return table_scan_getnextslot(scan->table_scan, ForwardScanDirection,
								  scan->slot);
}

static bool
next_by_index(SmScan *scan)
{
	ItemPointer tid;

	while ((tid = next_entry(scan)) != NULL)
	{
		/* fetching the row makes it that of the version that was found */
		scan->entry = *tid;
		if (index_fetch_heap(scan->index_scan, scan->slot))
			return true;
	}
	return false;
}

/*
 * Free what the decoded form of the row before took, as a scan may go through
 * millions.  Most scans find one row, and need no context of their own for it.
 */
static void
forget_last_row(SmScan *scan)
{
	if (scan->row_context)
		MemoryContextReset(scan->row_context);
	else if (scan->has_row)
		scan->row_context = AllocSetContextCreate(scan->context, "session_manager decoded row",
												  ALLOCSET_SMALL_SIZES);
	scan->has_row = true;
}

/*
 * The next index entry; NULL at the end.  Entries of one key are in the order
 * of what they point to: those up to where the scan is to begin are passed
 * over without a look at their rows, of which there may be any number.
 */
static ItemPointer
next_entry(SmScan *scan)
{
	IndexScanDesc index_scan = scan->index_scan;
	ItemPointer tid;

	while ((tid = index_getnext_tid(index_scan, ForwardScanDirection)) != NULL &&
		   ItemPointerIsValid(&scan->behind.row))
	{
		bool		isnull;
		Datum		at = index_getattr(index_scan->xs_itup, 1,
									   index_scan->xs_itupdesc, &isnull);

		if (DatumGetTimestampTz(at) == scan->behind.at &&
			ItemPointerCompare(tid, &scan->behind.row) <= 0)
		{
			CHECK_FOR_INTERRUPTS();
			continue;
		}
		ItemPointerSetInvalid(&scan->behind.row);
		break;
	}
	return tid;
}

/*
 * Have the processor fetch what decode_life reads of the rows of a page, when a
 * scan of the table comes to its first.  A count waits for memory more than it
 * computes: where a page has many rows, this halves its time.
 */
static void
prefetch_page(HeapScanDesc scan)
{
	Page		page = BufferGetPage(scan->rs_cbuf);

	for (int i = 0; i < (int) scan->rs_ntuples; i++)
	{
		const char *row = (const char *)
			PageGetItem(page, PageGetItemId(page, scan->rs_vistuples[i]));

		__builtin_prefetch(row);
		__builtin_prefetch(row + 64);
		__builtin_prefetch(row + 128);
	}
}

/*
 * Decode what tells the life of a session whose row has nothing unusual: all
 * that must be there, no idle timeout of its own, no actor.  False if it has.
 */
static bool
decode_life(SmScan *scan)
{
	TupleTableSlot *slot = scan->slot;
	SmSession  *session = &scan->session;
	HeapTupleHeader header = ((BufferHeapTupleTableSlot *) slot)->base.tuple->t_data;
	const bits8 *bits = header->t_bits;
	uint32		present;

	/* an ordinary row has nulls, and all of the columns */
	if (!(header->t_infomask & HEAP_HASNULL) ||
		HeapTupleHeaderGetNatts(header) < Natts_user_sessions)
		return false;
	present = bits[0] | bits[1] << 8 | bits[2] << 16 | (uint32) bits[3] << 24;
	if ((present & REQUIRED_COLUMNS) != REQUIRED_COLUMNS ||
		(present & (BIT(idle_timeout) | BIT(actor_session_id))) != 0)
		return false;

	slot_getsomeattrs(slot, LAST_LIFE_COLUMN);
#define VALUE(column)	slot->tts_values[Anum_##column - 1]
	session->absolute_expires_at = DatumGetTimestampTz(VALUE(absolute_expires_at));
	session->expires_at = DatumGetTimestampTz(VALUE(expires_at));
	session->last_seen_at = DatumGetTimestampTz(VALUE(last_seen_at));
	session->key_id = DatumGetInt32(VALUE(key_id));
	session->verifier_key_id = DatumGetInt32(VALUE(verifier_key_id));
#undef VALUE
	session->revoked = (present & BIT(revoked_at)) != 0;
	session->idle_timeout = 0;
	session->actor_session_id = NULL;
	return true;
}

/*
 * Decode a row.
 *
 * A constraint that is gone lets nulls in where none belong.  Such a row, or one
 * with an idle timeout that is none, expired before all time: no token works for it, no seal opens, and the
 * sweep deletes it.  What is null in it reads as nothing.
 */
static void
decode_columns(SmSession *session, const Datum *values, const bool *nulls)
{
	static pg_uuid_t no_id = {{0}};

#define VALUE(column)		values[Anum_##column - 1]
#define IS_NULL(column)		nulls[Anum_##column - 1]
#define TIME_OR_0(column)	(IS_NULL(column) ? 0 : DatumGetTimestampTz(VALUE(column)))
#define INT_OR_0(column)	(IS_NULL(column) ? 0 : DatumGetInt32(VALUE(column)))
#define VARLENA_OR_NULL(column) \
	(IS_NULL(column) ? NULL : PG_DETOAST_DATUM_PACKED(VALUE(column)))

	session->malformed = false;
	for (int i = 0; i < Natts_user_sessions; i++)
		session->malformed |= nulls[i] && (REQUIRED_COLUMNS >> i & 1) != 0;
	session->idle_timeout = 0;
	if (!IS_NULL(idle_timeout))
	{
		Interval   *interval = DatumGetIntervalP(VALUE(idle_timeout));

		/* as it was never written, it would go unnoticed by the MAC */
		session->malformed |= interval->time <= 0 || interval->day != 0 ||
			interval->month != 0;
		session->idle_timeout = interval->time;
	}

	session->session_id = IS_NULL(session_id) ? &no_id :
		DatumGetUUIDP(VALUE(session_id));
	session->created_at = TIME_OR_0(created_at);
	session->authenticated_at = TIME_OR_0(authenticated_at);
	session->last_seen_at = TIME_OR_0(last_seen_at);
	session->expires_at = session->malformed ? DT_NOBEGIN : TIME_OR_0(expires_at);
	session->absolute_expires_at = TIME_OR_0(absolute_expires_at);
	session->sweep_at = TIME_OR_0(sweep_at);
	session->ttl = IS_NULL(ttl) ? 0 : DatumGetIntervalP(VALUE(ttl))->time;
	session->version = INT_OR_0(version);
	session->key_id = INT_OR_0(key_id);
	session->verifier_key_id = INT_OR_0(verifier_key_id);
	session->user_id = VARLENA_OR_NULL(user_id);
	session->verifier = VARLENA_OR_NULL(verifier);
	session->sealed_data = IS_NULL(sealed_data) ? PointerGetDatum(NULL) :
		VALUE(sealed_data);
	session->tenant_id = VARLENA_OR_NULL(tenant_id);
	session->ip = IS_NULL(ip) ? NULL : DatumGetInetPP(VALUE(ip));
	session->user_agent = VARLENA_OR_NULL(user_agent);
	session->actor_session_id = IS_NULL(actor_session_id) ? NULL :
		DatumGetUUIDP(VALUE(actor_session_id));
	session->actor_id = VARLENA_OR_NULL(actor_id);
	session->device_binding_id = IS_NULL(device_binding_id) ? NULL :
		DatumGetUUIDP(VALUE(device_binding_id));
	session->device_bound_at = TIME_OR_0(device_bound_at);
	session->device_proved_at = TIME_OR_0(device_proved_at);
	session->rotated = !IS_NULL(rotated_at);
	session->rotated_at = TIME_OR_0(rotated_at);
	session->successor_used = IS_NULL(rotated_at) || !IS_NULL(successor_used_at);
	session->successor_stored = !IS_NULL(successor_used_at);
	session->successor_used_at = TIME_OR_0(successor_used_at);
	session->previous_valid_until = TIME_OR_0(previous_valid_until);
	session->previous_key_id = INT_OR_0(previous_key_id);
	session->previous_verifier = VARLENA_OR_NULL(previous_verifier);
	session->revoked = !IS_NULL(revoked_at);
	session->revoked_at = TIME_OR_0(revoked_at);
	session->revoked_reason = VARLENA_OR_NULL(revoked_reason);
	session->state_mac = VARLENA_OR_NULL(state_mac);
	if (session->user_id == NULL)
		session->user_id = cstring_to_text("");
}

/*
 * Let the MAC of a row follow changes to what it covers.  A revocation takes
 * the MAC away, which needs no key and leaves nothing that could be valid
 * again.  A row whose MAC does not fit it is never given one that does: what
 * somebody else wrote there is not made good by the next write.
 */
static void
bind_state(SmScan *scan, SmChanges *changes)
{
	static const int unbound[] = {
		Anum_last_seen_at, Anum_sweep_at, Anum_sealed_data, Anum_user_agent,
		Anum_revoked_reason, Anum_state_mac
	};
	Datum	   *old_values = scan->slot->tts_values;
	bool	   *old_nulls = scan->slot->tts_isnull;
	Datum		values[Natts_user_sessions];
	bool		nulls[Natts_user_sessions];
	SmSession	was;
	SmSession	becomes;
	bool		differs = false;

	slot_getallattrs(scan->slot);
	for (int i = 0; i < Natts_user_sessions; i++)
	{
		bool		bound = changes->replaces[i];

		values[i] = changes->replaces[i] ? changes->values[i] : old_values[i];
		nulls[i] = changes->replaces[i] ? changes->nulls[i] : old_nulls[i];
		for (int u = 0; bound && u < (int) lengthof(unbound); u++)
			bound = (unbound[u] != i + 1);
		if (bound)
		{
			Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(scan->rel), i);

			differs |= nulls[i] != old_nulls[i] ||
				(!nulls[i] && !datum_image_eq(values[i], old_values[i],
											  attribute->attbyval,
											  attribute->attlen));
		}
	}
	if (!differs)
		return;
	decode_columns(&was, old_values, old_nulls);
	decode_columns(&becomes, values, nulls);
	if (becomes.revoked)
		sm_change_null(changes, Anum_state_mac);
	else if (sm_session_intact(scan->schema, &was))
		sm_change(changes, Anum_state_mac,
				  make_state_mac(scan->schema, &becomes));
}

/*
 * What the MAC of a row covers.  False if the row holds what was never written
 * there.  Its seal needs no mention: that binds the version and the key's id.
 */
static bool
state_of(const SmSession *session, SmState *state)
{
	memset(state, 0, sizeof(*state));
	if (!sm_session_owner(session, &state->owner) ||
		VARSIZE_ANY_EXHDR(session->verifier) != SM_VERIFIER_LEN)
		return false;
	state->created_at = session->created_at;
	state->authenticated_at = session->authenticated_at;
	state->expires_at = session->expires_at;
	state->ttl = session->ttl;
	state->version = session->version;
	state->key_id = session->key_id;
	state->verifier_key_id = session->verifier_key_id;
	state->verifier = (uint8 *) VARDATA_ANY(session->verifier);
	if (session->ip)
	{
		state->ip = (uint8 *) VARDATA_ANY(session->ip);
		state->ip_len = VARSIZE_ANY_EXHDR(session->ip);
		if (state->ip_len > SM_MAX_IP_LEN)
			return false;
	}
	state->idle_timeout = session->idle_timeout;
	if (session->actor_session_id || session->actor_id)
	{
		if (session->actor_session_id == NULL || session->actor_id == NULL)
			return false;
		state->actor_session_id = session->actor_session_id->data;
		state->actor_id = VARDATA_ANY(session->actor_id);
		state->actor_len = VARSIZE_ANY_EXHDR(session->actor_id);
		if (state->actor_len > SM_MAX_NAME_LEN)
			return false;
	}
	if (session->device_binding_id)
	{
		state->device_binding_id = session->device_binding_id->data;
		state->device_bound_at = session->device_bound_at;
		state->device_proved_at = session->device_proved_at;
	}
	else if (session->device_bound_at != 0 || session->device_proved_at != 0)
		return false;
	state->rotated = session->rotated;
	state->successor_used = session->successor_stored;
	if (session->rotated)
	{
		if (session->previous_verifier == NULL ||
			VARSIZE_ANY_EXHDR(session->previous_verifier) != SM_VERIFIER_LEN)
			return false;
		state->rotated_at = session->rotated_at;
		state->successor_used_at = session->successor_used_at;
		state->previous_valid_until = session->previous_valid_until;
		state->previous_key_id = session->previous_key_id;
		state->previous_verifier = (uint8 *) VARDATA_ANY(session->previous_verifier);
		return true;
	}
	/* without a rotation there is nothing of one */
	return session->previous_verifier == NULL && !session->successor_stored &&
		session->previous_key_id == 0 && session->previous_valid_until == 0;
}

static Datum
make_state_mac(const SmSchema *schema, const SmSession *session)
{
	bytea	   *mac = palloc(VARHDRSZ + SM_STATE_MAC_LEN);
	SmState		state;

	if (!state_of(session, &state))
		elog(ERROR, "state of a session is not one that can be bound");
	SET_VARSIZE(mac, VARHDRSZ + SM_STATE_MAC_LEN);
	sm_state_mac(sm_key_usable(schema, session->key_id)->subkeys.state,
				 &state, (uint8 *) VARDATA(mac));
	return PointerGetDatum(mac);
}

/* Begin to write at the first write of a scan. */
static void
prepare_write(SmScan *scan)
{
	MemoryContext old;

	if (scan->writer)
		return;
	old = MemoryContextSwitchTo(scan->context);
	scan->writer = sm_writer_begin(scan->rel, scan->rel, Natts_user_sessions);
	MemoryContextSwitchTo(old);
}

/* Lock the row to delete it, unless there is a newer version than "tid". */
static bool
lock_as_it_is(SmScan *scan, ItemPointerData *tid)
{
	return sm_scan_lock(scan, LockTupleExclusive, LockWaitSkip) &&
		ItemPointerEquals(tid, &scan->slot->tts_tid);
}

static TM_Result
delete_row(SmScan *scan, ItemPointerData *tid, bool wait)
{
	TM_FailureData failure;

	return table_tuple_delete(scan->rel, tid, GetCurrentCommandId(true),
							  scan->snapshot, InvalidSnapshot, wait,
							  &failure, false);
}

/*
 * Was a row written?  A caller that is told that a session began or ended must
 * be able to rely on it.
 */
static void
must_have(bool written)
{
	if (!written)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a trigger on user_sessions suppressed the writing of a row"),
				 errhint("A BEFORE trigger on this table must return the row, or raise an error.")));
}

static void
seal_context(const SmSession *session, SmSealContext *context)
{
	context->version = (uint32) session->version;
	context->created_at = session->created_at;
	context->authenticated_at = session->authenticated_at;
	context->device_binding_id = session->device_binding_id ?
		session->device_binding_id->data : NULL;
}

static bool
text_equal(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}
