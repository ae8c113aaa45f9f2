/*-------------------------------------------------------------------------
 *
 * shared.c
 *	  Shared memory: set up, find a database's slot, keep the counters across
 *	  a clean restart.
 *
 * Files that keep something of their own in shared memory register it; the
 * arrow points from them to here.  Exists only when the library is preloaded;
 * everything here copes with its absence.  A slot is taken by the first
 * backend or worker that needs it and freed by the launcher when its database
 * is gone, so a pointer to the slot of one's own database stays good as long
 * as one is connected.
 *
 * Counters are atomics without a lock: each is exact, a set of them read
 * together is not of one moment.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "shared.h"

#define STATE_FILE		"pg_stat/session_manager.stat"
#define STATE_MAGIC		0x534D0000
#define MAX_PARTS		16

/* For how long a call of sm_shared_hurry counts. */
#define HURRY_US		(USECS_PER_SEC / 10)

SmShared   *sm_shared = NULL;
SmDatabase *sm_database = NULL;

static struct
{
	shmem_startup_hook_type startup;
	shmem_request_hook_type request;
}			previous_hooks;

/* What other files keep, in the order of their registration. */
static struct
{
	SmSharedPart *part[MAX_PARTS];
	int			n;
}			parts;

static Size part_size(const SmSharedPart *part);
static void start_part(SmSharedPart *part);
static uint32 state_magic(void);
static bool write_state(FILE *file);
static bool read_state(FILE *file);
static void request(void);
static void startup(void);
static void save_state(int code, Datum arg);
static void load_state(void);
static void init_slot(SmDatabase *database, Oid oid);

/*
 * Ask for shared memory.  Called once, from _PG_init.
 */
void
sm_shared_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_hooks.request = shmem_request_hook;
	shmem_request_hook = request;
	previous_hooks.startup = shmem_startup_hook;
	shmem_startup_hook = startup;
}

/*
 * Have a part of shared memory made and started.  Called from _PG_init.
 */
void
sm_shared_register(SmSharedPart *part)
{
	Assert(parts.n < MAX_PARTS);
	parts.part[parts.n++] = part;
}

/*
 * Find this process's database, and its shares of what other files keep.
 * False if all slots are taken.
 */
bool
sm_shared_find_database(void)
{
	sm_database = sm_shared_slot(MyDatabaseId, true);
	if (sm_database == NULL)
		return false;
	for (int i = 0; i < parts.n; i++)
		if (parts.part[i]->attach != NULL)
			parts.part[i]->attach(sm_shared_of(parts.part[i], sm_database));
	return true;
}

/*
 * Find this backend's database, and tell the launcher if it did not know that
 * the extension is there.  Called when the extension's relations are looked
 * up, which is at the first call and whenever they have changed.
 */
void
sm_shared_attach(void)
{
	if (sm_shared == NULL)
		return;
	if (sm_database == NULL)
		(void) sm_shared_find_database();
	if (sm_database != NULL && sm_database->state != SM_DB_SERVED &&
		!RecoveryInProgress())
	{
		LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
		if (sm_database->state == SM_DB_WITHOUT)
			sm_database->state = SM_DB_UNKNOWN;
		if (sm_database->state == SM_DB_UNKNOWN)
			sm_database->next_pass = 0;
		LWLockRelease(sm_shared->lock);
		sm_shared_wake();
	}
}

/*
 * Does a worker come for what is left in shared memory?  Not on a standby,
 * nor where it has found no extension of this version, or is not to look.
 */
bool
sm_worker_comes(void)
{
	return sm_database != NULL &&
		*(volatile SmDatabaseState *) &sm_database->state == SM_DB_SERVED &&
		!RecoveryInProgress();
}

/*
 * The slot of a database; NULL if it has none and is not to get one, or all
 * are taken.
 */
