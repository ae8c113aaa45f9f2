/*-------------------------------------------------------------------------
 *
 * keyring.c
 *	  The key file, and the subkeys that this database derives from it.
 *
 * Two things are held, both in guarded memory that core dumps leave out and
 * never in shared memory:
 *
 *	file_keys	the master keys as the key file last gave them.  When the
 *				library is preloaded the postmaster reads the file once and
 *				its children inherit the pages; each locks them again at its
 *				first use, since a fork keeps no memory lock.
 *	ring		what session_keys says of each key, with the subkeys derived
 *				for this database.  Forgotten when session_keys changes
 *				(a trigger on it sends an invalidation at commit), so that a
 *				revoked key is dead in every backend from its next call on.
 *
 * The file is read again when a key is missing from it, at most once a second
 * unless session_keys has changed since, and after a reload of the
 * configuration.  A file that cannot be
 * read, or not whole, is a WARNING and leaves the keys as they were: a slip
 * while a key is being added must not end every session.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/fd.h"
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

#define MAX_KEY_FILE_SIZE	(1024 * 1024)
#define RETRY_INTERVAL_MS	1000

/* "id:hex", the longest line that session_key_generate writes */
#define KEY_LINE_LEN		(11 + 1 + 2 * SM_KEY_LEN + 1)

typedef struct FileKey
{
	int32		id;
	uint8		master[SM_KEY_LEN];
} FileKey;

static FileKey *file_keys = NULL;	/* secure memory */
static int	n_file_keys = 0;
static int	file_keys_pid = 0;	/* process that last locked file_keys */
static char *file_path = NULL;	/* session_manager.key_file when read */
static char file_problem[256] = ""; /* why the last reading failed */
static TimestampTz file_read_at = 0;
static TimestampTz file_reload_time = 0;	/* PgReloadTime when read */

static SmKey *ring = NULL;		/* secure memory */
static int	n_ring = 0;
static Oid	ring_relid = InvalidOid;	/* session_keys that the ring is of */
static bool ring_valid = false;
static bool ring_unchanged;		/* since the load of the ring began */

static void keys_changed(Datum arg, Oid relid);
static bool file_is_current(void);
static void file_read(void);
static bool file_open(int *fd, off_t *size);
static int	file_parse(char *text, size_t len, FileKey **keys);
static bool file_parse_line(char *line, char *end, FileKey *key);
static const FileKey *file_lookup(int32 key_id);
static void warn_if_inside_data_directory(void);
static bool installation_read(const SmSchema *schema, uint8 id[16]);
static void ring_load(const SmSchema *schema);
static void ring_refresh(const SmSchema *schema);
static const SmKey *ring_lookup(const SmSchema *schema, int32 key_id);
static bool key_decode(TupleTableSlot *slot, SmKey *key, bytea **check);
static bool parse_state(const text *name, SmKeyState *state);
pg_noreturn static void report_unavailable(int32 key_id, SmKeyMaterial material);
pg_noreturn static void report_no_active_key(const SmSchema *schema);

/*
 * Read the key file if the library is being preloaded, and ask to hear of
 * changes of session_keys.  Called once, from _PG_init.  The server starts
 * whatever becomes of the file.
 */
