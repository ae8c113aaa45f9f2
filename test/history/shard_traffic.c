/*-------------------------------------------------------------------------
 *
 * shard_traffic.c
 *	  Sessions of many users, by a client that knows the shards.
 *
 * It logs users in and out, rotates tokens and reads sessions, each on the
 * server that a file names for the session's bucket, and knows of every session
 * whether it must be live.  Where a server says that the bucket is another
 * one's, or is not there, it reads the file again and retries.
 *
 *	shard_traffic MAP STOP NAME SECONDS
 *
 * MAP has lines "first last connection string", of buckets.  The program ends
 * when the file STOP exists, having read every session once more.  What has
 * not been acknowledged, because a connection was lost, may be either way and
 * is not looked at any more.  NAME tells users of several programs apart, and
 * SECONDS is how long it retries before it gives up.
 *
 * Its last line is what it has counted; a line before it for each session that
 * is not as it must be, and for each error.
 *
 *-------------------------------------------------------------------------
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define MAX_SERVERS		32
#define MAX_SESSIONS	20000
#define USERS			500
#define PAUSE_US		2000

typedef struct Server
{
	char		conninfo[512];
	PGconn	   *conn;
} Server;

typedef struct Range
{
	int			first;
	int			last;
	Server	   *server;
} Range;

typedef struct Session
{
	char		token[80];
	int			bucket;
} Session;

typedef struct Sessions
{
	Session		of[MAX_SESSIONS];
	int			n;
} Sessions;

static Server servers[MAX_SERVERS];
static int	n_servers;
static Range ranges[256];
static int	n_ranges;
static Sessions live;
static Sessions dead;
static const char *map_file;
static int	patience;

static struct
{
	long		calls;
	long		wrong_shard;
	long		disconnects;
	long		uncertain;
	long		lost;
	long		revived;
	long		errors;
	double		longest_wait;
}			count;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void
fatal(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(2);
}

static Server *
server_of(const char *conninfo)
{
	for (int i = 0; i < n_servers; i++)
		if (strcmp(servers[i].conninfo, conninfo) == 0)
			return &servers[i];
	if (n_servers == MAX_SERVERS)
		fatal("too many servers");
	snprintf(servers[n_servers].conninfo, sizeof(servers[0].conninfo), "%s", conninfo);
	return &servers[n_servers++];
}

/* Whoever writes the map replaces the file, so that it is always whole. */
static void
read_map(void)
{
	FILE	   *file = fopen(map_file, "r");
	char		line[600];

	if (file == NULL)
		fatal("cannot read the map");
	n_ranges = 0;
	while (fgets(line, sizeof(line), file) != NULL)
	{
		Range	   *range = &ranges[n_ranges];
		int			used;

		line[strcspn(line, "\n")] = '\0';
		if (sscanf(line, "%d %d %n", &range->first, &range->last, &used) != 2)
			fatal("the map is malformed");
		range->server = server_of(line + used);
		if (++n_ranges == 256)
			fatal("too many ranges");
	}
	fclose(file);
}

static Server *
server_for(int bucket)
{
	for (int i = 0; i < n_ranges; i++)
		if (bucket >= ranges[i].first && bucket <= ranges[i].last)
			return ranges[i].server;
	fatal("a bucket is not in the map");
	return NULL;
}

/*
 * The server's answer, or NULL if it could not be had: then *tried says whether
 * the server may have carried the call out.
 */
static PGresult *
call_once(int bucket, const char *sql, const char *const *values, int n, bool *tried)
{
	Server	   *server = server_for(bucket);
	PGresult   *result;

	if (server->conn == NULL)
		server->conn = PQconnectdb(server->conninfo);
	if (PQstatus(server->conn) != CONNECTION_OK)
	{
		PQfinish(server->conn);
		server->conn = NULL;
		count.disconnects++;
		return NULL;
	}
	result = PQexecParams(server->conn, sql, n, NULL, values, NULL, NULL, 0);
	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		return result;
	if (PQstatus(server->conn) == CONNECTION_BAD)
	{
		*tried = true;
		count.disconnects++;
		PQfinish(server->conn);
		server->conn = NULL;
	}
	else
	{
		const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

		if (state != NULL && strcmp(state, "SM005") == 0)
			count.wrong_shard++;
		else
		{
			printf("error: %s", PQresultErrorMessage(result));
			count.errors++;
		}
	}
	PQclear(result);
	return NULL;
}

static PGresult *
call(int bucket, const char *sql, const char *const *values, int n, bool *tried)
{
	double		began = now();
	PGresult   *result;

	count.calls++;
	*tried = false;
	while ((result = call_once(bucket, sql, values, n, tried)) == NULL)
	{
		if (now() > began + patience)
			fatal("no server answers");
		usleep(10000);
		read_map();
	}
	if (now() - began > count.longest_wait)
		count.longest_wait = now() - began;
	return result;
}