SmDatabase *
sm_shared_slot(Oid oid, bool create)
{
	SmDatabase *found = NULL;
	SmDatabase *unused = NULL;

	LWLockAcquire(sm_shared->lock, create ? LW_EXCLUSIVE : LW_SHARED);
	for (int i = 0; i < SM_MAX_DATABASES && found == NULL; i++)
	{
		SmDatabase *database = &sm_shared->databases[i];

		if (database->oid == oid)
			found = database;
		else if (!OidIsValid(database->oid) && unused == NULL)
			unused = database;
	}
	if (found == NULL && create && unused != NULL)
	{
		init_slot(unused, oid);
		found = unused;
	}
	LWLockRelease(sm_shared->lock);
	return found;
}

/*
 * Give up the slot of a database that is gone, unless its worker has not quite
 * gone.  What shared memory holds of it is looked for first, without the lock.
 */
void
sm_shared_free(Oid oid)
{
	SmDatabase *database = sm_shared_slot(oid, false);

	if (database == NULL)
		return;
	for (int i = 0; i < parts.n; i++)
		if (parts.part[i]->forget != NULL)
			parts.part[i]->forget(oid);
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	if (database->oid == oid && database->worker_pid == 0)
		database->oid = InvalidOid;
	LWLockRelease(sm_shared->lock);
}

/*
 * Have a worker write what shared memory holds of this database now: somebody
 * waits for it, and calls this every few milliseconds.
 */
void
sm_shared_hurry(void)
{
	pg_atomic_write_u64(&sm_database->hurry, (uint64) sm_clock());
	pg_atomic_write_u32(&sm_database->wanted, 1);
	sm_shared_wake();
}

/*
 * Does somebody wait for that?
 */
bool
sm_shared_in_a_hurry(void)
{
	return sm_clock() < (int64) pg_atomic_read_u64(&sm_database->hurry) + HURRY_US;
}

/*
 * Have the launcher look around now.
 */
void
sm_shared_wake(void)
{
	Latch	   *launcher;

	LWLockAcquire(sm_shared->lock, LW_SHARED);
	launcher = sm_shared->launcher;
	if (launcher != NULL)
		SetLatch(launcher);
	LWLockRelease(sm_shared->lock);
}

static void
request(void)
{
	if (previous_hooks.request)
		previous_hooks.request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(SmShared)));
	RequestNamedLWLockTranche("session_manager", 2);
	for (int i = 0; i < parts.n; i++)
	{
		const SmSharedPart *part = parts.part[i];

		RequestAddinShmemSpace(MAXALIGN(part_size(part)));
		if (part->n_locks > 0)
			RequestNamedLWLockTranche(part->name, part->n_locks);
	}
}

static void
startup(void)
{
	bool		found;

	if (previous_hooks.startup)
		previous_hooks.startup();

	sm_database = NULL;
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	sm_shared = ShmemInitStruct("session_manager", sizeof(SmShared), &found);
	if (!found)
	{
		LWLockPadded *locks = GetNamedLWLockTranche("session_manager");

		memset(sm_shared, 0, sizeof(SmShared));
		sm_shared->lock = &locks[0].lock;
		sm_shared->cache_lock = &locks[1].lock;
		sm_shared->started_at = sm_clock();
		sm_clock_startup();
	}
	for (int i = 0; i < parts.n; i++)
		start_part(parts.part[i]);
	LWLockRelease(AddinShmemInitLock);

	/* the postmaster keeps the state when it shuts down cleanly */
	if (!IsUnderPostmaster)
	{
		on_shmem_exit(save_state, (Datum) 0);
		if (!found)
			load_state();
	}
}

static Size
part_size(const SmSharedPart *part)
{
	return part->size ? part->size() : mul_size(SM_MAX_DATABASES, part->per_database);
}

/* Attach to a part, making it if this is the postmaster. */
static void
start_part(SmSharedPart *part)
{
	bool		found;

	part->memory = ShmemInitStruct(part->name, part_size(part), &found);
	if (part->n_locks > 0)
		part->locks = GetNamedLWLockTranche(part->name);
	if (part->start != NULL)
		part->start(found);
}

/*
 * Write what is kept across a clean restart to a file: counters, and what
 * other files keep.
 */
