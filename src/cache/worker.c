/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The worker that keeps a database's cache in Redis honest: epochs,
 *	  tombstones, the outbox.
 *
 * One for each database that has the extension, while session_manager.redis_mode
 * is not off.  Unlike the workers that sweep it stays connected.  So that
 * nobody who wants to drop, rename or copy the database waits for it, it looks
 * ten times a second whether somebody holds the lock that they all take, and
 * leaves; the launcher sends another.  It holds no lock and no snapshot between
 * its transactions, which are short.
 *
 * Why what it does suffices is in the header of cache.c.  Its rules:
 *
 * - dead_at in shared memory is moved before an epoch is asked for.
 * - One epoch at a time.  Its key is overwritten by a fresh id, renewed only
 *	 by a script that finds the id still there, and given an absolute end.
 * - An epoch that was made on one connection is never heard of again on the
 *	 next: that begins when dead_at is over.
 * - Nothing is made or renewed while something waits for Redis for longer than
 *	 SM_CACHE_PATIENCE_US: a fence, a row of the outbox, an answer.
 * - No epoch is made while the outbox has a row that is committed.  While none
 *	 is alive, rows may be deleted as they are: the next one is another.
 *
 * The wire never waits, see redis.c.  An error from Redis ends the connection;
 * the next one is tried soon.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/tableam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "batch.h"
#include "cache/cache.h"
#include "cache/redis.h"
#include "compat.h"
#include "keys/crypto.h"

PGDLLEXPORT void sm_cache_worker_main(Datum arg);

#define MS				INT64CONST(1000)	/* of sm_clock() */

#define RENEW_US		(500 * MS)
#define LOOK_US			(500 * MS)	/* at the outbox, without being told */
#define LOOK_SHARE		10			/* and at most a tenth of the time */
#define TIDY_US			(50 * MS)	/* where nothing waits for it */
#define WANTED_US		(100 * MS)	/* is somebody waiting for the database? */
#define AGAIN_US		(10 * MS)
#define FACTS_US		(10000 * MS)
#define RETRY_MIN_US	(100 * MS)
#define RETRY_MAX_US	(1000 * MS)
#define OPENING_SHARE	10
#define FAREWELL_US		(100 * MS)
#define LOG_GAP_US		(1000 * MS)

#define TOMBSTONE_MS	"60000"
/* What a clock of Redis may have been set back by before it is noticed. */
#define CLOCK_SLACK_MS	"2090"
#define CLOCK_TOLERANCE_MS	50

/* Rows of the outbox that are dealt with in one transaction. */
#define LOOK_ROWS		10000

#define PASSWORD_MAX	512

/*
 * KEYS[1] is the epoch's key; ARGV: the id that it must have, or nothing; the
 * id that it gets; its end in Unix milliseconds; how far away that may be.
 * Returns whether it was done, and the time by Redis.  Asking for an end in
 * the past is how to learn the time.
 */
static const char *const epoch_script =
"local t = redis.call('TIME')\n"
"local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
"local left = ARGV[3] - now\n"
"if left <= 0 or left > tonumber(ARGV[4]) then\n"
"  if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end\n"
"  return {0, now}\n"
"end\n"
"if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0, now} end\n"
"redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])\n"
"return {1, now}\n";

typedef enum EpochState
{
	EPOCH_NONE,					/* none of this connection's is alive */
	EPOCH_ASKED,
	EPOCH_ALIVE,
	EPOCH_CLOSING
} EpochState;

/* What an answer that has not come yet is about. */
typedef enum About
{
	ABOUT_NEED,					/* to succeed */
	ABOUT_LOGIN,
	ABOUT_NOTHING,				/* whatever it is */
	ABOUT_FACTS,
	ABOUT_SAVE,
	ABOUT_TIME,
	ABOUT_EPOCH,
	ABOUT_CLOSE,
	ABOUT_FENCE,
	ABOUT_ROW
} About;

/* A row of the outbox. */
typedef struct RowKey
{
	TransactionId xmin;
	pg_uuid_t	id;
} RowKey;

typedef struct Row
{
	RowKey		key;
	int64		seen_at;
	bool		done;			/* Redis has acknowledged its tombstone */
} Row;

typedef struct Awaited
{
	About		about;
	int64		sent_at;
	uint32		epoch_no;
	SmFence    *fence;			/* NULL unless this is its last tombstone */
	uint64		ticket;
	RowKey		row;
} Awaited;

/* The connection, and what is on its way over it. */
static SmRedis *redis = NULL;
static WaitEventSet *wait_set = NULL;
static uint32 waited_for;
static char address[192];
static char settings[1024];		/* all that the connection depends on */
static int64 opened_at;
static int64 opening_us = 0;
static int64 retry_at = 0;
static int64 retry_us = RETRY_MIN_US;
static bool greeted;			/* every answer to the greeting has come */
static bool ready;				/* and no older epoch is alive */
static int64 facts_at;
static Awaited *awaited = NULL; /* a ring */
static int	n_awaited = 0;
static int	first_awaited = 0;
static int	room_awaited = 0;

/* Redis's clock: what it showed, and when the answer came. */
static int64 redis_ms;
static int64 redis_ms_at;

