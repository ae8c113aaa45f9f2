/*-------------------------------------------------------------------------
 *
 * outbox.c
 *	  The outbox as the cache worker reads it: what has been committed.
 *
 * A row that is visible has been committed.  It gets a tombstone, and is
 * deleted when Redis has acknowledged that.  While no epoch is alive, rows are
 * deleted as they are: the next epoch is another.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/tuptable.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "cache/cache.h"
#include "cache/epoch.h"
#include "cache/outbox.h"
#include "cache/tombstone.h"
#include "cache/transaction.h"

#define MS				INT64CONST(1000)	/* of sm_clock() */

#define READ_US			(500 * MS)	/* without being told that there is
									 * something */
#define READ_SHARE		10		/* and at most a tenth of the time */
#define READ_SOON_US	(10 * MS)
#define TIDY_US			(50 * MS)	/* where nothing waits for it */

/* Rows that are read in one transaction. */
#define READ_ROWS		10000

/* A row of the table. */
typedef struct RowKey
{
	TransactionId xmin;
	pg_uuid_t	id;
} RowKey;

/* A row whose tombstone has been sent. */
typedef struct SentRow
{
	RowKey		key;
	int64		seen_at;		/* by sm_clock() */
	bool		acknowledged;
} SentRow;

static struct
{
	HTAB	   *sent;			/* of SentRow */
	int			n_unacknowledged;
	uint32		commits_seen;
	int64		read_at;		/* when to read it next */
	int64		last_read_at;
	int64		reading_us;		/* what that took */
	bool		empty;
}			outbox;

/* A reading of the table. */
typedef struct Reading
{
	Relation	rel;
	Snapshot	snapshot;
	bool		epoch_is_over;
	int			seen;
	int			left;			/* rows that stay in the table for now */
} Reading;

static void read_rows(Reading *reading);
static void take_row(Reading *reading, TupleTableSlot *slot);
static bool find_sent(TupleTableSlot *slot, RowKey *key, SentRow **row);
static void delete_row(Reading *reading, TupleTableSlot *slot);
static void send_row(const RowKey *key);
static void row_answered(const SmRequest *request, const SmRedisAnswer *answer);
static void forget_rows(bool only_acknowledged);

void
sm_outbox_init(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(RowKey);
	ctl.entrysize = sizeof(SentRow);
	outbox.sent = hash_create("session_manager outbox", 256, &ctl,
							  HASH_ELEM | HASH_BLOBS);
	outbox.commits_seen = pg_atomic_read_u32(&sm_cache->commits);
}

/*
 * Has anybody left something in the outbox since it was last read?
 */
bool
sm_outbox_has_news(void)
{
	return pg_atomic_read_u32(&sm_cache->commits) != outbox.commits_seen;
}

/*
 * There is something in the outbox, or something to be deleted.  In strict
 * mode Redis knows it already.  A table that cannot be vacuumed, because of an
 * old transaction, takes long to read: then this is done less often.
 */
void
sm_outbox_read_soon(void)
{
	bool		waiting = sm_redis_mode == SM_REDIS_ASYNC || sm_epoch_end_is_wanted();
	int64		gap = Min(outbox.reading_us * READ_SHARE,
						  waiting ? SM_CACHE_PATIENCE_US : READ_US);

	outbox.read_at = Min(outbox.read_at,
						 outbox.last_read_at + Max(gap, waiting ? READ_SOON_US : TIDY_US));
}

/*
 * No epoch is alive, so what is in the outbox may be deleted.
 */
void
sm_outbox_read_at_once(void)
{
	outbox.empty = false;
	outbox.read_at = 0;
}

/*
 * When to read the outbox next, by sm_clock().
 */
int64
sm_outbox_read_at(void)
{
	return outbox.read_at;
}

/*
 * Was the outbox empty, or has been emptied, when it was last read?
 */
bool
sm_outbox_is_empty(void)
{
	return outbox.empty;
}

/*
 * See what has been committed, send tombstones for it, and delete what Redis
 * has acknowledged.  False if the extension is no longer there.
 */