static void
save_state(int code, Datum arg)
{
	FILE	   *file;
	bool		written;
	int			problem;

	/* a crash leaves nothing that could be trusted */
	if (code != 0 || sm_shared == NULL)
		return;
	file = AllocateFile(STATE_FILE ".tmp", PG_BINARY_W);
	written = file != NULL && write_state(file);
	problem = errno;
	if (file != NULL && FreeFile(file) != 0 && written)
	{
		written = false;
		problem = errno;
	}
	if (written)
		(void) durable_rename(STATE_FILE ".tmp", STATE_FILE, LOG);
	else
	{
		errno = problem;
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", STATE_FILE ".tmp")));
		unlink(STATE_FILE ".tmp");
	}
}

/* Tells a file with the same content from others. */
static uint32
state_magic(void)
{
	uint32		magic = STATE_MAGIC + SM_N_COUNTERS;

	for (int i = 0; i < parts.n; i++)
		magic += parts.part[i]->saved_size * 64;
	return magic;
}

static bool
write_state(FILE *file)
{
	uint32		magic = state_magic();
	Oid			end = InvalidOid;

	if (fwrite(&magic, sizeof(magic), 1, file) != 1)
		return false;
	for (int i = 0; i < SM_MAX_DATABASES; i++)
	{
		SmDatabase *database = &sm_shared->databases[i];

		if (!OidIsValid(database->oid))
			continue;
		if (fwrite(&database->oid, sizeof(Oid), 1, file) != 1 ||
			fwrite(&database->stats_reset, sizeof(TimestampTz), 1, file) != 1 ||
			fwrite(database->counters, sizeof(database->counters), 1, file) != 1)
			return false;
	}
	if (fwrite(&end, sizeof(end), 1, file) != 1)
		return false;
	for (int i = 0; i < parts.n; i++)
		if (parts.part[i]->save != NULL && !parts.part[i]->save(file))
			return false;
	return true;
}

/*
 * Take back what the last clean shutdown left, once.
 */
static void
load_state(void)
{
	FILE	   *file = AllocateFile(STATE_FILE, PG_BINARY_R);

	if (file == NULL)
	{
		if (errno != ENOENT)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", STATE_FILE)));
		return;
	}
	if (!read_state(file))
		ereport(LOG,
				(errmsg("ignoring unreadable contents of file \"%s\"", STATE_FILE)));
	FreeFile(file);
	/* stale from now on: a crash must not bring it back */
	unlink(STATE_FILE);
}

/* False if the file is not whole; what comes before that is taken. */
static bool
read_state(FILE *file)
{
	uint32		magic;
	Oid			oid;

	if (fread(&magic, sizeof(magic), 1, file) != 1 || magic != state_magic())
		return false;
	for (int n = 0;; n++)
	{
		SmDatabase *database = &sm_shared->databases[n];

		if (fread(&oid, sizeof(oid), 1, file) != 1)
			return false;
		if (!OidIsValid(oid))
			break;
		if (n == SM_MAX_DATABASES)
			return false;
		init_slot(database, oid);
		if (fread(&database->stats_reset, sizeof(TimestampTz), 1, file) != 1 ||
			fread(database->counters, sizeof(database->counters), 1, file) != 1)
		{
			database->oid = InvalidOid;
			return false;
		}
	}
	for (int i = 0; i < parts.n; i++)
		if (parts.part[i]->load != NULL && !parts.part[i]->load(file))
			return false;
	return true;
}

static void
init_slot(SmDatabase *database, Oid oid)
{
	memset(database, 0, sizeof(SmDatabase));
	database->oid = oid;
	database->stats_reset = GetCurrentTimestamp();
	for (int i = 0; i < parts.n; i++)
	{
		const SmSharedPart *part = parts.part[i];
		void	   *share;

		if (part->size != NULL)
			continue;
		share = sm_shared_of(part, database);
		memset(share, 0, part->per_database);
		if (part->init != NULL)
			part->init(share);
	}
	pg_atomic_init_u32(&database->wanted, 0);
	pg_atomic_init_u64(&database->hurry, 0);
	pg_atomic_init_u64(&database->recorded, 0);
	pg_atomic_init_u64(&database->flushed, 0);
	for (int i = 0; i < SM_N_COUNTERS; i++)
		pg_atomic_init_u64(&database->counters[i], 0);
}
