/*-------------------------------------------------------------------------
 *
 * keyring.c
 *	  The keys of this database: what session_keys says of each, with the
 *	  subkeys derived from the key file.
 *
 * Held in guarded memory that core dumps leave out and never in shared memory.
 * Forgotten when session_keys changes (a trigger on it sends an invalidation
 * at commit), so that a revoked key is refused in every backend from its next
 * call on, and when the key file has been read again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "guc.h"
#include "keys/keyring.h"

/* What session_keys says of each key, and what the key file has of it. */
static struct
{
	SmKey	   *keys;			/* secure memory */
	int			n;
	Oid			relid;			/* session_keys that the ring is of */
	bool		valid;
	bool		unchanged;		/* since the load of the ring began */
	uint64		reading;		/* of the key file, that the ring is of */
}			ring;

static void keys_changed(Datum arg, Oid relid);
static void ring_load(const SmSchema *schema);
static void ring_refresh(const SmSchema *schema);
static const SmKey *ring_lookup(const SmSchema *schema, int32 key_id);
static bool key_decode(TupleTableSlot *slot, SmKey *key, bytea **check);
static bool parse_state(const text *name, SmKeyState *state);
pg_noreturn static void report_unavailable(int32 key_id, SmKeyMaterial material);
pg_noreturn static void report_no_active_key(const SmSchema *schema);

/*
 * Be called when session_keys changes.  Called once, from _PG_init.
 */
void
sm_keyring_init(void)
{
	CacheRegisterRelcacheCallback(keys_changed, (Datum) 0);
}

/*
 * A key that must be there to go on: raises SM003 if it is not.
 */
const SmKey *
sm_key_usable(const SmSchema *schema, int32 key_id)
{
	const SmKey *key = ring_lookup(schema, key_id);

	if (key == NULL || key->material != SM_MATERIAL_PRESENT)
		report_unavailable(key_id, key ? key->material : SM_MATERIAL_MISSING);
	return key;
}

/*
 * A key that is at hand and has not been revoked, or NULL: for an id that may be
 * made up.
 */
const SmKey *
sm_key_find(const SmSchema *schema, int32 key_id)
{
	const SmKey *key = ring_lookup(schema, key_id);

	return key != NULL && key->material == SM_MATERIAL_PRESENT &&
		key->state != SM_KEY_REVOKED ? key : NULL;
}

/*
 * The key that seals what is written now: raises SM003 if there is none.
 */
const SmKey *
sm_key_active(const SmSchema *schema)
{
	ring_refresh(schema);
	for (int i = 0; i < ring.n; i++)
		if (ring.keys[i].state == SM_KEY_ACTIVE)
			return sm_key_usable(schema, ring.keys[i].id);
	report_no_active_key(schema);
}

/*
 * Has this key been revoked?  Needs no material.
 */
bool
sm_key_revoked(const SmSchema *schema, int32 key_id)
{
	ring_refresh(schema);
	for (int i = 0; i < ring.n; i++)
		if (ring.keys[i].id == key_id && ring.keys[i].state == SM_KEY_REVOKED)
			return true;
	return false;
}

/*
 * Is a key at hand?
 */
bool
sm_key_present(const SmSchema *schema, int32 key_id)
{
	const SmKey *key = ring_lookup(schema, key_id);

	return key != NULL && key->material == SM_MATERIAL_PRESENT;
}

/*
 * Any usable key, or NULL: for work that only has to take the usual time.
 */
const SmKey *
sm_key_any(const SmSchema *schema)
{
	ring_refresh(schema);
	for (int i = 0; i < ring.n; i++)
		if (ring.keys[i].material == SM_MATERIAL_PRESENT)
			return &ring.keys[i];
	return NULL;
}

/*
 * All keys of this database.  Valid until the next call into this file.
 */
int
sm_key_list(const SmSchema *schema, const SmKey **keys)
{
	ring_refresh(schema);
	for (int i = 0; i < ring.n; i++)
		if (ring.keys[i].material != SM_MATERIAL_PRESENT)
		{
			(void) ring_lookup(schema, ring.keys[i].id);
			break;
		}
	ring_refresh(schema);
	*keys = ring.keys;
	return ring.n;
}