static char epoch_key[64];
static EpochState epoch = EPOCH_NONE;
static uint32 epoch_no = 0;
static char epoch_id[33];
static int64 renew_at;
static bool close_wanted = false;

static HTAB *rows = NULL;
static int	n_undone = 0;
static uint32 commits_seen;
static int64 look_at = 0;
static int64 looked_at = 0;
static int64 look_us = 0;
static bool outbox_empty = false;

static int64 wanted_at = 0;
static int64 wake_at;
static MemoryContext loop_context;
static char database_name[NAMEDATALEN];
static char run_id[64];
static char last_logged[512];
static int64 last_logged_at = 0;
static volatile sig_atomic_t in_transaction = false;

static void handle_sigterm(SIGNAL_ARGS);
static void begin(void);
static void worker_gone(int code, Datum arg);
static void leave(void);
static bool is_wanted(void);
static bool database_is_wanted(void);
static void wake_by(int64 when);
static void take_settings(void);
static void open_connection(void);
static bool read_password(char *password);
static void greet(const char *password);
static void drop_connection(const char *problem);
static void set_link(SmLink link, const char *problem);
static void copy_plainly(char *to, const char *from, size_t size);
static void log_once(const char *text, bool good);
static void send_command(About about, int argc, const char **argv);
static Awaited *awaited_at(int i);
static void wait_and_proceed(void);
static void answer_came(const Awaited *what, const SmRedisAnswer *answer);
static bool take_time(const Awaited *what, int64 ms);
static void take_facts(const char *info);
static bool fact(const char *info, const char *name, char *value, size_t len);
static void warn_of(const char *warning);
static void take_fences(void);
static bool fence_waits(int64 now);
static bool all_is_well(void);
static bool epoch_is_dead(void);
static void epoch_has_died(void);
static void tend_epoch(void);
static void make_epoch(void);
static bool keys_are_heeded(void);
static void renew_epoch(void);
static void close_epoch(void);
static void ask_for_epoch(const char *expected, int64 now);
static bool has_committed(void);
static void look_soon(void);
static void look_at_outbox(void);
static void look_at_row(TupleTableSlot *slot, Relation rel, Snapshot snapshot,
						bool dead, int *left);
static void forget_rows(bool only_done);
static void tombstone(const pg_uuid_t *id, About about);

/*
 * The worker of one database.
 */
void
sm_cache_worker_main(Datum arg)
{
	sm_batch_connect(DatumGetObjectId(arg));
	pqsignal(SIGTERM, handle_sigterm);
	begin();
	take_settings();

	for (;;)
	{
		int64		now = sm_clock();

		MemoryContextSwitchTo(loop_context);
		MemoryContextReset(loop_context);

		CHECK_FOR_INTERRUPTS();
		wake_at = now + LOOK_US;
		if (ShutdownRequestPending)
			leave();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			take_settings();
		}
		if (now >= wanted_at)
		{
			if (database_is_wanted())
				leave();
			wanted_at = now + WANTED_US;
		}
		wake_by(wanted_at);

		if (redis == NULL && is_wanted() && now >= retry_at)
			open_connection();
		if (redis == NULL)
			wake_by(retry_at);
		if (greeted && !ready && epoch_is_dead())
		{
			ready = true;
			epoch_has_died();
		}
		if (ready)
			take_fences();
		if (has_committed())
			look_soon();
		if (is_wanted() && sm_clock() >= look_at)
			look_at_outbox();
		if (is_wanted())
			wake_by(look_at);
		tend_epoch();
		wait_and_proceed();
	}
}

/* Between transactions there is nothing to interrupt, nor to complain of. */
static void
handle_sigterm(SIGNAL_ARGS)
{
	if (in_transaction)
		die(postgres_signal_arg);
	else
		SignalHandlerForShutdownRequest(postgres_signal_arg);
}

static void
begin(void)
{
	HASHCTL		ctl = {0};
	char	   *name;
	bool		first;

	ctl.keysize = sizeof(RowKey);
	ctl.entrysize = sizeof(Row);
	rows = hash_create("session_manager outbox", 256, &ctl, HASH_ELEM | HASH_BLOBS);

	loop_context = AllocSetContextCreate(TopMemoryContext,
										 "session_manager cache worker",
										 ALLOCSET_DEFAULT_SIZES);
	StartTransactionCommand();
	name = get_database_name(MyDatabaseId);
	strlcpy(database_name, name ? name : "?", sizeof(database_name));
	CommitTransactionCommand();

	snprintf(epoch_key, sizeof(epoch_key), "session:epoch:%s",
			 DatumGetCString(DirectFunctionCall1(uuid_out,
												 UUIDPGetDatum((pg_uuid_t *) sm_database->cache.installation))));
	commits_seen = pg_atomic_read_u32(&sm_database->cache.commits);

	/* a launcher that was started again does not know of its former workers */
	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	first = (sm_database->cache.worker == NULL);
	if (first)
	{
		sm_database->cache.worker = MyLatch;
		sm_database->cache.back_soon = false;
		sm_database->cache.link = SM_LINK_DOWN;
		strlcpy(sm_database->cache.problem, "not connected yet",
				sizeof(sm_database->cache.problem));
	}
	LWLockRelease(sm_shared->cache_lock);
	if (!first)
		proc_exit(0);
	before_shmem_exit(worker_gone, (Datum) 0);
	pgstat_report_activity(STATE_IDLE, NULL);
}