void
sm_keyring_init(void)
{
	CacheRegisterRelcacheCallback(keys_changed, (Datum) 0);

	if (process_shared_preload_libraries_in_progress && sm_key_file[0] != '\0')
	{
		file_read();
		/* a child may look again at once */
		file_read_at = 0;
	}
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
 * The key that seals what is written now: raises SM003 if there is none.
 */
const SmKey *
sm_key_active(const SmSchema *schema)
{
	ring_refresh(schema);
	for (int i = 0; i < n_ring; i++)
		if (ring[i].state == SM_KEY_ACTIVE)
			return sm_key_usable(schema, ring[i].id);
	report_no_active_key(schema);
}

/*
 * Has this key been revoked?  Needs no material.
 */
bool
sm_key_revoked(const SmSchema *schema, int32 key_id)
{
	ring_refresh(schema);
	for (int i = 0; i < n_ring; i++)
		if (ring[i].id == key_id && ring[i].state == SM_KEY_REVOKED)
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
	for (int i = 0; i < n_ring; i++)
		if (ring[i].material == SM_MATERIAL_PRESENT)
			return &ring[i];
	return NULL;
}

/*
 * All keys of this database.  Valid until the next call into this file.
 */
int
sm_key_list(const SmSchema *schema, const SmKey **keys)
{
	ring_refresh(schema);
	for (int i = 0; i < n_ring; i++)
		if (ring[i].material != SM_MATERIAL_PRESENT)
		{
			(void) ring_lookup(schema, ring[i].id);
			break;
		}
	ring_refresh(schema);
	*keys = ring;
	return n_ring;
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
 * read anew, has no such key.  The installation row must exist.
 */
bool
sm_key_file_check(const SmSchema *schema, int32 key_id,
				  uint8 check[SM_CHECK_LEN])
{
	const FileKey *file_key;
	uint8		installation[16];
	SmSubkeys  *subkeys;

	file_read();
	file_key = file_lookup(key_id);
	if (file_key == NULL)
		return false;
	if (!installation_read(schema, installation))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("session_installation holds no id"),
				 errhint("Restore its row from a backup: without it no session opens.")));

	subkeys = sm_secure_alloc(sizeof(SmSubkeys));
	sm_derive_subkeys(file_key->master, installation, subkeys);
	memcpy(check, subkeys->check, SM_CHECK_LEN);
	sm_secure_free(subkeys);
	return true;
}

/*
 * Why the key file could not be used when it was last read, or NULL.
 */
const char *
sm_key_file_problem(void)
{
	if (!file_is_current())
		file_read();
	return file_problem[0] != '\0' ? file_problem : NULL;
}

/*
 * Append a random key to the key file, creating it if need be, and return
 * the new key's id: above every id in the file and above "above".  Serialized
 * with other servers and databases by a lock on the file.
 */
int32
sm_key_file_append(int32 above)
{
	int			fd;
	struct stat st;
	int32		id = above;
	uint8	   *master;
	char	   *line;
	int			len;
	off_t		old_size;
	bool		created = true;
	bool		needs_newline = false;
	int			save_errno;
	char	   *directory;

	fd = OpenTransientFilePerm(sm_key_file,
							   O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | PG_BINARY,
							   S_IRUSR | S_IWUSR);
	if (fd < 0 && errno == EEXIST)
	{
		created = false;
		fd = OpenTransientFile(sm_key_file, O_RDWR | O_NOFOLLOW | PG_BINARY);
	}
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open the key file for writing: %m"),
				 errhint("Let the server's user write to the file that session_manager.key_file names, or append a line \"id:64 hex digits\" yourself and call session_key_add(id).")));
	if (flock(fd, LOCK_EX) != 0 || fstat(fd, &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not lock the key file: %m")));
	old_size = st.st_size;

	/*
	 * What is there must be sound: never append to a broken file.  Somebody
	 * else may have written to it between its making and our lock.
	 */
	if (!created || old_size > 0)
	{
		file_read();
		if (file_problem[0] != '\0')
			ereport(ERROR,
					(errcode(ERRCODE_SM_KEY_UNAVAILABLE),
					 errmsg("the key file is not usable"),
					 errdetail("%s", file_problem),
					 errhint("Mend the file that session_manager.key_file names.")));
		for (int i = 0; i < n_file_keys; i++)
			id = Max(id, file_keys[i].id);
		if (old_size > 0)
		{
			char		last;

			if (pg_pread(fd, &last, 1, old_size - 1) != 1)
				ereport(ERROR,
						(errcode_for_file_access(),
						 errmsg("could not read the key file: %m")));
			needs_newline = (last != '\n');
		}
	}
	if (id == PG_INT32_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("no key id is left above %d", id)));
	id++;

	/* secure memory for the line as well: it is the key in another form */
	master = sm_secure_alloc(SM_KEY_LEN);
	line = sm_secure_alloc(KEY_LINE_LEN + 2);
	sm_random(master, SM_KEY_LEN);
	len = snprintf(line, KEY_LINE_LEN, "%s%d:", needs_newline ? "\n" : "", id);
	sm_hex_encode(line + len, master, SM_KEY_LEN);
	len += 2 * SM_KEY_LEN;
	line[len++] = '\n';

	errno = 0;
	if (pg_pwrite(fd, line, len, old_size) != len || pg_fsync(fd) != 0)
	{
		save_errno = errno ? errno : ENOSPC;
		/* half a line would make the file unreadable for every server */
		if (ftruncate(fd, old_size) != 0)
			ereport(WARNING,
					(errcode_for_file_access(),
					 errmsg("could not take half a line back from the key file: %m")));
		sm_secure_free(master);
		sm_secure_free(line);
		errno = save_errno;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write to the key file: %m")));
	}
	sm_secure_free(master);
	sm_secure_free(line);
	if (CloseTransientFile(fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not close the key file: %m")));

	if (created)
	{
		directory = pstrdup(sm_key_file);
		get_parent_directory(directory);
		fsync_fname(directory[0] ? directory : ".", true);
	}
	return id;
}

static void
keys_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == ring_relid)
	{
		ring_valid = ring_unchanged = false;
		/* a key that is new here must not wait for the next second */
		file_read_at = 0;
	}
}

