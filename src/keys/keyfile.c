/*-------------------------------------------------------------------------
 *
 * keyfile.c
 *	  The key file: master keys, a line for each.
 *
 * They are held in guarded memory that core dumps leave out and never in
 * shared memory.  When the library is preloaded the postmaster reads the file
 * once and its children inherit the pages; each locks them again at its first
 * use, since a fork keeps no memory lock.
 *
 * The file is read again when a key is missing from it, at most once a second
 * unless session_keys has changed since, and after a reload of the
 * configuration.  A file that cannot be read, or not whole, is a WARNING and
 * leaves the keys as they were: a slip while a key is being added must not end
 * every session.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "keys/crypto.h"
#include "keys/keyfile.h"
#include "secret_file.h"

#define MAX_KEY_FILE_SIZE	(1024 * 1024)
#define RETRY_INTERVAL_MS	1000

/* "id:hex", the longest line that session_key_generate writes */
#define KEY_LINE_LEN		(11 + 1 + 2 * SM_KEY_LEN + 1)

typedef struct FileKey
{
	int32		id;
	uint8		master[SM_KEY_LEN];
} FileKey;

/* The file as it was last read. */
static struct
{
	FileKey    *keys;			/* secure memory */
	int			n;
	int			pid;			/* process that last locked keys */
	char	   *path;			/* session_manager.key_file then */
	char		problem[256];	/* why the last reading failed */
	uint64		readings;		/* so far */
	TimestampTz read_at;
	TimestampTz reload_time;	/* PgReloadTime then */
}			file;

static bool is_current(void);
static bool open_file(int *fd, off_t *size);
static int	parse(char *text, size_t len, FileKey **keys);
static bool parse_line(char *line, char *end, FileKey *key);
static void warn_if_inside_data_directory(void);
static int	open_to_append(bool *created);
static int32 highest_id(void);
static void write_key(int fd, int32 id, off_t end);

/*
 * Read the key file if the library is being preloaded.  Called once, from
 * _PG_init.  The server starts whatever becomes of the file.
 */
void
sm_key_file_init(void)
{
	if (process_shared_preload_libraries_in_progress && sm_key_file[0] != '\0')
	{
		sm_key_file_read();
		/* a child may look again at once */
		sm_key_file_expect_change();
	}
}

/*
 * Read the file unless that was done under the configuration of now.  Returns
 * how often it has been read, which tells whether it has been since.
 */
uint64
sm_key_file_refresh(void)
{
	if (!is_current())
		sm_key_file_read();
	return file.readings;
}

/*
 * Read the key file into file.keys.  What is wrong with it is reported as a
 * WARNING and kept in file.problem; the keys then stay as they were, unless
 * the setting names another file or none.
 */
void
sm_key_file_read(void)
{
	bool		same_file = file.path != NULL && strcmp(file.path, sm_key_file) == 0;
	int			fd;
	off_t		size;
	char	   *text = NULL;
	FileKey    *keys = NULL;
	int			n = -1;

	file.read_at = GetCurrentTimestamp();
	file.reload_time = PgReloadTime;
	file.problem[0] = '\0';
	file.readings++;

	if (!same_file)
	{
		char	   *path = MemoryContextStrdup(TopMemoryContext, sm_key_file);

		if (file.path)
			pfree(file.path);
		file.path = path;
		if (sm_key_file[0] != '\0')
			warn_if_inside_data_directory();
	}

	if (sm_key_file[0] == '\0')
		snprintf(file.problem, sizeof(file.problem),
				 "session_manager.key_file is not set.");
	else if (open_file(&fd, &size))
	{
		ssize_t		got;

		text = sm_secure_alloc(size + 1);
		got = read(fd, text, size + 1);
		CloseTransientFile(fd);
		if (got != size)
			snprintf(file.problem, sizeof(file.problem),
					 "The key file changed while it was being read.");
		else
			n = parse(text, size, &keys);
		sm_secure_free(text);
	}

	if (file.problem[0] != '\0')
	{
		/* an unset setting is normal until the first key is made */
		if (sm_key_file[0] != '\0')
			ereport(WARNING,
					(errcode(ERRCODE_SM_KEY_UNAVAILABLE),
					 errmsg("could not load session keys"),
					 errdetail("%s", file.problem),
					 errdetail_log("%s File \"%s\".", file.problem, sm_key_file)));
		if (same_file)
			return;
		n = 0;
	}

	sm_secure_free(file.keys);
	file.keys = keys;
	file.n = n;
	file.pid = MyProcPid;
}