static void
worker_gone(int code, Datum arg)
{
	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	sm_database->cache.worker = NULL;
	sm_database->cache.link = SM_LINK_NONE;
	sm_database->cache.epoch_at = 0;
	LWLockRelease(sm_shared->cache_lock);
}

/*
 * Go, ending the epoch if Redis answers at once, so that nobody has to wait
 * until it dies by itself.
 */
static void
leave(void)
{
	int64		until = sm_clock() + FAREWELL_US;

	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	sm_database->cache.back_soon = true;
	LWLockRelease(sm_shared->cache_lock);
	close_epoch();
	while (epoch == EPOCH_CLOSING && sm_clock() < until)
	{
		wake_at = until;
		wait_and_proceed();
	}
	proc_exit(0);
}

/* Is there to be a cache of this database? */
static bool
is_wanted(void)
{
	return sm_redis_mode != SM_REDIS_OFF &&
		!*(volatile bool *) &sm_database->cache.unwanted;
}

/*
 * Whoever drops, renames, moves or copies a database excludes the lock that a
 * connection takes as it begins, and then waits for others to go.
 */
static bool
database_is_wanted(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	(void) LockRelease(&tag, RowExclusiveLock, true);
	return false;
}

static void
wake_by(int64 when)
{
	wake_at = Min(wake_at, when);
}

/*
 * The settings have been read, perhaps anew.  Another server, or another way
 * to it, is another connection; an epoch that the old one knows dies first.
 */
static void
take_settings(void)
{
	char		now[sizeof(settings)];

	snprintf(now, sizeof(now), "%s\n%s\n%d\n%d\n%s\n%s\n%d\n%s",
			 sm_redis_socket, sm_redis_host, sm_redis_port, sm_redis_db,
			 sm_redis_user, sm_redis_password_file, sm_redis_tls, sm_redis_ca_file);
	if (sm_redis_socket[0] != '\0')
		snprintf(address, sizeof(address), "\"%s\"", sm_redis_socket);
	else
		snprintf(address, sizeof(address), "%s:%d", sm_redis_host, sm_redis_port);
	if (redis != NULL && strcmp(settings, now) != 0)
		drop_connection("its settings have changed");
	strlcpy(settings, now, sizeof(settings));
	retry_at = 0;
	if (sm_redis_mode != SM_REDIS_OFF)
		pg_atomic_write_u32(&sm_database->cache.mode, sm_redis_mode);
}

static void
open_connection(void)
{
	SmRedisAddress to = {
		.socket = sm_redis_socket,
		.host = sm_redis_host,
		.port = sm_redis_port,
		.tls = sm_redis_tls,
		.ca_file = sm_redis_ca_file
	};
	char		password[PASSWORD_MAX];

	if (!read_password(password))
		return;
	opening_us = sm_clock();
	redis = sm_redis_open(&to);
	opened_at = sm_clock();
	opening_us = opened_at - opening_us;
	redis_ms = 0;
	greeted = ready = false;
	epoch = EPOCH_NONE;
	first_awaited = n_awaited = 0;
	if (sm_redis_problem(redis) != NULL)
		drop_connection(sm_redis_problem(redis));
	else
	{
		wait_set = sm_create_wait_set(3);
		AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		waited_for = sm_redis_events(redis);
		AddWaitEventToSet(wait_set, waited_for, sm_redis_fd(redis), NULL, NULL);
		greet(password);
	}
	sm_wipe(password, sizeof(password));
}

/* False, having said why, if there is to be a password and is not. */
static bool
read_password(char *password)
{
	struct stat st;
	int			fd;
	ssize_t		len = 0;
	const char *problem = NULL;

	password[0] = '\0';
	if (sm_redis_password_file[0] == '\0')
		return true;
	fd = open(sm_redis_password_file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) != 0)
		problem = psprintf("cannot read session_manager.redis_password_file: %s", strerror(errno));
	else if (!S_ISREG(st.st_mode) || (st.st_uid != geteuid() && st.st_uid != 0))
		problem = "session_manager.redis_password_file is not a regular file of the server's user or root";
	else if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		problem = "session_manager.redis_password_file is accessible to others than its owner";
	else if ((len = read(fd, password, PASSWORD_MAX)) < 0)
		problem = psprintf("cannot read session_manager.redis_password_file: %s", strerror(errno));
	else if (len == PASSWORD_MAX)
		problem = "the password in session_manager.redis_password_file is too long";
	if (fd >= 0)
		close(fd);
	if (problem != NULL)
	{
		sm_wipe(password, PASSWORD_MAX);
		drop_connection(problem);
		return false;
	}
	password[len] = '\0';
	password[strcspn(password, "\r\n")] = '\0';
	return true;
}