/* Does file_keys reflect the file that the configuration names by now? */
static bool
file_is_current(void)
{
	return file_path != NULL &&
		strcmp(file_path, sm_key_file) == 0 &&
		file_reload_time == PgReloadTime;
}

/*
 * Read the key file into file_keys.  What is wrong with it is reported as a
 * WARNING and kept in file_problem; the keys then stay as they were, unless
 * the setting names another file or none.
 */
static void
file_read(void)
{
	bool		same_file = file_path != NULL && strcmp(file_path, sm_key_file) == 0;
	int			fd;
	off_t		size;
	char	   *text = NULL;
	FileKey    *keys = NULL;
	int			n = -1;

	file_read_at = GetCurrentTimestamp();
	file_reload_time = PgReloadTime;
	file_problem[0] = '\0';
	ring_valid = false;

	if (!same_file)
	{
		char	   *path = MemoryContextStrdup(TopMemoryContext, sm_key_file);

		if (file_path)
			pfree(file_path);
		file_path = path;
		if (sm_key_file[0] != '\0')
			warn_if_inside_data_directory();
	}

	if (sm_key_file[0] == '\0')
		snprintf(file_problem, sizeof(file_problem),
				 "session_manager.key_file is not set.");
	else if (file_open(&fd, &size))
	{
		ssize_t		got;

		text = sm_secure_alloc(size + 1);
		got = read(fd, text, size + 1);
		CloseTransientFile(fd);
		if (got != size)
			snprintf(file_problem, sizeof(file_problem),
					 "The key file changed while it was being read.");
		else
			n = file_parse(text, size, &keys);
		sm_secure_free(text);
	}

	if (file_problem[0] != '\0')
	{
		/* an unset setting is normal until the first key is made */
		if (sm_key_file[0] != '\0')
			ereport(WARNING,
					(errcode(ERRCODE_SM_KEY_UNAVAILABLE),
					 errmsg("could not load session keys"),
					 errdetail("%s", file_problem),
					 errdetail_log("%s File \"%s\".", file_problem, sm_key_file)));
		if (same_file)
			return;
		n = 0;
	}

	sm_secure_free(file_keys);
	file_keys = keys;
	n_file_keys = n;
	file_keys_pid = MyProcPid;
}

/*
 * Open the key file if it is safe to use.  On failure fill file_problem.
 */