const char *
sm_key_state_name(SmKeyState state)
{
	switch (state)
	{
		case SM_KEY_ADDED:
			return "added";
		case SM_KEY_ACTIVE:
			return "active";
		case SM_KEY_INACTIVE:
			return "inactive";
		case SM_KEY_RETIRED:
			return "retired";
		case SM_KEY_REVOKED:
			return "revoked";
	}
	elog(ERROR, "unrecognized state of a session key: %d", (int) state);
}

/*
 * Check value of a key of the file for this database.  False if the file,
 * after reading it again, has no such key.  The installation row must exist.
 */
bool
sm_key_file_check(const SmSchema *schema, int32 key_id,
				  uint8 check[SM_CHECK_LEN])
{
	const uint8 *master;
	uint8		installation[16];
	SmSubkeys  *subkeys;

	sm_key_file_read();
	master = sm_key_file_master(key_id);
	if (master == NULL)
		return false;
	if (!sm_installation_id(schema, installation))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("session_installation contains no id"),
				 errhint("Restore the row from a backup: no session can be opened without it.")));

	subkeys = sm_secure_alloc(sizeof(SmSubkeys));
	sm_derive_subkeys(master, installation, subkeys);
	memcpy(check, subkeys->check, SM_CHECK_LEN);
	sm_secure_free(subkeys);
	return true;
}

static void
keys_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == ring.relid)
	{
		ring.valid = ring.unchanged = false;
		/* a key that is new here must not wait for the next second */
		sm_key_file_expect_change();
	}
}

/*
 * The id of this database's installation; false if there is none yet.
 */
bool
sm_installation_id(const SmSchema *schema, uint8 id[16])
{
	Relation	rel = table_open(schema->installation, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	bool		found = table_scan_getnextslot(scan, ForwardScanDirection, slot);

	if (found)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, Anum_installation_installation_id,
										 &isnull);

		if (isnull)
			found = false;
		else
			memcpy(id, DatumGetUUIDP(value)->data, 16);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * Make the ring from session_keys and the key file.
 */
static void
ring_load(const SmSchema *schema)
{
	Relation	rel;
	Snapshot	snapshot;
	TupleTableSlot *slot;
	TableScanDesc scan;
	uint8		installation[16];
	bool		installed;
	SmKey	   *keys = NULL;
	int			n = 0;

	installed = sm_installation_id(schema, installation);

	rel = table_open(schema->keys, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);

	/* twice over the few rows: secure memory does not grow */
	for (int pass = 0; pass < 2; pass++)
	{
		n = 0;
		scan = table_beginscan(rel, snapshot, 0, NULL);
		while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		{
			if (keys != NULL)
			{
				SmKey	   *key = &keys[n];
				const uint8 *master;
				bytea	   *check;

				if (!key_decode(slot, key, &check))
					continue;
				key->material = SM_MATERIAL_MISSING;
				memset(&key->subkeys, 0, sizeof(key->subkeys));

				master = sm_key_file_master(key->id);
				if (master != NULL && installed)
				{
					sm_derive_subkeys(master, installation, &key->subkeys);
					if (check != NULL &&
						VARSIZE_ANY_EXHDR(check) == SM_CHECK_LEN &&
						sm_equal(VARDATA_ANY(check), key->subkeys.check, SM_CHECK_LEN))
						key->material = SM_MATERIAL_PRESENT;
					else
					{
						key->material = SM_MATERIAL_WRONG;
						sm_wipe(&key->subkeys, sizeof(key->subkeys));
					}
				}
			}
			n++;
		}
		table_endscan(scan);
		if (pass == 0)
			keys = sm_secure_alloc((n + 1) * sizeof(SmKey));
	}

	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);

	sm_secure_readonly(keys);
	sm_secure_free(ring.keys);
	ring.keys = keys;
	ring.n = n;
}

/*
 * Load the ring where it is not known to be current.  Once: a change that
 * arrives after the table was read was made while this call was under way,
 * and the next call loads again.
 */
