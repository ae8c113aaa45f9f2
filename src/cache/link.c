/*-------------------------------------------------------------------------
 *
 * link.c
 *	  The cache worker's connection to Redis, and what is on its way over it.
 *
 * Only sm_link_wait waits, and there the worker spends its time.  Each command
 * names a handler, which is given the answer when it comes; answers come in
 * the order of the commands.  An error that the handler does not expect ends
 * the connection, as does an answer that takes too long.  Then the handlers of
 * the commands that are not answered are not called, and the worker is told.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "cache/link.h"
#include "compat.h"
#include "keys/crypto.h"
#include "secret_file.h"

#define MS				INT64CONST(1000)	/* of sm_clock() */

/* When a connection that failed is tried again: later each time. */
#define RETRY_MIN_US	(100 * MS)
#define RETRY_MAX_US	(1000 * MS)

/* Opening a connection takes at most one part in so many of the time. */
#define OPENING_SHARE	10

/*
 * How often the log tells that a connection came or went, while it does both.
 */
#define LOG_GAP_US		(1000 * MS)

#define PASSWORD_MAX	512

/* The words of a command, and the NULL after them. */
#define MAX_WORDS		9

/* Where the socket is in the set of events. */
#define SOCKET_POSITION	2

/* The connection; redis is NULL while there is none. */
static struct
{
	SmRedis    *redis;
	WaitEventSet *wait_set;
	uint32		waited_for;		/* of the socket */
	char		database[NAMEDATALEN];
	void		(*dropped) (void);	/* tells the worker */
	char		address[192];
	char		settings[1024]; /* all that the connection depends on */
	int64		opening_us;		/* what it took to open it */
	int64		retry_at;
	int64		retry_us;
	int64		wake_at;		/* when the worker has something to do */
}			connection = {.retry_us = RETRY_MIN_US,.wake_at = PG_INT64_MAX};

/* Commands whose answers have not come: a ring, in the order of sending. */
static struct
{
	SmRequest  *ring;
	int			first;
	int			n;
	int			room;
}			pending;

static const char *password_file_problem(const struct stat *st);
static bool read_password(char *password);
static bool watch_socket(void);
static void send_login(const char *password);
static void login_answered(const SmRequest *request, const SmRedisAnswer *answer);
static void ignore_answer(const SmRequest *request, const SmRedisAnswer *answer);
static SmRequest *pending_at(int i);
static void grow_ring(void);
static uint32 wait_for_events(void);
static void handle_answers(void);

/*
 * "dropped" is called whenever a connection has ended.
 */
void
sm_link_init(const char *database, void (*dropped) (void))
{
	strlcpy(connection.database, database, sizeof(connection.database));
	connection.dropped = dropped;
}

/*
 * The settings have been read, perhaps again.  Another server, or another way
 * to it, is another connection.
 */
void
sm_link_configure(void)
{
	char		now[sizeof(connection.settings)];

	snprintf(now, sizeof(now), "%s\n%s\n%d\n%d\n%s\n%s\n%d\n%s",
			 sm_redis_socket, sm_redis_host, sm_redis_port, sm_redis_db,
			 sm_redis_user, sm_redis_password_file, sm_redis_tls, sm_redis_ca_file);
	if (sm_redis_socket[0] != '\0')
		snprintf(connection.address, sizeof(connection.address), "\"%s\"",
				 sm_redis_socket);
	else
		snprintf(connection.address, sizeof(connection.address), "%s:%d",
				 sm_redis_host, sm_redis_port);
	if (connection.redis != NULL && strcmp(connection.settings, now) != 0)
		sm_link_drop("the settings have changed");
	strlcpy(connection.settings, now, sizeof(connection.settings));
	connection.retry_at = 0;
}

bool
sm_link_is_open(void)
{
	return connection.redis != NULL;
}

int64
sm_link_retry_at(void)
{
	return connection.retry_at;
}

/*
 * Begin to connect and to log in.  False, having said why, if that has failed
 * at once.
 */