static void
greet(const char *password)
{
	char		db[16];

	/* a user may have none */
	if (sm_redis_user[0] != '\0')
		send_command(ABOUT_LOGIN, 3, (const char *[]) {"AUTH", sm_redis_user, password});
	else if (password[0] != '\0')
		send_command(ABOUT_LOGIN, 2, (const char *[]) {"AUTH", password});
	snprintf(db, sizeof(db), "%d", sm_redis_db);
	send_command(ABOUT_NEED, 2, (const char *[]) {"SELECT", db});
	send_command(ABOUT_NOTHING, 3, (const char *[]) {"CLIENT", "SETNAME", "session_manager"});
	send_command(ABOUT_FACTS, 1, (const char *[]) {"INFO"});
	send_command(ABOUT_SAVE, 3, (const char *[]) {"CONFIG", "GET", "save"});
	facts_at = opened_at + FACTS_US;
	/* in case Redis has come back with what it once had on disk */
	send_command(ABOUT_NEED, 2, (const char *[]) {"DEL", epoch_key});
	send_command(ABOUT_TIME, 7, (const char *[]) {"EVAL", epoch_script, "1", epoch_key, "", "", "0"});
}

/* The connection has failed, or is not to go on. */
static void
drop_connection(const char *problem)
{
	set_link(SM_LINK_DOWN, problem);
	if (redis != NULL)
	{
		sm_count(SM_CACHE_FAILURES);
		sm_redis_close(redis);
		redis = NULL;
	}
	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
	wait_set = NULL;
	greeted = ready = false;
	epoch = EPOCH_NONE;
	first_awaited = n_awaited = 0;
	forget_rows(false);
	/* looking up a name may have taken long, and nobody was served meanwhile */
	retry_at = sm_clock() + Max(retry_us, opening_us * OPENING_SHARE);
	retry_us = Min(retry_us * 2, RETRY_MAX_US);
}

/* Let session_info know of the connection, and the log of its changes. */
static void
set_link(SmLink link, const char *problem)
{
	SmCache    *cache = &sm_database->cache;

	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	if (cache->link != link)
		cache->linked_at = GetCurrentTimestamp();
	cache->link = link;
	copy_plainly(cache->problem, problem ? problem : "", sizeof(cache->problem));
	if (link == SM_LINK_DOWN)
		cache->epoch_at = 0;
	LWLockRelease(sm_shared->cache_lock);

	if (link == SM_LINK_UP)
	{
		/* Redis does what is asked of it, so this is a connection */
		retry_us = RETRY_MIN_US;
		log_once(psprintf("session_manager is connected to Redis at %s for database \"%s\"",
						  address, database_name), true);
	}
	else if (link == SM_LINK_DOWN && redis != NULL)
		log_once(psprintf("session_manager has no connection to Redis at %s for database \"%s\": %s",
						  address, database_name, cache->problem), false);
	else if (link == SM_LINK_DOWN)
		log_once(psprintf("session_manager cannot connect to Redis for database \"%s\": %s",
						  database_name, cache->problem), false);
}

/* Copy what somebody else has written: no surprises for terminals and encodings. */
static void
copy_plainly(char *to, const char *from, size_t size)
{
	strlcpy(to, from, size);
	for (; *to != '\0'; to++)
		if (*to < ' ' || *to > '~')
			*to = '?';
}

/* A line for a change of state; where it goes to and fro, not for each. */
static void
log_once(const char *text, bool good)
{
	static bool was_good = false;

	if (strcmp(text, last_logged) == 0 ||
		(was_good == good && sm_clock() < last_logged_at + LOG_GAP_US))
		return;
	ereport(LOG, (errmsg_internal("%s", text)));
	strlcpy(last_logged, text, sizeof(last_logged));
	last_logged_at = sm_clock();
	was_good = good;
}

static void
send_command(About about, int argc, const char **argv)
{
	Awaited    *what;

	if (n_awaited == room_awaited)
	{
		int			room = Max(64, room_awaited * 2);
		Awaited    *larger = MemoryContextAlloc(TopMemoryContext, room * sizeof(Awaited));

		for (int i = 0; i < n_awaited; i++)
			larger[i] = *awaited_at(i);
		if (awaited != NULL)
			pfree(awaited);
		awaited = larger;
		first_awaited = 0;
		room_awaited = room;
	}
	what = awaited_at(n_awaited++);
	memset(what, 0, sizeof(*what));
	what->about = about;
	what->sent_at = sm_clock();
	what->epoch_no = epoch_no;
	sm_redis_send(redis, argc, argv);
}

static Awaited *
awaited_at(int i)
{
	return &awaited[(first_awaited + i) % room_awaited];
}

