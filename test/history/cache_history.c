/*-------------------------------------------------------------------------
 *
 * cache_history.c
 *	  Read, change and revoke sessions from many processes, through the reader
 *	  in examples/, and check every answer against what had been acknowledged
 *	  before the read began.
 *
 *	cache_history CONNINFO REDIS KEYFILE SECONDS DEAD_MS
 *
 * Each session has one process that changes it; all processes read it.  Before
 * a read, its process notes what has been acknowledged: a version, perhaps the
 * revocation.  An answer that is older is stale, by the time from that
 * acknowledgement to the beginning of the read, and an answer "none" for a
 * session that nobody had begun to revoke is wrong.  All processes share one
 * monotonic clock, and see each other's acknowledgements through shared memory,
 * so that "before" is real time.
 *
 * A session lives for up to three seconds, and is read for DEAD_MS more after
 * its revocation.  What an error leaves open is not held against anybody.
 * Prints "name value" lines for the test that runs it, times in ms.
 *
 *-------------------------------------------------------------------------
 */
#define CACHE_READER_LIBRARY
#include "cache_reader.c"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES	16
#define OWN			4			/* sessions of each process */
#define SESSIONS	(PROCESSES * OWN)
#define VERSIONS	8
#define MS			1000		/* in microseconds */

/* What everybody may know of a session. */
typedef struct Known
{
	unsigned	generation;
	char		token[TOKEN_LEN + 1];
	int			version;		/* acknowledged last */
	int64_t		acknowledged_at[VERSIONS + 1];
	int64_t		revoked_at;		/* acknowledged; 0: not yet */
	bool		revoking;
} Known;

typedef struct Session
{
	_Atomic unsigned sequence;	/* odd while its process writes */
	Known		known;
} Session;

typedef struct Results
{
	int64_t		reads;
	int64_t		cache;
	int64_t		database;
	int64_t		none;
	int64_t		errors;
	int64_t		revocations;
	int64_t		updates;
	int64_t		failed_changes;
	int64_t		stale_cache;
	int64_t		stale_database;
	int64_t		wrongly_none;
	int64_t		max_stale;
	int64_t		max_commit;
	int64_t		max_read;
} Results;

typedef struct Shared
{
	Session		sessions[SESSIONS];
	Results		results[PROCESSES];
	atomic_int	connected;
	_Atomic int64_t end;		/* 0 until all processes are connected */
} Shared;

static Shared *shared;
static Results *mine;
static CacheReader reader;
static int64_t dead_time;

/* What the owner plans with its sessions. */
static Known own[OWN];
static int64_t update_at[OWN];
static int64_t revoke_at[OWN];