bool
sm_link_open(void)
{
	SmRedisAddress to = {
		.socket = sm_redis_socket,
		.host = sm_redis_host,
		.port = sm_redis_port,
		.tls = sm_redis_tls,
		.ca_file = sm_redis_ca_file
	};
	char		password[PASSWORD_MAX];
	int64		started_at;
	bool		opened;

	if (!read_password(password))
		return false;
	started_at = sm_clock();
	connection.redis = sm_redis_open(&to);
	connection.opening_us = sm_clock() - started_at;
	opened = watch_socket();
	if (opened)
		send_login(password);
	sm_wipe(password, sizeof(password));
	return opened;
}

/* Why the password is not taken from a file, or NULL. */
static const char *
password_file_problem(const struct stat *st)
{
	switch (sm_secret_file_check(st))
	{
		case SM_SECRET_FILE_NOT_REGULAR:
			return "session_manager.redis_password_file is not a regular file";
		case SM_SECRET_FILE_NOT_OURS:
			return "session_manager.redis_password_file belongs neither to the server's user nor to root";
		case SM_SECRET_FILE_OPEN:
			return "session_manager.redis_password_file is accessible to others; its mode must be 0600 or stricter, or 0640 if root owns it";
		case SM_SECRET_FILE_OK:
			break;
	}
	return NULL;
}

/* False, having said why, if a password is wanted that cannot be read. */
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
	/* links are followed, as a mounted secret is one */
	fd = open(sm_redis_password_file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) != 0)
		problem = psprintf("could not read session_manager.redis_password_file: %s", strerror(errno));
	else if ((problem = password_file_problem(&st)) != NULL)
		 /* nothing is read from it */ ;
	else if ((len = read(fd, password, PASSWORD_MAX)) < 0)
		problem = psprintf("could not read session_manager.redis_password_file: %s", strerror(errno));
	else if (len == PASSWORD_MAX)
		problem = "the password in session_manager.redis_password_file is too long";
	if (fd >= 0)
		close(fd);
	if (problem != NULL)
	{
		sm_wipe(password, PASSWORD_MAX);
		sm_link_drop(problem);
		return false;
	}
	password[len] = '\0';
	password[strcspn(password, "\r\n")] = '\0';
	return true;
}

/* False if there is no socket, because connecting has failed at once. */
static bool
watch_socket(void)
{
	const char *problem = sm_redis_problem(connection.redis);

	if (problem != NULL)
	{
		sm_link_drop(problem);
		return false;
	}
	connection.waited_for = sm_redis_events(connection.redis);
	connection.wait_set = sm_create_wait_set(3);
	AddWaitEventToSet(connection.wait_set, WL_LATCH_SET, PGINVALID_SOCKET,
					  MyLatch, NULL);
	AddWaitEventToSet(connection.wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET,
					  NULL, NULL);
	AddWaitEventToSet(connection.wait_set, connection.waited_for,
					  sm_redis_fd(connection.redis), NULL, NULL);
	return true;
}

static void
send_login(const char *password)
{
	char		db[16];

	/* a user may have none */
	if (sm_redis_user[0] != '\0')
		sm_link_send(login_answered, NULL, 0,
					 "AUTH", sm_redis_user, password, NULL);
	else if (password[0] != '\0')
		sm_link_send(login_answered, NULL, 0, "AUTH", password, NULL);
	snprintf(db, sizeof(db), "%d", sm_redis_db);
	sm_link_send(sm_link_expect_success, NULL, 0, "SELECT", db, NULL);
	sm_link_send(ignore_answer, NULL, 0,
				 "CLIENT", "SETNAME", "session_manager", NULL);
}

static void
login_answered(const SmRequest *request, const SmRedisAnswer *answer)
{
	/* where AUTH is not known, the rest repeats what was sent */
	if (answer->kind == SM_REDIS_ERROR)
		sm_link_drop(psprintf("user or password refused: %.*s",
							  (int) Min(strcspn(answer->text, " "), 20),
							  answer->text));
}

static void
ignore_answer(const SmRequest *request, const SmRedisAnswer *answer)
{
}

/*
 * The connection has failed, or must end.
 */
