/*-------------------------------------------------------------------------
 *
 * store.h
 *	  Rows of user_sessions: find, lock, read, write.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_STORE_H
#define SM_STORE_H

#include "postgres.h"

#include "storage/itemptr.h"
#include "access/genam.h"
#include "access/tableam.h"
#include "nodes/lockoptions.h"
#include "utils/inet.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "keys/crypto.h"
#include "schema.h"
#include "session/client.h"
#include "session/writer.h"
#include "shared.h"

/*
 * One row, decoded.  Pointers lead into the slot it was read from, or into
 * the memory context of the reading; NULL stands for null.
 */
typedef struct SmSession
{
	pg_uuid_t  *session_id;
	TimestampTz created_at;
	TimestampTz authenticated_at;
	TimestampTz last_seen_at;
	TimestampTz expires_at;
	TimestampTz absolute_expires_at;
	TimestampTz sweep_at;
	int64		ttl;			/* microseconds */
	int32		version;
	int32		key_id;
	int32		verifier_key_id;
	text	   *user_id;
	bytea	   *verifier;
	Datum		sealed_data;	/* as stored: possibly out of line */
	text	   *tenant_id;
	inet	   *ip;
	text	   *user_agent;
	int64		idle_timeout;	/* microseconds; 0 for none of its own */
	pg_uuid_t  *actor_session_id;	/* NULL unless somebody acts as the user */
	text	   *actor_id;
	pg_uuid_t  *device_binding_id;	/* NULL unless bound to a device */
	TimestampTz device_bound_at;
	TimestampTz device_proved_at;	/* when the last challenge that the device
									 * answered was issued */
	bool		rotated;
	TimestampTz rotated_at;
	bool		successor_used; /* or never rotated */
	bool		successor_stored;	/* it says so in the row */
	TimestampTz successor_used_at;
	TimestampTz previous_valid_until;
	int32		previous_key_id;
	bytea	   *previous_verifier;
	bool		malformed;		/* lacks something: ended, whatever the rest
								 * is */
	bool		revoked;
	TimestampTz revoked_at;
	text	   *revoked_reason;
	bytea	   *state_mac;
} SmSession;

/*
 * A place in the index by sweep_at: behind the entry with this time and row.
 */
typedef struct SmSweepPosition
{
	TimestampTz at;
	ItemPointerData row;		/* invalid: before all entries of this time */
} SmSweepPosition;

/*
 * A scan of user_sessions under the latest snapshot, and the means to write
 * to the row that it stands on.
 */
typedef struct SmScan
{
	const SmSchema *schema;
	MemoryContext context;		/* in which the scan lives */
	Relation	rel;
	Relation	index;
	Snapshot	snapshot;
	IndexScanDesc index_scan;
	TableScanDesc table_scan;
	bool		one_block;		/* table_scan is one of a block */
	bool		has_row;
	MemoryContext row_context;	/* for the decoded row; NULL for the first */
	ScanKeyData keys[2];
	SmSweepPosition behind;		/* begin behind this; row invalid: anywhere */
	ItemPointerData entry;		/* what the index entry points to */
	TupleTableSlot *slot;
	SmSession	session;		/* the row that the scan stands on */
	TimestampTz stored_last_seen_at;	/* without touches not yet written */
	TimestampTz noted_successor_used_at;	/* known from those alone, or 0 */

	/* begun by the first write */
	SmWriter   *writer;
} SmScan;

/* Changes to a row: which columns, and to what. */
typedef struct SmChanges
{
	Datum		values[Natts_user_sessions];
	bool		nulls[Natts_user_sessions];
	bool		replaces[Natts_user_sessions];
} SmChanges;

/* What sm_scan_first_sweep_at says. */
typedef enum SmFirst
{
	SM_FIRST_FOUND,
	SM_FIRST_NONE,
	SM_FIRST_FAR				/* not among the first entries */
} SmFirst;

extern void sm_scan_by_id(SmScan *scan, const SmSchema *schema, const uint8 *id,
						  LOCKMODE lockmode);
extern void sm_scan_by_user(SmScan *scan, const SmSchema *schema, text *user_id,
							LOCKMODE lockmode);
extern void sm_scan_by_tenant(SmScan *scan, const SmSchema *schema,
							  text *tenant_id, LOCKMODE lockmode);
extern void sm_scan_by_sweep_at(SmScan *scan, const SmSchema *schema,
								const SmSweepPosition *from, TimestampTz until);
extern void sm_scan_position(SmScan *scan, SmSweepPosition *position);
extern void sm_scan_all(SmScan *scan, const SmSchema *schema, LOCKMODE lockmode);
extern SmFirst sm_scan_first_sweep_at(const SmSchema *schema, TimestampTz from,
									  TimestampTz *at);
extern void sm_scan_from_id(SmScan *scan, const SmSchema *schema, const uint8 *id);
extern BlockNumber sm_scan_blocks(SmScan *scan);
extern void sm_scan_block(SmScan *scan, BlockNumber block);
extern bool sm_scan_next(SmScan *scan);
extern bool sm_scan_next_life(SmScan *scan);
extern void sm_scan_decode(SmScan *scan);
extern bool sm_scan_lock(SmScan *scan, LockTupleMode mode,
						 LockWaitPolicy wait);
extern void sm_scan_update(SmScan *scan, SmChanges *changes);
extern bool sm_scan_delete(SmScan *scan, bool locked);
extern void sm_scan_end(SmScan *scan);
extern bool sm_scan_row_is_settled(SmScan *scan);
extern bool sm_scan_row_is_ours(SmScan *scan);

extern void sm_store_insert(const SmSchema *schema, Datum *values, bool *nulls);

extern void sm_change(SmChanges *changes, int attnum, Datum value);
extern void sm_change_null(SmChanges *changes, int attnum);
extern void sm_change_client(SmChanges *changes, const SmClient *client);

extern bool sm_session_of_user(const SmSession *session, const text *user_id);
extern bool sm_session_of_tenant(const SmSession *session,
								 const text *tenant_id);
extern bool sm_session_owner(const SmSession *session, SmOwner *owner);
extern bool sm_session_intact(const SmSchema *schema, const SmSession *session);
extern bool sm_session_open(const SmSchema *schema, const SmSession *session,
							SmContent *content);
extern Datum sm_session_seal(const SmSchema *schema, const SmSession *session,
							 const SmContent *content, int32 *key_id);

#endif							/* SM_STORE_H */