/*
 * As session_keys has changed: when a key is missing from the file, read it
 * again without waiting for the next second.
 */
void
sm_key_file_expect_change(void)
{
	file.read_at = 0;
}

/*
 * Read the file again, as a key is missing from it: at most once a second.
 * False if that is not over.
 */
bool
sm_key_file_read_again(void)
{
	if (!TimestampDifferenceExceeds(file.read_at, GetCurrentTimestamp(),
									RETRY_INTERVAL_MS))
		return false;
	sm_key_file_read();
	return true;
}

/*
 * A master key of the file as it was last read, or NULL: valid until it is
 * read again.
 */
const uint8 *
sm_key_file_master(int32 key_id)
{
	if (file.keys != NULL && file.pid != MyProcPid)
	{
		if (!sm_secure_relock(file.keys, file.n * sizeof(FileKey)))
			ereport(LOG,
					(errmsg("could not lock memory that holds session keys: %m"),
					 errhint("Raise the server's limit of locked memory (RLIMIT_MEMLOCK), or turn swap off.")));
		file.pid = MyProcPid;
	}
	for (int i = 0; i < file.n; i++)
		if (file.keys[i].id == key_id)
			return file.keys[i].master;
	return NULL;
}

/*
 * Why the key file could not be used when it was last read, or NULL.
 */
const char *
sm_key_file_problem(void)
{
	sm_key_file_refresh();
	return file.problem[0] != '\0' ? file.problem : NULL;
}

/*
 * Append a random key to the key file, creating it if need be, and return
 * the new key's id: above every id in the file and above "above".  Serialized
 * with other servers and databases by a lock on the file.
 */
int32
sm_key_file_append(int32 above)
{
	bool		created;
	int			fd = open_to_append(&created);
	struct stat st;
	int32		id = above;

	if (flock(fd, LOCK_EX) != 0 || fstat(fd, &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not lock the key file: %m")));

	/*
	 * Never append to a broken file: the existing contents must be valid.
	 * Another process may have written to it between its creation and our
	 * lock.
	 */
	if (!created || st.st_size > 0)
		id = Max(id, highest_id());
	if (id == PG_INT32_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("no key id is left above %d", id)));
	id++;
	write_key(fd, id, st.st_size);
	if (CloseTransientFile(fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not close the key file: %m")));

	if (created)
	{
		char	   *directory = pstrdup(sm_key_file);

		get_parent_directory(directory);
		fsync_fname(directory[0] ? directory : ".", true);
	}
	return id;
}

/* Does file.keys reflect the file that the configuration names by now? */
static bool
is_current(void)
{
	return file.path != NULL &&
		strcmp(file.path, sm_key_file) == 0 &&
		file.reload_time == PgReloadTime;
}

/*
 * Open the key file if it is safe to use.  On failure fill file.problem.
 */
static bool
open_file(int *fd, off_t *size)
{
	struct stat st;

	/*
	 * A FIFO must not stop us.  Links are followed, as a mounted secret is
	 * one: what counts is who can read and write the file that they lead to.
	 */
	*fd = OpenTransientFile(sm_key_file, O_RDONLY | O_NONBLOCK | PG_BINARY);
	if (*fd < 0)
	{
		snprintf(file.problem, sizeof(file.problem),
				 "The key file could not be opened: %s.", strerror(errno));
		return false;
	}
	if (fstat(*fd, &st) != 0)
		snprintf(file.problem, sizeof(file.problem),
				 "The key file could not be examined: %s.", strerror(errno));
	else
		switch (sm_secret_file_check(&st))
		{
			case SM_SECRET_FILE_NOT_REGULAR:
				snprintf(file.problem, sizeof(file.problem),
						 "The key file is not a regular file.");
				break;
			case SM_SECRET_FILE_NOT_OURS:
				snprintf(file.problem, sizeof(file.problem),
						 "The key file belongs neither to the server's user nor to root.");
				break;
			case SM_SECRET_FILE_OPEN:
				snprintf(file.problem, sizeof(file.problem),
						 "The key file is accessible to others; its mode must be 0600 or stricter, or 0640 if root owns it.");
				break;
			case SM_SECRET_FILE_OK:
				if (st.st_size <= MAX_KEY_FILE_SIZE)
				{
					*size = st.st_size;
					return true;
				}
				snprintf(file.problem, sizeof(file.problem),
						 "The key file is larger than %d bytes.", MAX_KEY_FILE_SIZE);
				break;
		}
	CloseTransientFile(*fd);
	return false;
}

/*
 * Parse the file's text into secure memory.  Returns the number of keys, or
 * -1 with file.problem filled; a message names a line's number, never what is
 * in it.
 */
static int
parse(char *text, size_t len, FileKey **keys)
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

			if (!parse_line(line, line_end, key))
			{
				snprintf(file.problem, sizeof(file.problem),
						 "Line %d of the key file is not \"id:64 hex digits\".",
						 line_number);
				break;
			}
			for (int i = 0; i < n; i++)
				if ((*keys)[i].id == key->id)
					snprintf(file.problem, sizeof(file.problem),
							 "Line %d of the key file repeats key id %d.",
							 line_number, key->id);
			if (file.problem[0] != '\0')
				break;
			n++;
		}
		line = next ? next + 1 : end;
	}

	if (file.problem[0] != '\0')
	{
		sm_secure_free(*keys);
		*keys = NULL;
		return -1;
	}
	sm_secure_readonly(*keys);
	return n;
}