/* Wait until there is something to do, and take what has come. */
static void
wait_and_proceed(void)
{
	WaitEvent	events[3];
	uint32		ready_for = 0;
	SmRedisAnswer answer;
	long		timeout;
	int			n;

	if (redis != NULL)
	{
		/* mostly the socket takes it all */
		(void) sm_redis_proceed(redis, 0);
		if (n_awaited > 0)
			wake_by(awaited_at(0)->sent_at + sm_redis_timeout * MS);
	}
	timeout = (long) Max(0, (wake_at - sm_clock()) / 1000 + 1);
	if (redis == NULL)
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 timeout, PG_WAIT_EXTENSION);
	else
	{
		if (waited_for != sm_redis_events(redis))
		{
			waited_for = sm_redis_events(redis);
			ModifyWaitEvent(wait_set, 2, waited_for, NULL);
		}
		n = WaitEventSetWait(wait_set, timeout, events, lengthof(events),
							 PG_WAIT_EXTENSION);
		for (int i = 0; i < n; i++)
			if (events[i].pos == 2)
				ready_for = events[i].events;
	}
	ResetLatch(MyLatch);
	if (redis == NULL)
		return;

	/*
	 * Before PostgreSQL 17 a latch that is set hides the socket, and a worker that did
	 * not get to run has not seen it: no answer is late that has come.
	 */
	if (n_awaited > 0 && sm_redis_connected(redis))
		ready_for |= WL_SOCKET_READABLE;
	if (sm_redis_proceed(redis, ready_for))
		while (redis != NULL && sm_redis_next(redis, &answer))
		{
			Awaited		what;

			if (n_awaited == 0)
			{
				drop_connection("it answers what was not asked");
				break;
			}
			what = *awaited_at(0);
			first_awaited = (first_awaited + 1) % room_awaited;
			n_awaited--;
			answer_came(&what, &answer);
		}
	if (redis == NULL)
		return;
	if (sm_redis_problem(redis) != NULL)
		drop_connection(sm_redis_problem(redis));
	else if (n_awaited > 0 &&
			 sm_clock() > awaited_at(0)->sent_at + sm_redis_timeout * MS)
		drop_connection(sm_redis_connected(redis) ? "it does not answer" : "it does not accept the connection");
}

static void
answer_came(const Awaited *what, const SmRedisAnswer *answer)
{
	Row		   *row;

	if (answer->kind == SM_REDIS_ERROR && what->about == ABOUT_LOGIN)
	{
		/* where AUTH is not known, the rest repeats what was sent */
		drop_connection(psprintf("it refuses user or password: %.*s",
								 (int) Min(strcspn(answer->text, " "), 20), answer->text));
		return;
	}
	if (answer->kind == SM_REDIS_ERROR && what->about != ABOUT_NOTHING &&
		what->about != ABOUT_FACTS && what->about != ABOUT_SAVE)
	{
		/* the script writes one thing, or nothing at all */
		if (what->about == ABOUT_EPOCH && epoch == EPOCH_ASKED &&
			what->epoch_no == epoch_no)
			epoch_has_died();
		drop_connection(answer->text);
		return;
	}
	switch (what->about)
	{
		case ABOUT_NEED:
		case ABOUT_LOGIN:
		case ABOUT_NOTHING:
			break;
		case ABOUT_FACTS:
			if (answer->kind == SM_REDIS_TEXT)
				take_facts(answer->text);
			break;
		case ABOUT_SAVE:
			if (answer->kind == SM_REDIS_ARRAY && answer->text[0] != '\0' &&
				strcmp(answer->text, "save") != 0)
				warn_of("it saves to disk: restarted, it may serve for two seconds what was revoked");
			break;
		case ABOUT_TIME:
			(void) take_time(what, answer->integers[1]);
			greeted = true;
			set_link(SM_LINK_WAITING, NULL);
			break;
		case ABOUT_EPOCH:
			if (!take_time(what, answer->integers[1]))
				close_wanted = true;
			if (what->epoch_no != epoch_no || epoch == EPOCH_NONE)
				break;
			if (answer->integers[0] != 1)
				epoch_has_died();
			else if (epoch == EPOCH_ASKED)
			{
				epoch = EPOCH_ALIVE;
				set_link(SM_LINK_UP, NULL);
				sm_count(SM_CACHE_EPOCHS);
				LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
				sm_database->cache.epoch_at = GetCurrentTimestamp();
				LWLockRelease(sm_shared->cache_lock);
			}
			break;
		case ABOUT_CLOSE:
			if (what->epoch_no == epoch_no)
				epoch_has_died();
			break;
		case ABOUT_FENCE:
			sm_count(SM_CACHE_ACKS);
			if (what->fence == NULL)
				break;
			LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
			if (what->fence->ticket == what->ticket &&
				what->fence->state == SM_FENCE_SENT)
			{
				what->fence->state = SM_FENCE_DONE;
				SetLatch(what->fence->owner);
			}
			LWLockRelease(sm_shared->cache_lock);
			break;
		case ABOUT_ROW:
			sm_count(SM_CACHE_ACKS);
			row = hash_search(rows, &what->row, HASH_FIND, NULL);
			if (row != NULL && !row->done)
			{
				row->done = true;
				n_undone--;
			}
			look_soon();
			break;
	}
}

/*
 * Set Redis's clock here.  False if it has been set back there meanwhile: then
 * an epoch may end later than it was to.
 */
static bool
take_time(const Awaited *what, int64 ms)
{
	bool		set_back = redis_ms != 0 &&
		ms + CLOCK_TOLERANCE_MS < redis_ms + (what->sent_at - redis_ms_at) / 1000;

	redis_ms = ms;
	redis_ms_at = sm_clock();
	if (set_back)
		log_once(psprintf("clock of Redis at %s has been set back: ending the epoch for database \"%s\"",
						  address, database_name), false);
	return !set_back;
}