static int64_t
now_us(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

static Known
look(int i)
{
	Session    *session = &shared->sessions[i];
	Known		copy;
	unsigned	before;

	do
	{
		before = atomic_load_explicit(&session->sequence, memory_order_acquire);
		copy = session->known;
		atomic_thread_fence(memory_order_acquire);
	} while (before % 2 != 0 ||
			 before != atomic_load_explicit(&session->sequence, memory_order_relaxed));
	return copy;
}

static void
publish(int i, const Known *known)
{
	Session    *session = &shared->sessions[i];

	atomic_fetch_add(&session->sequence, 1);
	atomic_thread_fence(memory_order_release);
	session->known = *known;
	atomic_fetch_add(&session->sequence, 1);
}

static void
stale(const char *what, SessionSource source, int64_t by)
{
	if (source == SESSION_CACHE)
		mine->stale_cache++;
	else
		mine->stale_database++;
	if (by > mine->max_stale)
	{
		mine->max_stale = by;
		fprintf(stderr, "%s: an answer of %s, stale by %.3f ms\n", what,
				source == SESSION_CACHE ? "the cache" : "the database", by / 1000.0);
	}
}

/* Read a session and check the answer. */
static void
check_read(int i)
{
	Known		before = look(i);
	Known		after;
	int64_t		began;
	int64_t		took;
	SessionSource source;
	char	   *row;

	if (before.generation == 0)
		return;
	began = now_us();
	source = session_read(&reader, before.token, &row);
	took = now_us() - began;

	mine->reads++;
	if (took > mine->max_read)
		mine->max_read = took;
	if (source == SESSION_ERROR)
	{
		mine->errors++;
		usleep(20 * MS);
	}
	else if (source == SESSION_NONE)
	{
		mine->none++;
		after = look(i);
		if (after.generation == before.generation && !after.revoking)
			mine->wrongly_none++;
	}
	else
	{
		const char *member = strstr(row, "\"version\": ");
		int			version = member != NULL ? atoi(member + 11) : 0;

		if (source == SESSION_CACHE)
			mine->cache++;
		else
			mine->database++;
		if (before.revoked_at != 0)
			stale("revoked", source, began - before.revoked_at);
		else if (version < before.version)
			stale("changed", source, began - before.acknowledged_at[version + 1]);
	}
	free(row);
}

/*
 * The server tells the time before the change and after its commit, of its own
 * accord, so that it does not count how long this process waits for a processor.
 */
static PGresult *
change(const char *sql, const char *token)
{
	static const char clock[] = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
	Token		parsed;
	const char *parameter = parsed.digest_form;
	PGconn	   *pg = reader.pg;
	PGresult   *results[3] = {NULL, NULL, NULL};
	bool		ok = true;

	if (!token_parse(&reader, token, &parsed))
		abort();
	if (PQstatus(pg) != CONNECTION_OK)
		PQreset(pg);
	if (PQenterPipelineMode(pg))
	{
		/* each between two syncs, that is in a transaction of its own */
		ok = PQsendQueryParams(pg, clock, 0, NULL, NULL, NULL, NULL, 0) &&
			PQpipelineSync(pg) &&
			PQsendQueryParams(pg, sql, 1, NULL, &parameter, NULL, NULL, 0) &&
			PQpipelineSync(pg) &&
			PQsendQueryParams(pg, clock, 0, NULL, NULL, NULL, NULL, 0) &&
			PQpipelineSync(pg);
		for (int i = 0; ok && i < 3; i++)
		{
			PGresult   *sync;

			results[i] = PQgetResult(pg);
			ok = PQresultStatus(results[i]) == PGRES_TUPLES_OK;
			if (!ok)
				fprintf(stderr, "%s", PQerrorMessage(pg));
			/* the end of the query, and the sync, which tells of the commit */
			PQclear(PQgetResult(pg));
			sync = PQgetResult(pg);
			ok = ok && PQresultStatus(sync) == PGRES_PIPELINE_SYNC;
			PQclear(sync);
		}

		/*
		 * what is left of the pipeline after an error goes with the
		 * connection
		 */
		if (!ok || !PQexitPipelineMode(pg))
			PQreset(pg);
	}
	else
		ok = false;
	if (ok)
	{
		int64_t		took = atoll(PQgetvalue(results[2], 0, 0)) -
			atoll(PQgetvalue(results[0], 0, 0));

		if (took > mine->max_commit)
			mine->max_commit = took;
	}
	else
	{
		mine->failed_changes++;
		PQclear(results[1]);
		results[1] = NULL;
	}
	PQclear(results[0]);
	PQclear(results[2]);
	return results[1];
}

static void
create(int k, int i)
{
	Known	   *known = &own[k];
	unsigned	generation = known->generation + 1;
	PGresult   *result = query(&reader, "SELECT session_token FROM session_create('history', '{\"n\": 1}')", NULL);

	if (result == NULL)
		return;
	memset(known, 0, sizeof(*known));
	known->generation = generation;
	snprintf(known->token, sizeof(known->token), "%s", PQgetvalue(result, 0, 0));
	known->version = 1;
	PQclear(result);
	publish(i, known);
	revoke_at[k] = now_us() + (500 + randombytes_uniform(2500)) * MS;
	/* most are left alone, as a change keeps a session out of the cache */
	update_at[k] = randombytes_uniform(3) > 0 ? INT64_MAX :
		now_us() + randombytes_uniform(2500) * MS;
}

static void
update(int k, int i)
{
	Known	   *known = &own[k];
	PGresult   *result = change("SELECT version FROM session_update($1, jsonb_build_object('n', clock_timestamp()))",
								known->token);
	int			version;

	update_at[k] = INT64_MAX;
	if (result == NULL)
		return;
	version = PQntuples(result) == 1 ? atoi(PQgetvalue(result, 0, 0)) : 0;
	PQclear(result);
	if (version <= known->version || version > VERSIONS)
		return;
	/* one in between was changed by an update that was not acknowledged */
	while (known->version < version)
		known->acknowledged_at[++known->version] = now_us();
	mine->updates++;
	publish(i, known);
	check_read(i);
}

static void
end_session(int k, int i)
{
	Known	   *known = &own[k];
	PGresult   *result;

	known->revoking = true;
	publish(i, known);
	result = change("SELECT session_invalidate($1)", known->token);
	if (result == NULL)
		return;					/* and try again */
	PQclear(result);
	known->revoked_at = now_us();
	mine->revocations++;
	publish(i, known);
	check_read(i);
}

static void
run(int process)
{
	int64_t		end;

	while ((end = atomic_load(&shared->end)) == 0)
		usleep(MS);
	while (now_us() < end)
	{
		for (int k = 0; k < OWN; k++)
		{
			int			i = process * OWN + k;
			int64_t		now = now_us();

			if (own[k].generation == 0 ||
				(own[k].revoked_at != 0 && now > own[k].revoked_at + dead_time))
				create(k, i);
			else if (own[k].revoked_at == 0 && now > revoke_at[k])
				end_session(k, i);
			else if (own[k].revoked_at == 0 && !own[k].revoking && now > update_at[k])
				update(k, i);
		}
		for (int n = 0; n < 8; n++)
			check_read((int) randombytes_uniform(SESSIONS));
		usleep(2 * MS + randombytes_uniform(6 * MS));
	}
}

static void
report(const char *name, size_t offset, bool is_time)
{
	int64_t		sum = 0;
	int64_t		max = 0;

	for (int p = 0; p < PROCESSES; p++)
	{
		int64_t		value = *(int64_t *) ((char *) &shared->results[p] + offset);

		sum += value;
		if (value > max)
			max = value;
	}
	if (is_time)
		printf("%s %.1f\n", name, max / 1000.0);
	else
		printf("%s %" PRId64 "\n", name, sum);
}

int
main(int argc, char **argv)
{
	int			failed = 0;

	if (argc != 6)
	{
		fprintf(stderr, "usage: %s CONNINFO REDIS KEYFILE SECONDS DEAD_MS\n", argv[0]);
		return 2;
	}
	shared = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
	{
		perror("mmap");
		return 1;
	}
	dead_time = atoll(argv[5]) * MS;

	for (int process = 0; process < PROCESSES; process++)
	{
		pid_t		pid = fork();

		if (pid < 0)
		{
			perror("fork");
			return 1;
		}
		if (pid == 0)
		{
			mine = &shared->results[process];
			if (!cache_reader_open(&reader, argv[1], argv[2], argv[3]))
				_exit(1);
			atomic_fetch_add(&shared->connected, 1);
			run(process);
			cache_reader_close(&reader);
			_exit(0);
		}
	}
	/* nothing may go wrong before all are there, however busy the machine is */
	while (failed == 0 && atomic_load(&shared->connected) < PROCESSES)
	{
		if (waitpid(-1, NULL, WNOHANG) > 0)
			failed++;
		usleep(MS);
	}
	atomic_store(&shared->end, now_us() + (int64_t) (atof(argv[4]) * SECOND));
	printf("connected %d\n", atomic_load(&shared->connected));
	fflush(stdout);

	for (int process = failed; process < PROCESSES; process++)
	{
		int			status;

		if (wait(&status) < 0 || status != 0)
			failed++;
	}

	report("reads", offsetof(Results, reads), false);
	report("cache", offsetof(Results, cache), false);
	report("database", offsetof(Results, database), false);
	report("none", offsetof(Results, none), false);
	report("errors", offsetof(Results, errors), false);
	report("revocations", offsetof(Results, revocations), false);
	report("updates", offsetof(Results, updates), false);
	report("failed_changes", offsetof(Results, failed_changes), false);
	report("stale_cache", offsetof(Results, stale_cache), false);
	report("stale_database", offsetof(Results, stale_database), false);
	report("wrongly_none", offsetof(Results, wrongly_none), false);
	report("max_stale", offsetof(Results, max_stale), true);
	report("max_commit", offsetof(Results, max_commit), true);
	report("max_read", offsetof(Results, max_read), true);
	printf("failed_processes %d\n", failed);
	return failed > 0;
}