static void
ring_refresh(const SmSchema *schema)
{
	uint64		reading = sm_key_file_refresh();

	if (!ring.valid || ring.relid != schema->keys || ring.reading != reading)
	{
		ring.valid = false;
		ring.reading = reading;
		ring.unchanged = true;
		ring.relid = schema->keys;
		ring_load(schema);
		ring.valid = ring.unchanged;
	}
}

/*
 * A key by its id, or NULL if session_keys does not know it.  Reads the key
 * file again if it should hold the key and does not.
 */
static const SmKey *
ring_lookup(const SmSchema *schema, int32 key_id)
{
	for (int attempt = 0;; attempt++)
	{
		const SmKey *found = NULL;

		ring_refresh(schema);
		for (int i = 0; i < ring.n; i++)
			if (ring.keys[i].id == key_id)
				found = &ring.keys[i];
		if (found == NULL || found->material == SM_MATERIAL_PRESENT ||
			attempt > 0 || !sm_key_file_read_again())
			return found;
	}
}

/*
 * Decode a row of session_keys.  False if it is none that the functions write:
 * then the key is as good as unknown.
 */
static bool
key_decode(TupleTableSlot *slot, SmKey *key, bytea **check)
{
	Datum	   *values = slot->tts_values;
	bool	   *nulls = slot->tts_isnull;

	slot_getallattrs(slot);
	if (nulls[Anum_keys_key_id - 1] || nulls[Anum_keys_state - 1] ||
		!parse_state(DatumGetTextPP(values[Anum_keys_state - 1]), &key->state))
		return false;
	key->id = DatumGetInt32(values[Anum_keys_key_id - 1]);
	/* a revocation takes it away, and with it all use of the key for ever */
	*check = nulls[Anum_keys_check_value - 1] ? NULL :
		DatumGetByteaPP(values[Anum_keys_check_value - 1]);
	return true;
}

static bool
parse_state(const text *name, SmKeyState *state)
{
	for (*state = SM_KEY_ADDED; *state <= SM_KEY_REVOKED; (*state)++)
	{
		const char *known = sm_key_state_name(*state);

		if (VARSIZE_ANY_EXHDR(name) == strlen(known) &&
			memcmp(VARDATA_ANY(name), known, strlen(known)) == 0)
			return true;
	}
	return false;
}

static void
report_unavailable(int32 key_id, SmKeyMaterial material)
{
	ereport(ERROR,
			(errcode(ERRCODE_SM_KEY_UNAVAILABLE),
			 errmsg("session key %d is not available", key_id),
			 material == SM_MATERIAL_WRONG ?
			 errdetail("The key file has another key under this id.") :
			 sm_key_file_problem() ?
			 errdetail("%s", sm_key_file_problem()) :
			 errdetail("The key file has no key with this id."),
			 errhint("Put the key's line back into the file named by session_manager.key_file; the server reads it again within a second.")));
}

static void
report_no_active_key(const SmSchema *schema)
{
	const char *generate = sm_schema_qualify(schema, "session_key_generate");

	if (sm_key_file[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_SM_KEY_UNAVAILABLE),
				 errmsg("no session key is configured"),
				 errdetail("The setting session_manager.key_file is empty."),
				 errhint("As a superuser: ALTER SYSTEM SET session_manager.key_file = '/etc/postgresql/session_manager.keys'; SELECT pg_reload_conf(); SELECT %s();",
						 generate)));
	ereport(ERROR,
			(errcode(ERRCODE_SM_KEY_UNAVAILABLE),
			 errmsg("no session key is active"),
			 ring.n == 0 ?
			 errhint("As a superuser, run SELECT %s(); or, for a key that is already in the file named by session_manager.key_file, run SELECT %s(id);",
					 generate, sm_schema_qualify(schema, "session_key_add")) :
			 errhint("Activate a key: SELECT %s(id); %s() lists the keys.",
					 sm_schema_qualify(schema, "session_key_activate"),
					 sm_schema_qualify(schema, "session_keys"))));
}