bool
sm_outbox_read(void)
{
	Reading		reading = {.epoch_is_over = sm_epoch_is_over()};
	const SmSchema *schema;

	outbox.commits_seen = pg_atomic_read_u32(&sm_cache->commits);
	outbox.last_read_at = sm_clock();
	outbox.read_at = outbox.last_read_at + READ_US;
	schema = sm_cache_start_transaction("reading the outbox of the cache");
	if (schema == NULL)
		return false;
	/* what comes back after a crash is deleted again */
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	reading.rel = table_open(schema->outbox, RowExclusiveLock);
	reading.snapshot = RegisterSnapshot(GetLatestSnapshot());
	read_rows(&reading);
	UnregisterSnapshot(reading.snapshot);
	table_close(reading.rel, NoLock);
	sm_cache_end_transaction();

	outbox.reading_us = sm_clock() - outbox.last_read_at;
	forget_rows(true);
	outbox.empty = (reading.left == 0 && reading.seen < READ_ROWS);
	if (reading.seen == READ_ROWS)
	{
		/* too many to tell one by one */
		sm_epoch_want_end();
		outbox.read_at = 0;
	}
	return true;
}

static void
read_rows(Reading *reading)
{
	TupleTableSlot *slot = table_slot_create(reading->rel, NULL);
	TableScanDesc scan = table_beginscan(reading->rel, reading->snapshot, 0, NULL);

	while (reading->seen < READ_ROWS &&
		   table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		reading->seen++;
		take_row(reading, slot);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

/* Delete a row, or have Redis told, if that has not been done. */
static void
take_row(Reading *reading, TupleTableSlot *slot)
{
	RowKey		key = {0};
	SentRow    *row = NULL;
	bool		has_id = find_sent(slot, &key, &row);

	if (reading->epoch_is_over || (row != NULL && row->acknowledged))
	{
		delete_row(reading, slot);
		return;
	}
	reading->left++;
	if (row != NULL)
		return;
	if (!has_id || reading->left > SM_CACHE_MAX_IDS)
		sm_epoch_want_end();
	if (!sm_epoch_end_is_wanted() && sm_epoch_is_known())
		send_row(&key);
}

/*
 * What has been sent for a row, or NULL.  False if the row is for all
 * sessions.
 */
static bool
find_sent(TupleTableSlot *slot, RowKey *key, SentRow **row)
{
	bool		isnull;
	bool		xmin_isnull;
	Datum		id = slot_getattr(slot, Anum_outbox_session_id, &isnull);

	if (isnull)
		return false;
	key->xmin = DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber,
													  &xmin_isnull));
	key->id = *DatumGetUUIDP(id);
	*row = hash_search(outbox.sent, key, HASH_FIND, NULL);
	return true;
}

static void
delete_row(Reading *reading, TupleTableSlot *slot)
{
	TM_FailureData failure;

	/* fails if somebody else has deleted it */
	(void) table_tuple_delete(reading->rel, &slot->tts_tid,
							  GetCurrentCommandId(true), reading->snapshot,
							  InvalidSnapshot, false, &failure, false);
}

static void
send_row(const RowKey *key)
{
	bool		found;
	SentRow    *row = hash_search(outbox.sent, key, HASH_ENTER, &found);

	row->seen_at = sm_clock();
	row->acknowledged = false;
	outbox.n_unacknowledged++;
	sm_tombstone_send(&key->id, row_answered, key, sizeof(*key));
}

static void
row_answered(const SmRequest *request, const SmRedisAnswer *answer)
{
	SentRow    *row;

	if (!sm_tombstone_is_acknowledged(answer))
		return;
	row = hash_search(outbox.sent, request->context, HASH_FIND, NULL);
	if (row != NULL && !row->acknowledged)
	{
		row->acknowledged = true;
		outbox.n_unacknowledged--;
	}
	sm_outbox_read_soon();
}

/*
 * Has a row waited for too long for an epoch to be made or renewed?
 */
bool
sm_outbox_is_overdue(int64 now)
{
	HASH_SEQ_STATUS status;
	SentRow    *row;
	bool		overdue = false;

	if (outbox.n_unacknowledged == 0)
		return false;
	hash_seq_init(&status, outbox.sent);
	while ((row = hash_seq_search(&status)) != NULL)
		overdue |= (!row->acknowledged && now > row->seen_at + SM_CACHE_PATIENCE_US);
	return overdue;
}

/*
 * Forget what has been sent: the connection has ended, or the next epoch is
 * about to begin.
 */
void
sm_outbox_forget(void)
{
	forget_rows(false);
}

static void
forget_rows(bool only_acknowledged)
{
	HASH_SEQ_STATUS status;
	SentRow    *row;

	if (hash_get_num_entries(outbox.sent) == 0)
		return;
	hash_seq_init(&status, outbox.sent);
	while ((row = hash_seq_search(&status)) != NULL)
		if (row->acknowledged || !only_acknowledged)
		{
			if (!row->acknowledged)
				outbox.n_unacknowledged--;
			(void) hash_search(outbox.sent, &row->key, HASH_REMOVE, NULL);
		}
}