static void
add(Sessions *sessions, const char *token, int bucket)
{
	Session    *session;

	/* from then on the oldest are forgotten at random */
	if (sessions->n == MAX_SESSIONS)
		session = &sessions->of[rand() % MAX_SESSIONS];
	else
		session = &sessions->of[sessions->n++];
	snprintf(session->token, sizeof(session->token), "%s", token);
	session->bucket = bucket;
}

static void
drop(Sessions *sessions, int i)
{
	sessions->of[i] = sessions->of[--sessions->n];
}

static void
log_in(const char *name)
{
	char		user[64];
	const char *values[1] = {user};
	PGresult   *result;
	bool		tried;
	int			bucket;

	snprintf(user, sizeof(user), "%s-%d", name, rand() % USERS);
	/* any server knows the bucket */
	result = call(0, "SELECT session_bucket($1::text)", values, 1, &tried);
	bucket = atoi(PQgetvalue(result, 0, 0));
	PQclear(result);
	result = call(bucket, "SELECT session_token FROM session_create($1)", values, 1, &tried);
	add(&live, PQgetvalue(result, 0, 0), bucket);
	PQclear(result);
}

static void
log_out(int i)
{
	Session		session = live.of[i];
	const char *values[1] = {session.token};
	bool		tried;
	PGresult   *result = call(session.bucket, "SELECT session_invalidate($1)", values, 1, &tried);

	if (PQgetisnull(result, 0, 0) && !tried)
	{
		printf("lost: %s had ended before its logout\n", session.token);
		count.lost++;
	}
	PQclear(result);
	drop(&live, i);
	add(&dead, session.token, session.bucket);
}

static void
rotate(int i)
{
	Session    *session = &live.of[i];
	const char *values[1] = {session->token};
	bool		tried;
	PGresult   *result = call(session->bucket, "SELECT status, session_token FROM session_refresh($1, true)",
							  values, 1, &tried);
	const char *status = PQgetvalue(result, 0, 0);

	if (strcmp(status, "rotated") == 0)
		snprintf(session->token, sizeof(session->token), "%s", PQgetvalue(result, 0, 1));
	else if (tried)
	{
		/* the answer with the new token is lost */
		count.uncertain++;
		drop(&live, i);
	}
	else
	{
		printf("lost: %s is %s\n", session->token, status);
		count.lost++;
		drop(&live, i);
	}
	PQclear(result);
}

static bool
is_live(const Session *session)
{
	const char *values[1] = {session->token};
	bool		tried;
	PGresult   *result = call(session->bucket, "SELECT FROM session_get($1)", values, 1, &tried);
	bool		found = PQntuples(result) == 1;

	PQclear(result);
	return found;
}

static void
read_live(int i)
{
	if (is_live(&live.of[i]))
		return;
	printf("lost: %s is not live\n", live.of[i].token);
	count.lost++;
	drop(&live, i);
}

static void
read_dead(int i)
{
	if (!is_live(&dead.of[i]))
		return;
	printf("revived: %s is live\n", dead.of[i].token);
	count.revived++;
	drop(&dead, i);
}

int
main(int argc, char **argv)
{
	if (argc != 5)
		fatal("usage: shard_traffic MAP STOP NAME SECONDS");
	map_file = argv[1];
	patience = atoi(argv[4]);
	srand(time(NULL) ^ getpid());
	setvbuf(stdout, NULL, _IOLBF, 0);
	read_map();

	while (access(argv[2], F_OK) != 0)
	{
		int			what = rand() % 100;

		if (what < 20 || live.n < 20)
			log_in(argv[3]);
		else if (what < 35)
			log_out(rand() % live.n);
		else if (what < 50)
			rotate(rand() % live.n);
		else if (what < 80 || dead.n == 0)
			read_live(rand() % live.n);
		else
			read_dead(rand() % dead.n);
		usleep(PAUSE_US);
	}
	for (int i = live.n - 1; i >= 0; i--)
		read_live(i);
	for (int i = dead.n - 1; i >= 0; i--)
		read_dead(i);
	printf("calls %ld, wrong shard %ld, disconnects %ld, uncertain %ld, live %d, dead %d, lost %ld, revived %ld, errors %ld, longest wait %.3f s\n",
		   count.calls, count.wrong_shard, count.disconnects, count.uncertain, live.n, dead.n,
		   count.lost, count.revived, count.errors, count.longest_wait);
	for (int i = 0; i < n_servers; i++)
		PQfinish(servers[i].conn);
	return 0;
}
