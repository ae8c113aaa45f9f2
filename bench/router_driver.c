/*-------------------------------------------------------------------------
 *
 * router_driver.c
 *		Measure calls through session_manager_router against the same calls of
 *		the shards themselves.
 *
 *	router_driver CALL FILE ROUNDS CALLS SIDE BEHIND CONNINFO[,CONNINFO ...] ...
 *
 * CALL is get, create or refresh.  Each line of FILE has an argument for it and,
 * after a tab, the number of the shard that it belongs to, from 0.  The first
 * side has a connection for each shard, the others one for all.  BEHIND says what
 * works for a side beside the backends of its connections: "-" for nothing, or
 * the role whose backends on the shards do, with "+PID" for another process.  The
 * sides take turns in blocks of CALLS, and their order changes from block to
 * block, so that whatever disturbs the machine disturbs all alike.  A call that
 * does not return exactly one row ends the run.
 *
 * Output, tab-separated, a line for each side: call, side, median and 99th
 * percentile of the round trips, mean CPU time of a call in the processes that
 * the side connects to, and in the others; all in microseconds.  The first
 * round warms up and is left out.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

#define MAX_SIDES	4
#define MAX_SHARDS	16
#define MAX_PIDS	32
#define MAX_LINE	256

typedef struct Side
{
	const char *name;
	char	   *behind;
	PGconn	   *conns[MAX_SHARDS];
	int			nconns;
	clockid_t	own[MAX_SHARDS];
	clockid_t	others[MAX_PIDS];
	int			nothers;
	int64_t    *ns;				/* of every call */
	int			calls;
	int64_t		own_cpu;
	int64_t		other_cpu;
} Side;

typedef struct Argument
{
	char		text[MAX_LINE];
	int			shard;
} Argument;

static const char *const statements[][2] = {
	{"get", "SELECT user_id, data, expires_at FROM session_get($1)"},
	{"create", "SELECT session_token FROM session_create($1, '{\"plan\": \"team\", \"locale\": \"en-GB\"}', ip => '192.0.2.1', user_agent => 'Firefox')"},
	{"refresh", "SELECT status, expires_at FROM session_refresh($1)"},
};

static void
die(const char *what, const char *detail)
{
	fprintf(stderr, "router_driver: %s: %s\n", what, detail);
	exit(1);
}

static int64_t
clock_ns(clockid_t clock)
{
	struct timespec now;

	if (clock_gettime(clock, &now) != 0)
		die("clock", "a process has ended");
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int64_t
sum_of(const clockid_t * clocks, int n)
{
	int64_t		sum = 0;

	for (int i = 0; i < n; i++)
		sum += clock_ns(clocks[i]);
	return sum;
}

static int
compare(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

static clockid_t
clock_of(int pid)
{
	clockid_t	clock;

	if (clock_getcpuclockid(pid, &clock) != 0)
		die("clock", "no such process");
	return clock;
}

static void
open_side(Side *side, const char *name, char *behind, char *conninfos,
		  const char *statement, int calls)
{
	char	   *state;

	side->name = name;
	side->behind = behind;
	side->ns = calloc((size_t) calls, sizeof(int64_t));
	if (side->ns == NULL)
		die("memory", "none left");
	for (char *word = strtok_r(conninfos, ",", &state); word != NULL; word = strtok_r(NULL, ",", &state))
	{
		PGconn	   *conn = PQconnectdb(word);
		PGresult   *result;

		if (side->nconns == MAX_SHARDS || PQstatus(conn) != CONNECTION_OK)
			die("connect", PQerrorMessage(conn));
		result = PQprepare(conn, "call", statement, 1, NULL);
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			die("prepare", PQerrorMessage(conn));
		PQclear(result);
		side->own[side->nconns] = clock_of(PQbackendPID(conn));
		side->conns[side->nconns++] = conn;
	}
}

static void
add_behind(Side *side, int pid)
{
	if (side->nothers == MAX_PIDS)
		die("processes", "too many");
	side->others[side->nothers++] = clock_of(pid);
}

/* Once the side has made its connections to the shards */
static void
find_behind(Side *side, const Side *shards)
{
	char	   *plus = strchr(side->behind, '+');

	if (strcmp(side->behind, "-") == 0)
		return;
	if (plus != NULL)
	{
		*plus = '\0';
		add_behind(side, atoi(plus + 1));
	}
	for (int i = 0; i < shards->nconns; i++)
	{
		const char *role = side->behind;
		PGresult   *result = PQexecParams(shards->conns[i], "SELECT pid FROM pg_stat_activity WHERE usename = $1",
										  1, NULL, &role, NULL, NULL, 0);

		if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) == 0)
			die(role, "no backend on a shard");
		for (int row = 0; row < PQntuples(result); row++)
			add_behind(side, atoi(PQgetvalue(result, row, 0)));
		PQclear(result);
	}
}

