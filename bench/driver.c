/*-------------------------------------------------------------------------
 *
 * driver.c
 *		Measure prepared statements against each other in one backend.
 *
 * Each side is a file of statements and a file of parameters.  The driver
 * prepares every statement once on one connection and then runs the sides in
 * turn, in short blocks whose order changes from block to block, so that
 * whatever disturbs the machine disturbs all sides alike.  For each block it
 * prints the mean round trip, taken on this side of the socket, and the mean
 * CPU time of the backend, read from the kernel's clock of that process.
 *
 * A side of several statements is sent as one pipeline: one transaction and
 * one round trip.  With -p, so many calls are under way at a time, each still
 * a transaction of its own: the backend then finds its next call waiting, and
 * its CPU time is that of the work without that of going to sleep and waking
 * up.  A call that does not return or change exactly one row per statement
 * ends the run: a benchmark of misses would look fast.
 *
 * A file may begin with a SET statement, for a side that needs a setting of its
 * own.  It is executed before each of the side's blocks, and not measured.
 *
 * With -c, so many connections make calls at the same time, each the next one
 * as soon as it has an answer, for -t milliseconds in each round; with -u the
 * statements are not prepared, for a pooler that knows of none.
 *
 * With -D the statement of the only side is repeated until it reports no
 * more rows, which is how deletes in batches are timed.
 *
 * Output, tab-separated:
 *		label round block side calls wall_ns_per_call cpu_ns_per_call
 * with -c:
 *		label_rate round side calls_per_second
 *		label_p99 round side microseconds
 * and with -D:
 *		label round side rows wall_ns cpu_ns
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE

#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define MAX_SIDES	6
#define MAX_STMTS	4
#define MAX_PARAMS	16

typedef struct Side
{
	const char *name;
	const char *setting;		/* a SET statement, or NULL */
	int			nstmts;
	char		stmt_name[MAX_STMTS][32];
	char	   *sql[MAX_STMTS];
	int			nparams[MAX_STMTS];
	char	  **values;			/* nrows * ncols pointers into text */
	int			nrows;
	int			ncols;
	int			next;			/* next unused row, with -s */
} Side;

/* One of several connections that make calls at the same time */
typedef struct Client
{
	PGconn	   *conn;
	int64_t		began;			/* its call, or 0 if it makes none */
} Client;

static PGconn *conn;
static clockid_t backend_clock;
static uint64_t random_state = 88172645463325252ULL;

static void
die(const char *what, const char *detail)
{
	fprintf(stderr, "driver: %s: %s\n", what, detail);
	exit(1);
}

static int64_t
now_ns(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) != 0)
		die("clock_gettime", "failed");
	return (int64_t) ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* xorshift64: the same rows in every run, at no measurable cost */
static uint64_t
next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static char *
read_file(const char *path)
{
	FILE	   *file = fopen(path, "rb");
	char	   *text;
	long		size;

	if (file == NULL || fseek(file, 0, SEEK_END) != 0)
		die("cannot open", path);
	size = ftell(file);
	rewind(file);
	text = malloc(size + 1);
	if (text == NULL || fread(text, 1, size, file) != (size_t) size)
		die("cannot read", path);
	text[size] = '\0';
	fclose(file);
	return text;
}

/* Read the statements of a file; each ends with ";" at the end of a line. */
static void
read_statements(Side *side, int number, const char *path)
{
	char	   *sql = read_file(path);
	char	   *end;

	for (; (end = strstr(sql, ";\n")) != NULL; sql = end + 2)
	{
		if (side->nstmts == 0 && side->setting == NULL &&
			strncmp(sql, "SET ", 4) == 0)
		{
			*end = '\0';
			side->setting = sql;
			continue;
		}
		if (side->nstmts == MAX_STMTS)
			die("too many statements", path);
		snprintf(side->stmt_name[side->nstmts], 32, "s%d_%d", number, side->nstmts);
		*end = '\0';
		side->sql[side->nstmts++] = sql;
	}
	if (side->nstmts == 0)
		die("no statement", path);
}

static void
prepare(PGconn *where, Side *side)
{
	for (int i = 0; i < side->nstmts; i++)
	{
		PGresult   *res = PQprepare(where, side->stmt_name[i], side->sql[i], 0, NULL);

		if (PQresultStatus(res) != PGRES_COMMAND_OK)
			die(side->name, PQerrorMessage(where));
		PQclear(res);
		res = PQdescribePrepared(where, side->stmt_name[i]);
		side->nparams[i] = PQnparams(res);
		PQclear(res);
	}
}