void
sm_link_drop(const char *problem)
{
	sm_link_report(SM_LINK_DOWN, problem);
	if (connection.redis != NULL)
	{
		sm_count(SM_CACHE_FAILURES);
		sm_redis_close(connection.redis);
		connection.redis = NULL;
	}
	if (connection.wait_set != NULL)
		FreeWaitEventSet(connection.wait_set);
	connection.wait_set = NULL;
	pending.first = pending.n = 0;
	connection.dropped();
	/* looking up a name may have taken long, and nobody was served meanwhile */
	connection.retry_at = sm_clock() +
		Max(connection.retry_us, connection.opening_us * OPENING_SHARE);
	connection.retry_us = Min(connection.retry_us * 2, RETRY_MAX_US);
}

/*
 * Send a command: its words, and NULL after them.  The answer goes to
 * "handler", with a copy of "context".
 */
void
sm_link_send(SmAnswerHandler handler, const void *context, size_t context_size,
			 ...)
{
	SmRequest  *request;
	const char *argv[MAX_WORDS];
	int			argc = 0;
	va_list		words;

	va_start(words, context_size);
	while ((argv[argc] = va_arg(words, const char *)) != NULL)
	{
		argc++;
		Assert(argc < MAX_WORDS);
	}
	va_end(words);
	Assert(context_size <= sizeof(request->context));
	if (pending.n == pending.room)
		grow_ring();
	request = pending_at(pending.n++);
	memset(request, 0, sizeof(*request));
	request->handler = handler;
	request->sent_at = sm_clock();
	if (context_size > 0)
		memcpy(request->context, context, context_size);
	sm_redis_send(connection.redis, argc, argv);
}

/*
 * A handler for commands that must succeed, and return nothing of interest.
 */
void
sm_link_expect_success(const SmRequest *request, const SmRedisAnswer *answer)
{
	(void) sm_link_is_success(answer);
}

/*
 * False, having ended the connection, if an answer is an error.
 */
bool
sm_link_is_success(const SmRedisAnswer *answer)
{
	if (answer->kind != SM_REDIS_ERROR)
		return true;
	sm_link_drop(answer->text);
	return false;
}

/*
 * Has an answer not come for too long for an epoch to be made or renewed?
 */
bool
sm_link_is_overdue(int64 now)
{
	return pending.n > 0 && now > pending_at(0)->sent_at + SM_CACHE_PATIENCE_US;
}

static SmRequest *
pending_at(int i)
{
	return &pending.ring[(pending.first + i) % pending.room];
}

static void
grow_ring(void)
{
	int			room = Max(64, pending.room * 2);
	SmRequest  *larger = MemoryContextAlloc(TopMemoryContext, room * sizeof(SmRequest));

	for (int i = 0; i < pending.n; i++)
		larger[i] = *pending_at(i);
	if (pending.ring != NULL)
		pfree(pending.ring);
	pending.ring = larger;
	pending.first = 0;
	pending.room = room;
}

/*
 * The worker has something to do at a given time, by sm_clock(), so that it
 * must not wait for longer.
 */
void
sm_link_wake_by(int64 when)
{
	connection.wake_at = Min(connection.wake_at, when);
}

/*
 * Wait until there is something to do, and hand out the answers that have
 * come.
 */
void
sm_link_wait(void)
{
	uint32		ready_for;
	int64		timeout_us = sm_redis_timeout * MS;

	if (connection.redis != NULL)
	{
		/* mostly the socket takes it all */
		(void) sm_redis_proceed(connection.redis, 0);
		if (pending.n > 0)
			sm_link_wake_by(pending_at(0)->sent_at + timeout_us);
	}
	ready_for = wait_for_events();
	connection.wake_at = PG_INT64_MAX;
	if (connection.redis == NULL)
		return;

	/*
	 * Before PostgreSQL 17 a latch that is set hides the socket, and a worker
	 * that did not get to run has not seen it: no answer is late that has
	 * come.
	 */
	if (pending.n > 0 && sm_redis_connected(connection.redis))
		ready_for |= WL_SOCKET_READABLE;
	if (sm_redis_proceed(connection.redis, ready_for))
		handle_answers();
	if (connection.redis == NULL)
		return;
	if (sm_redis_problem(connection.redis) != NULL)
		sm_link_drop(sm_redis_problem(connection.redis));
	else if (pending.n > 0 && sm_clock() > pending_at(0)->sent_at + timeout_us)
		sm_link_drop(sm_redis_connected(connection.redis) ?
					 "the server does not answer" : "the server does not accept the connection");
}