/* What INFO says of the server. */
static void
take_facts(const char *info)
{
	SmCache    *cache = &sm_database->cache;
	char		version[32] = "?";
	char		id[sizeof(run_id)] = "";
	char		role[32] = "";
	char		value[64];
	bool		another;

	(void) fact(info, "redis_version", version, sizeof(version));
	(void) fact(info, "run_id", id, sizeof(id));
	(void) fact(info, "role", role, sizeof(role));
	another = (run_id[0] != '\0' && strcmp(run_id, id) != 0);
	strlcpy(run_id, id, sizeof(run_id));

	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	snprintf(cache->server, sizeof(cache->server), "Redis %s, %s", version,
			 strcmp(role, "master") == 0 ? "primary" : role);
	cache->warnings[0] = '\0';
	cache->restarts += another;
	LWLockRelease(sm_shared->cache_lock);

	if (fact(info, "aof_enabled", value, sizeof(value)) && strcmp(value, "1") == 0)
		warn_of("it keeps a log on disk: restarted, it may serve for two seconds what was revoked");
	if (fact(info, "maxmemory", value, sizeof(value)) && strcmp(value, "0") != 0 &&
		fact(info, "maxmemory_policy", value, sizeof(value)) &&
		strcmp(value, "noeviction") == 0)
		warn_of("its maxmemory-policy is noeviction: full, it refuses tombstones");
	if (role[0] != '\0' && strcmp(role, "master") != 0)
		drop_connection("it is a replica, not the primary");
}

/* A line "name:value" of INFO. */
static bool
fact(const char *info, const char *name, char *value, size_t len)
{
	const char *line = info;
	size_t		name_len = strlen(name);

	while (line != NULL)
	{
		if (*line == '\n')
			line++;
		if (strncmp(line, name, name_len) == 0 && line[name_len] == ':')
		{
			size_t		n = strcspn(line + name_len + 1, "\r\n");

			copy_plainly(value, line + name_len + 1, Min(len, n + 1));
			return true;
		}
		line = strchr(line, '\n');
	}
	return false;
}

static void
warn_of(const char *warning)
{
	char	   *warnings = sm_database->cache.warnings;
	size_t		size = sizeof(sm_database->cache.warnings);

	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	if (warnings[0] != '\0')
		strlcat(warnings, "; ", size);
	strlcat(warnings, warning, size);
	LWLockRelease(sm_shared->cache_lock);
}

/* Send what commits wait for. */
static void
take_fences(void)
{
	static SmFence fence;

	if (epoch == EPOCH_NONE)
		return;					/* they see themselves that it is dead */
	for (int i = 0; i < SM_FENCES; i++)
	{
		SmFence    *place = &sm_shared->fences[i];

		/* whoever asks wakes us afterwards, so that a glance suffices */
		if (*(volatile SmFenceState *) &place->state != SM_FENCE_ASKED)
			continue;
		LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
		if (place->state != SM_FENCE_ASKED || place->database != MyDatabaseId)
		{
			LWLockRelease(sm_shared->cache_lock);
			continue;
		}
		place->state = SM_FENCE_SENT;
		memcpy(&fence, place, offsetof(SmFence, ids) + Max(place->n, 0) * sizeof(pg_uuid_t));
		LWLockRelease(sm_shared->cache_lock);

		if (fence.n < 0)
			close_wanted = true;
		for (int j = 0; j < fence.n; j++)
		{
			tombstone((pg_uuid_t *) fence.ids[j], ABOUT_FENCE);
			if (j == fence.n - 1)
			{
				awaited_at(n_awaited - 1)->fence = place;
				awaited_at(n_awaited - 1)->ticket = fence.ticket;
			}
		}
	}
}

/* Has a commit been waiting for too long?  The caller holds cache_lock. */
static bool
fence_waits(int64 now)
{
	bool		waits = false;

	for (int i = 0; i < SM_FENCES && !waits; i++)
		waits = sm_shared->fences[i].database == MyDatabaseId &&
			(sm_shared->fences[i].state == SM_FENCE_ASKED ||
			 sm_shared->fences[i].state == SM_FENCE_SENT) &&
			now > sm_shared->fences[i].since + SM_CACHE_PATIENCE_US;
	return waits;
}

/* May an epoch be made or renewed, unless a fence waits? */
static bool
all_is_well(void)
{
	int64		now = sm_clock();
	HASH_SEQ_STATUS status;
	Row		   *row;
	bool		waits = false;

	if (n_awaited > 0 && now > awaited_at(0)->sent_at + SM_CACHE_PATIENCE_US)
		return false;
	if (n_undone > 0)
	{
		hash_seq_init(&status, rows);
		while ((row = hash_seq_search(&status)) != NULL)
			waits |= (!row->done && now > row->seen_at + SM_CACHE_PATIENCE_US);
	}
	return !waits;
}

/* Is no epoch alive in Redis, for certain? */
static bool
epoch_is_dead(void)
{
	bool		dead;

	LWLockAcquire(sm_shared->cache_lock, LW_SHARED);
	dead = sm_clock() > sm_database->cache.dead_at;
	if (!dead)
		wake_by(sm_database->cache.dead_at + 1);
	LWLockRelease(sm_shared->cache_lock);
	return dead;
}