/* Turn the double backslashes that COPY writes into single ones. */
static void
unescape(char *text, const char *path)
{
	char	   *to = text;

	for (; *text != '\0'; text++)
	{
		if (*text == '\\' && *++text != '\\')
			die("unexpected escape", path);
		*to++ = *text;
	}
	*to = '\0';
}

/* Read parameters as COPY writes them. */
static void
read_params(Side *side, const char *path)
{
	char	   *text = read_file(path);
	size_t		space = 0;
	size_t		used = 0;

	while (*text != '\0')
	{
		size_t		len = strcspn(text, "\t\n");
		bool		ends_row = text[len] != '\t';
		bool		is_null = len == 2 && memcmp(text, "\\N", 2) == 0;

		if (used == space)
		{
			space = space ? space * 2 : 1024;
			side->values = realloc(side->values, space * sizeof(char *));
			if (side->values == NULL)
				die("out of memory", path);
		}
		side->values[used++] = is_null ? NULL : text;
		if (ends_row)
		{
			side->nrows++;
			if (side->ncols == 0)
				side->ncols = used;
			else if (used != (size_t) side->nrows * side->ncols)
				die("ragged rows", path);
		}
		if (text[len] == '\0')
			die("no newline at the end", path);
		text[len] = '\0';
		if (!is_null)
			unescape(text, path);
		text += len + 1;
	}
	if (side->nrows == 0)
		die("no parameters", path);
}

static void
check_result(PGresult *res, const Side *side)
{
	ExecStatusType status = PQresultStatus(res);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		die(side->name, PQresultErrorMessage(res));
	if (strcmp(PQcmdTuples(res), "1") != 0 ||
		(PQnfields(res) > 0 && PQgetisnull(res, 0, 0)))
		die(side->name, "a call did not find exactly one row");
	PQclear(res);
}

/* Send a call in pipeline mode; it is a transaction of its own. */
static void
send_call(const Side *side, int row)
{
	const char *const *values =
		(const char *const *) &side->values[(size_t) row * side->ncols];

	for (int i = 0; i < side->nstmts; i++)
		if (PQsendQueryPrepared(conn, side->stmt_name[i], side->nparams[i],
								values, NULL, NULL, 0) != 1)
			die(side->name, PQerrorMessage(conn));
	if (PQpipelineSync(conn) != 1)
		die(side->name, PQerrorMessage(conn));
}

static void
receive_call(const Side *side)
{
	for (int i = 0; i < side->nstmts; i++)
	{
		check_result(PQgetResult(conn), side);
		PQgetResult(conn);		/* the NULL that ends a statement */
	}
	PQclear(PQgetResult(conn)); /* the sync point */
}

static void
call(const Side *side, int row)
{
	const char *const *values =
		(const char *const *) &side->values[(size_t) row * side->ncols];

	check_result(PQexecPrepared(conn, side->stmt_name[0], side->nparams[0],
								values, NULL, NULL, 0), side);
}

static int
pick_row(Side *side, bool sequential)
{
	return sequential ? side->next++ : (int) (next_random() % side->nrows);
}

static void
apply_setting(const Side *side)
{
	PGresult   *res = PQexec(conn, side->setting);

	if (PQresultStatus(res) != PGRES_COMMAND_OK)
		die(side->name, PQresultErrorMessage(res));
	PQclear(res);
}

static void
run_block(const char *label, int round, bool warming, int block, Side *side,
		  int calls, int depth, bool sequential, uint64_t seed)
{
	bool		pipelined = depth > 1 || side->nstmts > 1;
	int64_t		wall;
	int64_t		cpu;

	if (sequential && side->next + calls > side->nrows)
		die(side->name, "parameters used up");
	if (side->setting)
		apply_setting(side);
	if (pipelined && PQenterPipelineMode(conn) != 1)
		die(side->name, PQerrorMessage(conn));

	random_state = seed;
	cpu = now_ns(backend_clock);
	wall = now_ns(CLOCK_MONOTONIC);
	if (!pipelined)
	{
		for (int i = 0; i < calls; i++)
			call(side, pick_row(side, sequential));
	}
	else
	{
		for (int i = 0; i < calls; i += depth)
		{
			for (int j = i; j < i + depth && j < calls; j++)
				send_call(side, pick_row(side, sequential));
			for (int j = i; j < i + depth && j < calls; j++)
				receive_call(side);
		}
	}
	wall = now_ns(CLOCK_MONOTONIC) - wall;
	usleep(500);				/* let the backend go to sleep */
	cpu = now_ns(backend_clock) - cpu;

	if (pipelined && PQexitPipelineMode(conn) != 1)
		die(side->name, PQerrorMessage(conn));
	if (!warming)
		printf("%s\t%d\t%d\t%s\t%d\t%" PRId64 "\t%" PRId64 "\n", label, round,
			   block, side->name, calls, wall / calls, cpu / calls);
}