static bool
parse_line(char *line, char *end, FileKey *key)
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

/* Open the key file for a line more, making it if it is not there. */
static int
open_to_append(bool *created)
{
	int			fd = OpenTransientFilePerm(sm_key_file,
										   O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | PG_BINARY,
										   S_IRUSR | S_IWUSR);

	*created = true;
	if (fd < 0 && errno == EEXIST)
	{
		*created = false;
		fd = OpenTransientFile(sm_key_file, O_RDWR | O_NOFOLLOW | PG_BINARY);
	}
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open the key file for writing: %m"),
				 errhint("Allow the server's user to write to the file named by session_manager.key_file, or append a line \"id:64 hex digits\" yourself and call session_key_add(id).")));
	return fd;
}

/* The highest id in the file, which must be whole. */
static int32
highest_id(void)
{
	int32		id = 0;

	sm_key_file_read();
	if (file.problem[0] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_SM_KEY_UNAVAILABLE),
				 errmsg("the key file is not usable"),
				 errdetail("%s", file.problem),
				 errhint("Fix the file named by session_manager.key_file.")));
	for (int i = 0; i < file.n; i++)
		id = Max(id, file.keys[i].id);
	return id;
}

/* Write a random key's line to the end of the file, all of it or nothing. */
static void
write_key(int fd, int32 id, off_t end)
{
	/* secure memory for the line as well: it is the key in another form */
	uint8	   *master;
	char	   *line;
	char		last = '\n';
	int			len;
	int			save_errno = 0;

	if (end > 0 && pg_pread(fd, &last, 1, end - 1) != 1)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read the key file: %m")));

	master = sm_secure_alloc(SM_KEY_LEN);
	line = sm_secure_alloc(KEY_LINE_LEN + 2);
	sm_random(master, SM_KEY_LEN);
	len = snprintf(line, KEY_LINE_LEN, "%s%d:", last == '\n' ? "" : "\n", id);
	sm_hex_encode(line + len, master, SM_KEY_LEN);
	len += 2 * SM_KEY_LEN;
	line[len++] = '\n';

	errno = 0;
	if (pg_pwrite(fd, line, len, end) != len || pg_fsync(fd) != 0)
	{
		save_errno = errno ? errno : ENOSPC;
		/* half a line would make the file unreadable for every server */
		if (ftruncate(fd, end) != 0)
			ereport(WARNING,
					(errcode_for_file_access(),
					 errmsg("could not truncate the key file after a failed write: %m")));
	}
	sm_secure_free(master);
	sm_secure_free(line);
	if (save_errno != 0)
	{
		errno = save_errno;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write to the key file: %m")));
	}
}