/*
 * Its time is over, or Redis has told, on the connection that it was made on.
 * Nobody has to wait for tombstones any more.
 */
static void
epoch_has_died(void)
{
	epoch = EPOCH_NONE;
	outbox_empty = false;
	look_at = 0;
	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	sm_database->cache.dead_at = 0;
	sm_database->cache.epoch_at = 0;
	for (int i = 0; i < SM_FENCES; i++)
	{
		SmFence    *place = &sm_shared->fences[i];

		if (place->state == SM_FENCE_FREE || place->database != MyDatabaseId)
			continue;
		place->state = SM_FENCE_DONE;
		SetLatch(place->owner);
	}
	LWLockRelease(sm_shared->cache_lock);
}

/* Make, renew or end an epoch, as is due. */
static void
tend_epoch(void)
{
	int64		now = sm_clock();

	if (!is_wanted())
	{
		close_epoch();
		if (epoch_is_dead())
		{
			/* so nobody caches, and writers need not care any more */
			look_at_outbox();
			if (!outbox_empty)
				return;
			pg_atomic_write_u32(&sm_database->cache.mode, SM_REDIS_OFF);
			log_once(psprintf("session_manager has no cache any more for database \"%s\"",
							  database_name), true);
			proc_exit(0);
		}
		return;
	}
	if (!ready)
		return;
	if (now >= facts_at)
	{
		send_command(ABOUT_FACTS, 1, (const char *[]) {"INFO"});
		send_command(ABOUT_SAVE, 3, (const char *[]) {"CONFIG", "GET", "save"});
		facts_at = now + FACTS_US;
	}
	switch (epoch)
	{
		case EPOCH_NONE:
			make_epoch();
			break;
		case EPOCH_ASKED:
		case EPOCH_ALIVE:
			if (close_wanted)
				close_epoch();
			else if (epoch_is_dead())
				epoch_has_died();
			else if (epoch == EPOCH_ALIVE && now >= renew_at)
				renew_epoch();
			if (epoch == EPOCH_ALIVE)
				wake_by(renew_at);
			break;
		case EPOCH_CLOSING:
			if (epoch_is_dead())
				epoch_has_died();
			break;
	}
}

/*
 * Make an epoch, unless there is something that the next one must come after.
 */
static void
make_epoch(void)
{
	LOCKTAG		tag;
	int64		now;
	bool		waits;
	uint8		id[16];

	close_wanted = false;
	wake_by(sm_clock() + AGAIN_US);
	if (!all_is_well())
		return;
	if (!outbox_empty || has_committed())
		look_at_outbox();
	if (!outbox_empty || !keys_are_heeded())
		return;
	/* whoever revokes a key holds this until everybody can know */
	sm_cache_lock_tag(&tag);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return;
	if (has_committed())
	{
		/* it may have been just they, and have left something in the outbox */
		(void) LockRelease(&tag, ExclusiveLock, true);
		wake_by(0);
		return;
	}
	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	now = sm_clock();
	waits = fence_waits(now);
	if (!waits)
		sm_database->cache.dead_at = now + SM_EPOCH_MAX_US;
	LWLockRelease(sm_shared->cache_lock);
	(void) LockRelease(&tag, ExclusiveLock, true);
	if (waits)
		return;

	sm_random(id, sizeof(id));
	sm_hex_encode(epoch_id, id, sizeof(id));
	epoch_no++;
	epoch = EPOCH_ASKED;
	forget_rows(false);
	ask_for_epoch("", now);
}

/*
 * Has everybody who is changing session_keys begun to when the cache was on?
 * Who began before left no note, and no row is stamped by it.
 */
static bool
keys_are_heeded(void)
{
	static bool heeded = false;
	const SmSchema *schema;

	if (heeded)
		return true;
	in_transaction = true;
	schema = sm_batch_begin("waiting for changes of keys");
	if (schema != NULL)
	{
		heeded = ConditionalLockRelationOid(schema->keys, ShareLock);
		sm_batch_end();
	}
	MemoryContextSwitchTo(loop_context);
	in_transaction = false;
	pgstat_report_activity(STATE_IDLE, NULL);
	return heeded;
}

static void
renew_epoch(void)
{
	bool		well = all_is_well();
	int64		now;
	bool		dead;

	/* one look at the clock: a commit waits no longer because we did not run */
	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	now = sm_clock();
	/* who has found it dead must not be proved wrong */
	dead = (now > sm_database->cache.dead_at);
	well = well && !dead && !fence_waits(now);
	if (well)
		sm_database->cache.dead_at = now + SM_EPOCH_MAX_US;
	LWLockRelease(sm_shared->cache_lock);
	if (dead)
		epoch_has_died();
	else if (well)
		ask_for_epoch(epoch_id, now);
	else
		renew_at = now + AGAIN_US;
}

/* End the epoch before its time. */
static void
close_epoch(void)
{
	if (epoch != EPOCH_ASKED && epoch != EPOCH_ALIVE)
		return;
	send_command(ABOUT_CLOSE, 2, (const char *[]) {"DEL", epoch_key});
	epoch = EPOCH_CLOSING;
}