static int
compare(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

static PGconn *
connect_to_server(void)
{
	PGconn	   *made = PQconnectdb("");

	if (PQstatus(made) != CONNECTION_OK)
		die("cannot connect", PQerrorMessage(made));
	return made;
}

static void
begin_call(Client *client, Side *side, bool prepared)
{
	const char *const *values =
		(const char *const *) &side->values[(size_t) pick_row(side, false) * side->ncols];

	client->began = now_ns(CLOCK_MONOTONIC);
	if (prepared ?
		PQsendQueryPrepared(client->conn, side->stmt_name[0], side->nparams[0],
							values, NULL, NULL, 0) != 1 :
		PQsendQueryParams(client->conn, side->sql[0], side->ncols,
						  NULL, values, NULL, NULL, 0) != 1)
		die(side->name, PQerrorMessage(client->conn));
}

/* Take what has arrived for a client; true if that is its whole answer. */
static bool
end_call(Client *client, const Side *side)
{
	PGresult   *res;

	if (PQconsumeInput(client->conn) != 1)
		die(side->name, PQerrorMessage(client->conn));
	if (PQisBusy(client->conn))
		return false;
	check_result(PQgetResult(client->conn), side);
	while ((res = PQgetResult(client->conn)) != NULL)
		PQclear(res);
	return true;
}

/* Calls of a side by all clients for some time */
static void
run_clients(const char *label, int round, Side *side, Client *clients,
			int nclients, int64_t duration, bool prepared)
{
	static int64_t *took = NULL;
	static size_t space = 0;
	struct pollfd *sockets = calloc(nclients, sizeof(struct pollfd));
	size_t		calls = 0;
	int			busy = nclients;
	int64_t		start = now_ns(CLOCK_MONOTONIC);
	int64_t		now = start;

	if (sockets == NULL)
		die("out of memory", side->name);
	for (int i = 0; i < nclients; i++)
	{
		sockets[i].fd = PQsocket(clients[i].conn);
		sockets[i].events = POLLIN;
		begin_call(&clients[i], side, prepared);
	}
	while (busy > 0)
	{
		if (poll(sockets, nclients, 10000) <= 0)
			die(side->name, "no answer in ten seconds");
		for (int i = 0; i < nclients; i++)
		{
			if (sockets[i].revents == 0 || !end_call(&clients[i], side))
				continue;
			now = now_ns(CLOCK_MONOTONIC);
			if (calls == space)
			{
				space = space ? space * 2 : 65536;
				took = realloc(took, space * sizeof(int64_t));
				if (took == NULL)
					die("out of memory", side->name);
			}
			took[calls++] = now - clients[i].began;
			if (now - start < duration)
				begin_call(&clients[i], side, prepared);
			else
			{
				sockets[i].fd = -1; /* poll leaves it out */
				busy--;
			}
		}
	}
	free(sockets);
	qsort(took, calls, sizeof(int64_t), compare);
	if (round >= 0)				/* negative: warming up */
	{
		printf("%s_rate\t%d\t%s\t%.1f\n", label, round, side->name,
			   calls * 1e9 / (now - start));
		printf("%s_p99\t%d\t%s\t%.1f\n", label, round, side->name,
			   took[(size_t) (calls * 0.99)] / 1e3);
	}
}

static void
compare_clients(const char *label, int rounds, Side *sides, int nsides,
				int nclients, int64_t duration, bool prepared)
{
	Client	   *clients = calloc(nclients, sizeof(Client));

	if (clients == NULL)
		die("out of memory", label);
	for (int i = 0; i < nclients; i++)
	{
		clients[i].conn = connect_to_server();
		for (int j = 0; prepared && j < nsides; j++)
			prepare(clients[i].conn, &sides[j]);
	}
	for (int round = -1; round < rounds; round++)
	{
		for (int i = 0; i < nsides; i++)
		{
			random_state = 88172645463325252ULL + 7919ULL * (uint64_t) (round + 1);
			run_clients(label, round, &sides[(i + round + 1) % nsides], clients,
						nclients, duration, prepared);
		}
	}
	for (int i = 0; i < nclients; i++)
		PQfinish(clients[i].conn);
	free(clients);
}

static void
drain(const char *label, int round, Side *side)
{
	int64_t		cpu = now_ns(backend_clock);
	int64_t		wall = now_ns(CLOCK_MONOTONIC);
	long		total = 0;
	long		rows;

	do
	{
		PGresult   *res = PQexecPrepared(conn, side->stmt_name[0], 0,
										 NULL, NULL, NULL, 0);

		if (PQresultStatus(res) == PGRES_TUPLES_OK)
			rows = atol(PQgetvalue(res, 0, 0));
		else if (PQresultStatus(res) == PGRES_COMMAND_OK)
			rows = atol(PQcmdTuples(res));
		else
			die(side->name, PQresultErrorMessage(res));
		PQclear(res);
		total += rows;
	} while (rows > 0);

	wall = now_ns(CLOCK_MONOTONIC) - wall;
	cpu = now_ns(backend_clock) - cpu;
	if (total == 0)
		die(side->name, "there was nothing to do");
	printf("%s\t%d\t%s\t%ld\t%" PRId64 "\t%" PRId64 "\n",
		   label, round, side->name, total, wall, cpu);
}

int
main(int argc, char **argv)
{
	static Side sides[MAX_SIDES];
	const char *label = "run";
	int			nsides = 0;
	int			rounds = 10;
	int			blocks = 20;
	int			calls = 100;
	int			depth = 1;
	int			first_round = 0;
	int			nclients = 0;
	int			milliseconds = 1000;
	bool		prepared = true;
	bool		sequential = false;
	bool		draining = false;
	int			opt;

	while ((opt = getopt(argc, argv, "l:r:b:n:p:i:c:t:usD")) != -1)
	{
		switch (opt)
		{
			case 'l':
				label = optarg;
				break;
			case 'r':
				rounds = atoi(optarg);
				break;
			case 'b':
				blocks = atoi(optarg);
				break;
			case 'n':
				calls = atoi(optarg);
				break;
			case 'p':
				depth = atoi(optarg);
				break;
			case 'i':
				first_round = atoi(optarg);
				break;
			case 'c':
				nclients = atoi(optarg);
				break;
			case 't':
				milliseconds = atoi(optarg);
				break;
			case 'u':
				prepared = false;
				break;
			case 's':
				sequential = true;
				break;
			case 'D':
				draining = true;
				break;
			default:
				die("usage",
					"driver [-l label] [-i round] [-r rounds] [-b blocks] [-n calls] [-p depth] [-s] "
					"{name statements parameters} ... | "
					"-c clients [-t milliseconds] [-u] [-l label] [-r rounds] "
					"{name statement parameters} ... | "
					"-D [-l label] [-i round] name statements");
		}
	}

	for (int i = optind; i + (draining ? 1 : 2) < argc; i += draining ? 2 : 3)
	{
		if (nsides == MAX_SIDES)
			die("too many sides", argv[i]);
		sides[nsides].name = argv[i];
		read_statements(&sides[nsides], nsides, argv[i + 1]);
		if (!draining)
			read_params(&sides[nsides], argv[i + 2]);
		nsides++;
	}
	if (nsides == 0)
		die("usage", "no side given");

	if (nclients > 0)
	{
		compare_clients(label, rounds, sides, nsides, nclients,
						milliseconds * INT64_C(1000000), prepared);
		return 0;
	}

	conn = connect_to_server();
	if (clock_getcpuclockid(PQbackendPID(conn), &backend_clock) != 0)
		die("clock_getcpuclockid", "the server must run on this machine");
	for (int i = 0; i < nsides; i++)
	{
		prepare(conn, &sides[i]);
		for (int j = 0; j < sides[i].nstmts && !draining; j++)
			if (sides[i].nparams[j] > sides[i].ncols)
				die("too few parameters", sides[i].name);
	}

	if (draining)
		drain(label, first_round, &sides[0]);
	else
	{
		/* the round before the first is for warming up */
		for (int round = first_round - 1; round < first_round + rounds; round++)
		{
			for (int block = 0; block < blocks; block++)
			{
				uint64_t	seed = 88172645463325252ULL + 7919ULL *
					(uint64_t) ((round + 1) * blocks + block);

				for (int i = 0; i < nsides; i++)
					run_block(label, round, round < first_round, block,
							  &sides[(i + block) % nsides],
							  calls, depth, sequential, seed);
			}
		}
	}

	PQfinish(conn);
	return 0;
}