static bool
file_open(int *fd, off_t *size)
{
	struct stat st;

	/*
	 * A FIFO must not stop us.  Links are followed, as a mounted secret is one:
	 * what counts is who can read and write the file that they lead to.
	 */
	*fd = OpenTransientFile(sm_key_file, O_RDONLY | O_NONBLOCK | PG_BINARY);
	if (*fd < 0)
	{
		snprintf(file_problem, sizeof(file_problem),
				 "The key file could not be opened: %s.", strerror(errno));
		return false;
	}
	if (fstat(*fd, &st) != 0)
		snprintf(file_problem, sizeof(file_problem),
				 "The key file could not be examined: %s.", strerror(errno));
	else if (!S_ISREG(st.st_mode))
		snprintf(file_problem, sizeof(file_problem),
				 "The key file is not a regular file.");
	else if (st.st_uid != geteuid() && st.st_uid != 0)
		snprintf(file_problem, sizeof(file_problem),
				 "The key file belongs neither to the server's user nor to root.");
	else if ((st.st_mode & (st.st_uid == 0 && geteuid() != 0 ?
							S_IWGRP | S_IXGRP | S_IRWXO :
							S_IRWXG | S_IRWXO)) != 0)
		/* as check_ssl_key_file_permissions has it for ssl_key_file */
		snprintf(file_problem, sizeof(file_problem),
				 "The key file is accessible to others; its mode must be 0600 or stricter, or 0640 if root owns it.");
	else if (st.st_size > MAX_KEY_FILE_SIZE)
		snprintf(file_problem, sizeof(file_problem),
				 "The key file is larger than %d bytes.", MAX_KEY_FILE_SIZE);
	else
	{
		*size = st.st_size;
		return true;
	}
	CloseTransientFile(*fd);
	return false;
}

/*
 * Parse the file's text into secure memory.  Returns the number of keys, or
 * -1 with file_problem filled; a message names a line's number, never what is
 * in it.
 */
static int
file_parse(char *text, size_t len, FileKey **keys)
{
	char	   *end = text + len;
	int			max_keys = 1;
	int			n = 0;
	int			line_number = 0;

	for (char *p = text; p < end; p++)
		if (*p == '\n')
			max_keys++;
	*keys = sm_secure_alloc(max_keys * sizeof(FileKey));

	for (char *line = text; line < end;)
	{
		char	   *next = memchr(line, '\n', end - line);
		char	   *line_end = next ? next : end;

		line_number++;
		while (line_end > line && isspace((unsigned char) line_end[-1]))
			line_end--;
		if (line < line_end && *line != '#')
		{
			FileKey    *key = &(*keys)[n];

			if (!file_parse_line(line, line_end, key))
			{
				snprintf(file_problem, sizeof(file_problem),
						 "Line %d of the key file is not \"id:64 hex digits\".",
						 line_number);
				break;
			}
			for (int i = 0; i < n; i++)
				if ((*keys)[i].id == key->id)
					snprintf(file_problem, sizeof(file_problem),
							 "Line %d of the key file repeats key id %d.",
							 line_number, key->id);
			if (file_problem[0] != '\0')
				break;
			n++;
		}
		line = next ? next + 1 : end;
	}

	if (file_problem[0] != '\0')
	{
		sm_secure_free(*keys);
		*keys = NULL;
		return -1;
	}
	sm_secure_readonly(*keys);
	return n;
}

static bool
file_parse_line(char *line, char *end, FileKey *key)
{
	int64		id = 0;
	char	   *p = line;

	for (; p < end && *p >= '0' && *p <= '9'; p++)
	{
		id = id * 10 + (*p - '0');
		if (id > PG_INT32_MAX)
			return false;
	}
	if (id < 1 || p == end || *p != ':' || end - (p + 1) != 2 * SM_KEY_LEN)
		return false;
	key->id = (int32) id;
	return sm_hex_decode(key->master, SM_KEY_LEN, p + 1);
}