/*
 * Redis showed redis_ms before redis_ms_at, so it shows more now than what
 * that adds up to; the end asked for is at most SM_EPOCH_MS away.
 */
static void
ask_for_epoch(const char *expected, int64 now)
{
	char		end[24];

	snprintf(end, sizeof(end), INT64_FORMAT,
			 redis_ms + (now - redis_ms_at) / 1000 + SM_EPOCH_MS);
	send_command(ABOUT_EPOCH, 8,
				 (const char *[]) {"EVAL", epoch_script, "1", epoch_key,
								   expected, epoch_id, end, CLOCK_SLACK_MS});
	renew_at = now + RENEW_US;
}

/* Has anybody left something in the outbox since we last looked? */
static bool
has_committed(void)
{
	return pg_atomic_read_u32(&sm_database->cache.commits) != commits_seen;
}

/*
 * There is something in the outbox, or something to be deleted.  In strict mode
 * Redis knows it already.  A table that cannot be vacuumed, because of an old
 * transaction, takes long to read: then this is done less often.
 */
static void
look_soon(void)
{
	bool		waiting = sm_redis_mode == SM_REDIS_ASYNC || close_wanted;
	int64		gap = Min(look_us * LOOK_SHARE, waiting ? SM_CACHE_PATIENCE_US : LOOK_US);

	look_at = Min(look_at, looked_at + Max(gap, waiting ? AGAIN_US : TIDY_US));
}

/*
 * See what has been committed, send tombstones for it, and delete what they
 * have been acknowledged for.
 */
static void
look_at_outbox(void)
{
	const SmSchema *schema;
	Relation	rel;
	Snapshot	snapshot;
	TupleTableSlot *slot;
	TableScanDesc scan;
	bool		dead = epoch_is_dead();
	int			seen = 0;
	int			left = 0;

	commits_seen = pg_atomic_read_u32(&sm_database->cache.commits);
	looked_at = sm_clock();
	look_at = looked_at + LOOK_US;
	in_transaction = true;
	schema = sm_batch_begin("looking at what the cache has to hear of");
	if (schema == NULL)
	{
		in_transaction = false;
		leave();
	}
	/* what comes back after a crash is deleted again */
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	rel = table_open(schema->outbox, RowExclusiveLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while (seen < LOOK_ROWS && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		seen++;
		look_at_row(slot, rel, snapshot, dead, &left);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	sm_batch_end();
	MemoryContextSwitchTo(loop_context);
	in_transaction = false;
	pgstat_report_activity(STATE_IDLE, NULL);

	look_us = sm_clock() - looked_at;
	forget_rows(true);
	outbox_empty = (left == 0 && seen < LOOK_ROWS);
	if (seen == LOOK_ROWS)
	{
		/* too many to tell one by one */
		close_wanted = true;
		look_at = 0;
	}
}

static void
look_at_row(TupleTableSlot *slot, Relation rel, Snapshot snapshot, bool dead,
			int *left)
{
	RowKey		key = {0};
	Row		   *row = NULL;
	bool		isnull;
	bool		found = false;
	Datum		id = slot_getattr(slot, Anum_outbox_session_id, &isnull);
	TM_FailureData failure;

	if (!dead && !isnull)
	{
		bool		xmin_isnull;

		key.xmin = DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber,
														 &xmin_isnull));
		key.id = *DatumGetUUIDP(id);
		row = hash_search(rows, &key, HASH_FIND, NULL);
	}
	if (dead || (row != NULL && row->done))
	{
		/* fails if somebody else has deleted it */
		(void) table_tuple_delete(rel, &slot->tts_tid, GetCurrentCommandId(true),
								  snapshot, InvalidSnapshot, false, &failure, false);
		return;
	}
	(*left)++;
	if (row != NULL)
		return;
	if (isnull || *left > SM_CACHE_MAX_IDS)
		close_wanted = true;
	if (close_wanted || epoch == EPOCH_NONE)
		return;
	row = hash_search(rows, &key, HASH_ENTER, &found);
	row->seen_at = sm_clock();
	row->done = false;
	n_undone++;
	tombstone(&key.id, ABOUT_ROW);
	awaited_at(n_awaited - 1)->row = key;
}

/* Forget rows that have been deleted, or what was sent for all of them. */
static void
forget_rows(bool only_done)
{
	HASH_SEQ_STATUS status;
	Row		   *row;

	if (hash_get_num_entries(rows) == 0)
		return;
	hash_seq_init(&status, rows);
	while ((row = hash_seq_search(&status)) != NULL)
		if (row->done || !only_done)
		{
			if (!row->done)
				n_undone--;
			(void) hash_search(rows, &row->key, HASH_REMOVE, NULL);
		}
}

static void
tombstone(const pg_uuid_t *id, About about)
{
	char		key[64];
	const char *argv[] = {"SET", key, "T", "PX", TOMBSTONE_MS};

	snprintf(key, sizeof(key), "session:%s",
			 DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id))));
	send_command(about, lengthof(argv), argv);
	sm_count(SM_CACHE_TOMBSTONES);
}