/* Returns what the socket is ready for. */
static uint32
wait_for_events(void)
{
	WaitEvent	events[3];
	uint32		ready_for = 0;
	long		timeout = (long) Max(0, (connection.wake_at - sm_clock()) / 1000 + 1);

	if (connection.redis == NULL)
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 timeout, PG_WAIT_EXTENSION);
	else
	{
		int			n;

		if (connection.waited_for != sm_redis_events(connection.redis))
		{
			connection.waited_for = sm_redis_events(connection.redis);
			ModifyWaitEvent(connection.wait_set, SOCKET_POSITION,
							connection.waited_for, NULL);
		}
		n = WaitEventSetWait(connection.wait_set, timeout, events,
							 lengthof(events), PG_WAIT_EXTENSION);
		for (int i = 0; i < n; i++)
			if (events[i].pos == SOCKET_POSITION)
				ready_for = events[i].events;
	}
	ResetLatch(MyLatch);
	return ready_for;
}

static void
handle_answers(void)
{
	SmRedisAnswer answer;

	/* a handler may end the connection */
	while (connection.redis != NULL && sm_redis_next(connection.redis, &answer))
	{
		SmRequest	request;

		if (pending.n == 0)
		{
			sm_link_drop("unexpected reply");
			return;
		}
		request = *pending_at(0);
		pending.first = (pending.first + 1) % pending.room;
		pending.n--;
		request.handler(&request, &answer);
	}
}

/*
 * Let session_info know of the connection, and the log of its changes.
 */
void
sm_link_report(SmLinkState state, const char *problem)
{
	SmCache    *cache = sm_cache;

	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	if (cache->link != state)
		cache->linked_at = GetCurrentTimestamp();
	cache->link = state;
	sm_copy_ascii(cache->problem, problem ? problem : "", sizeof(cache->problem));
	if (state == SM_LINK_DOWN)
		cache->epoch_at = 0;
	LWLockRelease(sm_shared->cache_lock);

	if (state == SM_LINK_UP)
	{
		/* Redis carries out commands, so this is a connection */
		connection.retry_us = RETRY_MIN_US;
		sm_link_log(true, psprintf("session_manager is connected to Redis at %s for database \"%s\"",
								   connection.address, connection.database));
	}
	else if (state == SM_LINK_DOWN && connection.redis != NULL)
		sm_link_log(false, psprintf("session_manager has no connection to Redis at %s for database \"%s\": %s",
									connection.address, connection.database, cache->problem));
	else if (state == SM_LINK_DOWN)
		sm_link_log(false, psprintf("session_manager cannot connect to Redis for database \"%s\": %s",
									connection.database, cache->problem));
}

/*
 * Log a change of state once; while it keeps changing, not each change.
 */
void
sm_link_log(bool good, const char *text)
{
	static struct
	{
		char		line[512];
		int64		at;
		bool		good;
	}			last;

	if (strcmp(text, last.line) == 0 ||
		(last.good == good && sm_clock() < last.at + LOG_GAP_US))
		return;
	ereport(LOG, (errmsg_internal("%s", text)));
	strlcpy(last.line, text, sizeof(last.line));
	last.at = sm_clock();
	last.good = good;
}

const char *
sm_link_address(void)
{
	return connection.address;
}

const char *
sm_link_database(void)
{
	return connection.database;
}

/*
 * Copy what somebody else has written: nothing that terminals or encodings
 * could stumble over.
 */
void
sm_copy_ascii(char *to, const char *from, size_t size)
{
	strlcpy(to, from, size);
	for (; *to != '\0'; to++)
		if (*to < ' ' || *to > '~')
			*to = '?';
}