static const FileKey *
file_lookup(int32 key_id)
{
	if (file_keys != NULL && file_keys_pid != MyProcPid)
	{
		if (!sm_secure_relock(file_keys, n_file_keys * sizeof(FileKey)))
			ereport(LOG,
					(errmsg("could not lock memory that holds session keys: %m"),
					 errhint("Raise the server's limit of locked memory (RLIMIT_MEMLOCK), or turn swap off.")));
		file_keys_pid = MyProcPid;
	}
	for (int i = 0; i < n_file_keys; i++)
		if (file_keys[i].id == key_id)
			return &file_keys[i];
	return NULL;
}

/* Every base backup would carry the keys with the data that they protect. */
static void
warn_if_inside_data_directory(void)
{
	char	   *absolute = make_absolute_path(sm_key_file);
	char	   *data = realpath(DataDir, NULL);
	char	   *directory = NULL;

	/* the file need not be there yet; links may lead to its directory */
	if (absolute != NULL)
	{
		get_parent_directory(absolute);
		directory = realpath(absolute, NULL);
	}
	if (directory != NULL && data != NULL &&
		path_is_prefix_of_path(data, directory))
		ereport(WARNING,
				(errmsg("session_manager.key_file is inside the data directory"),
				 errdetail("Every base backup carries the keys together with the data that they protect."),
				 errhint("Move the file elsewhere and change session_manager.key_file.")));
	free(absolute);
	free(directory);
	free(data);
}

/* The id of this database's installation; false if there is none yet. */
static bool
installation_read(const SmSchema *schema, uint8 id[16])
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

	installed = installation_read(schema, installation);

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
				const FileKey *file_key;
				bytea	   *check;

				if (!key_decode(slot, key, &check))
					continue;
				key->material = SM_MATERIAL_MISSING;
				memset(&key->subkeys, 0, sizeof(key->subkeys));

				file_key = file_lookup(key->id);
				if (file_key != NULL && installed)
				{
					sm_derive_subkeys(file_key->master, installation, &key->subkeys);
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
	sm_secure_free(ring);
	ring = keys;
	n_ring = n;
}

/*
 * Load the ring where it is not known to be current.  Once: a change that
 * arrives after the table was read was made while this call was under way,
 * and the next call loads again.
 */
static void
ring_refresh(const SmSchema *schema)
{
	if (!file_is_current())
		file_read();
	if (!ring_valid || ring_relid != schema->keys)
	{
		ring_valid = false;
		ring_unchanged = true;
		ring_relid = schema->keys;
		ring_load(schema);
		ring_valid = ring_unchanged;
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
		for (int i = 0; i < n_ring; i++)
			if (ring[i].id == key_id)
				found = &ring[i];
		if (found == NULL || found->material == SM_MATERIAL_PRESENT ||
			attempt > 0 ||
			!TimestampDifferenceExceeds(file_read_at, GetCurrentTimestamp(),
										RETRY_INTERVAL_MS))
			return found;
		file_read();
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
			 file_problem[0] != '\0' ?
			 errdetail("%s", file_problem) :
			 errdetail("The key file has no key with this id."),
			 errhint("Put the key's line back into the file that session_manager.key_file names; it is read again within a second.")));
}

static void
report_no_active_key(const SmSchema *schema)
{
	const char *generate = sm_schema_qualify(schema, "session_key_generate");

	if (sm_key_file[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_SM_KEY_UNAVAILABLE),
				 errmsg("no session key is configured"),
				 errdetail("Setting session_manager.key_file is empty."),
				 errhint("As a superuser: ALTER SYSTEM SET session_manager.key_file = '/etc/postgresql/session_manager.keys'; SELECT pg_reload_conf(); SELECT %s();",
						 generate)));
	ereport(ERROR,
			(errcode(ERRCODE_SM_KEY_UNAVAILABLE),
			 errmsg("no session key is active"),
			 n_ring == 0 ?
			 errhint("As a superuser, SELECT %s(); or, for a key that is in the file of session_manager.key_file already, SELECT %s(id);",
					 generate, sm_schema_qualify(schema, "session_key_add")) :
			 errhint("Activate a key: SELECT %s(id); %s() lists them.",
					 sm_schema_qualify(schema, "session_key_activate"),
					 sm_schema_qualify(schema, "session_keys"))));
}