static void
run_block(Side *side, const Argument *arguments, int n, int calls, int keep)
{
	int64_t		own = sum_of(side->own, side->nconns);
	int64_t		others = sum_of(side->others, side->nothers);

	for (int i = 0; i < calls; i++)
	{
		const Argument *argument = &arguments[i % n];
		const char *value = argument->text;
		PGconn	   *conn = side->conns[side->nconns > 1 ? argument->shard : 0];
		int64_t		start = clock_ns(CLOCK_MONOTONIC);
		PGresult   *result = PQexecPrepared(conn, "call", 1, &value, NULL, NULL, 0);

		if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
			die(side->name, PQerrorMessage(conn));
		PQclear(result);
		if (keep)
			side->ns[side->calls++] = clock_ns(CLOCK_MONOTONIC) - start;
	}
	if (keep)
	{
		side->own_cpu += sum_of(side->own, side->nconns) - own;
		side->other_cpu += sum_of(side->others, side->nothers) - others;
	}
}

static int
read_arguments(const char *path, Argument **arguments)
{
	FILE	   *file = fopen(path, "r");
	char		line[MAX_LINE];
	int			n = 0;

	*arguments = NULL;
	if (file == NULL)
		die(path, "cannot be read");
	while (fgets(line, sizeof(line), file) != NULL)
	{
		Argument   *argument;

		*arguments = realloc(*arguments, (size_t) (n + 1) * sizeof(Argument));
		if (*arguments == NULL)
			die("memory", "none left");
		argument = &(*arguments)[n++];
		if (sscanf(line, "%255[^\t]\t%d", argument->text, &argument->shard) != 2 ||
			argument->shard < 0 || argument->shard >= MAX_SHARDS)
			die(path, line);
	}
	fclose(file);
	if (n == 0)
		die(path, "empty");
	return n;
}

int
main(int argc, char **argv)
{
	static Side sides[MAX_SIDES];
	const char *statement = NULL;
	Argument   *arguments;
	int			n;
	int			nsides = (argc - 5) / 3;
	int			rounds;
	int			calls;
	int			from = 0;

	if (argc < 8 || (argc - 5) % 3 != 0 || nsides > MAX_SIDES)
		die("usage", "see the head of router_driver.c");
	for (size_t i = 0; i < sizeof(statements) / sizeof(*statements); i++)
		if (strcmp(argv[1], statements[i][0]) == 0)
			statement = statements[i][1];
	if (statement == NULL)
		die("call", argv[1]);
	n = read_arguments(argv[2], &arguments);
	rounds = atoi(argv[3]);
	calls = atoi(argv[4]);
	for (int i = 0; i < nsides; i++)
		open_side(&sides[i], argv[5 + 3 * i], argv[6 + 3 * i], argv[7 + 3 * i], statement, rounds * calls);

	for (int round = 0; round <= rounds; round++)
	{
		for (int turn = 0; turn < nsides; turn++)
			run_block(&sides[(turn + round) % nsides], arguments + from, n - from, calls, round > 0);
		for (int i = 0; round == 0 && i < nsides; i++)
			find_behind(&sides[i], &sides[0]);
		/* the same calls for all, others in each round */
		from = (from + calls) % n;
	}
	for (int i = 0; i < nsides; i++)
	{
		Side	   *side = &sides[i];

		qsort(side->ns, (size_t) side->calls, sizeof(int64_t), compare);
		printf("%s\t%s\t%.1f\t%.1f\t%.1f\t%.1f\n", argv[1], side->name,
			   (double) side->ns[side->calls / 2] / 1000,
			   (double) side->ns[(int64_t) side->calls * 99 / 100] / 1000,
			   (double) side->own_cpu / side->calls / 1000,
			   (double) side->other_cpu / side->calls / 1000);
		for (int c = 0; c < side->nconns; c++)
			PQfinish(side->conns[c]);
	}
	return 0;
}
