/*-------------------------------------------------------------------------
 *
 * cache_driver.c
 *	  Measure what the cache in Redis costs and what it gives.
 *
 *	cache_driver servers LABEL CONNINFO_A CONNINFO_B ROUNDS CALLS
 *	cache_driver read CONNINFO REDIS KEYFILE ROUNDS CALLS
 *
 * "servers" creates sessions in two servers, reads and revokes them; "read"
 * reads sessions from Redis through the reader in examples/, against a bare
 * MGET of two keys of the same sizes by hiredis.  The two sides take turns call
 * by call, and who begins changes, so that whatever disturbs the machine
 * disturbs both alike.
 *
 * Output, tab-separated, a line for each round: label, round, median of side
 * A, median of side B, in microseconds.  The first round warms up and is left
 * out.
 *
 *-------------------------------------------------------------------------
 */
#define CACHE_READER_LIBRARY
#include "../examples/cache_reader.c"

#define SESSIONS	1000		/* that are in the cache */

static const char profile[] =
"{\"name\": \"Ada Lovelace\", \"plan\": \"team\", \"locale\": \"en-GB\", \"cart\": [1, 2, 3],"
" \"roles\": [\"admin\", \"billing\"], \"picture\": \"https://images.example.com/users/ada/640x480.png\","
" \"features\": {\"dark\": true, \"beta\": false, \"quota\": 25000}}";

static void
die(const char *what, const char *detail)
{
	fprintf(stderr, "cache_driver: %s: %s\n", what, detail);
	exit(1);
}

static int64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int
compare(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

static double
median_us(int64_t *ns, int n)
{
	qsort(ns, (size_t) n, sizeof(int64_t), compare);
	return (double) ns[n / 2] / 1000;
}

static void
print_round(const char *label, const char *what, int round, int64_t *ns[2], int n)
{
	if (round > 0)
		printf("%s%s\t%d\t%.3f\t%.3f\n", label, what, round,
			   median_us(ns[0], n), median_us(ns[1], n));
}

/* The only value of the only row that a statement must return. */
static void
call(PGconn *conn, const char *statement, const char *parameter, char *value, size_t len)
{
	PGresult   *result = PQexecPrepared(conn, statement, 1, &parameter, NULL, NULL, 0);

	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		die(statement, PQerrorMessage(conn));
	snprintf(value, len, "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
}

static PGconn *
connect_to(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);
	const char *const statements[][2] = {
		{"create", "SELECT session_token FROM session_create('auth0|ada', $1::jsonb, user_agent => 'Firefox')"},
		{"get", "SELECT user_id, data, expires_at FROM session_get($1, touch => false)"},
		{"revoke", "SELECT session_invalidate($1)"},
		{"digest", "SELECT session_token_digest($1)"},
	};

	if (PQstatus(conn) != CONNECTION_OK)
		die("connect", PQerrorMessage(conn));
	for (size_t i = 0; i < sizeof(statements) / sizeof(*statements); i++)
	{
		PGresult   *result = PQprepare(conn, statements[i][0], statements[i][1], 1, NULL);

		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			die("prepare", PQerrorMessage(conn));
		PQclear(result);
	}
	return conn;
}

static void
measure_servers(const char *label, const char *conninfo[2], int rounds, int calls)
{
	PGconn	   *conn[2] = {connect_to(conninfo[0]), connect_to(conninfo[1])};
	int64_t    *get[2];
	int64_t    *revoke[2];

	for (int side = 0; side < 2; side++)
	{
		get[side] = calloc((size_t) calls, sizeof(int64_t));
		revoke[side] = calloc((size_t) calls, sizeof(int64_t));
		if (get[side] == NULL || revoke[side] == NULL)
			die("memory", "none left");
	}
	for (int round = 0; round <= rounds; round++)
	{
		for (int i = 0; i < calls; i++)
			for (int turn = 0; turn < 2; turn++)
			{
				int			side = (turn + i) % 2;
				char		token[128];
				char		digest[128];
				char		value[128];
				int64_t		start;

				call(conn[side], "create", profile, token, sizeof(token));
				call(conn[side], "digest", token, digest, sizeof(digest));
				call(conn[side], "get", digest, value, sizeof(value));
				start = now_ns();
				call(conn[side], "get", digest, value, sizeof(value));
				get[side][i] = now_ns() - start;
				start = now_ns();
				call(conn[side], "revoke", digest, value, sizeof(value));
				revoke[side][i] = now_ns() - start;
				if (*value == '\0')
					die("revoke", "no such session");
			}
		print_round(label, ": session_get", round, get, calls);
		print_round(label, ": session_invalidate", round, revoke, calls);
	}
	PQfinish(conn[0]);
	PQfinish(conn[1]);
}

/* Redis at an address such as 127.0.0.1:6379/1. */
static redisContext *
connect_to_redis(const char *address)
{
	char		host[64];
	int			port;
	int			db;
	redisContext *redis;
	redisReply *reply;

	if (sscanf(address, "%63[^:]:%d/%d", host, &port, &db) != 3)
		die("address", address);
	redis = redisConnect(host, port);
	if (redis == NULL || redis->err != 0)
		die("connect", address);
	reply = redisCommand(redis, "SELECT %d", db);
	if (reply == NULL || reply->type != REDIS_REPLY_STATUS)
		die("SELECT", redis->errstr);
	freeReplyObject(reply);
	return redis;
}

/*
 * Read a session until it comes from the cache, which forgets everything when an
 * epoch ends.  Returns when that read began.
 */
static int64_t
read_cached(CacheReader *reader, const char *token)
{
	for (int tries = 0; tries < 1000; tries++)
	{
		int64_t		start = now_ns();
		char	   *row;
		SessionSource source = session_read(reader, token, &row);

		free(row);
		if (source == SESSION_CACHE)
			return start;
	}
	die("session", "not in the cache");
	return 0;
}

/* Put what a session has in Redis under another name as well. */
static void
copy_value(CacheReader *reader, redisContext *redis, const char *text, const char *name)
{
	Token		token;
	redisReply *value;
	redisReply *reply;

	if (!token_parse(reader, text, &token))
		die("token", text);
	value = redisCommand(redis, "GET %s", token.redis_key);
	if (value == NULL || value->type != REDIS_REPLY_STRING || value->str[0] != 'V')
		die("session", "not in the cache");
	reply = redisCommand(redis, "SET %s %b", name, value->str, (size_t) value->len);
	if (reply == NULL || reply->type != REDIS_REPLY_STATUS)
		die("SET", redis->errstr);
	freeReplyObject(reply);
	freeReplyObject(value);
}

static void
measure_read(const char *conninfo, const char *address, const char *key_file,
			 int rounds, int calls)
{
	static char tokens[SESSIONS][128];
	static char names[SESSIONS][8 + 36 + 1];
	static const char epoch_name[] = "bench:epoch:00000000-0000-0000-0000-0000000000";
	CacheReader reader;
	redisContext *redis = connect_to_redis(address);
	PGconn	   *conn = connect_to(conninfo);
	int64_t    *ns[2];
	redisReply *reply;

	if (!cache_reader_open(&reader, conninfo, address, key_file))
		die("reader", "not opened");
	for (int i = 0; i < SESSIONS; i++)
	{
		call(conn, "create", profile, tokens[i], sizeof(tokens[i]));
		(void) read_cached(&reader, tokens[i]);
		snprintf(names[i], sizeof(names[i]), "bench00:00000000-0000-0000-0000-%012d", i);
		copy_value(&reader, redis, tokens[i], names[i]);
	}
	reply = redisCommand(redis, "SET %s 0123456789abcdef0123456789abcdef", epoch_name);
	if (reply == NULL || reply->type != REDIS_REPLY_STATUS)
		die("SET", redis->errstr);
	freeReplyObject(reply);

	for (int side = 0; side < 2; side++)
		if ((ns[side] = calloc((size_t) calls, sizeof(int64_t))) == NULL)
			die("memory", "none left");
	for (int round = 0; round <= rounds; round++)
	{
		for (int i = 0; i < calls; i++)
			for (int turn = 0; turn < 2; turn++)
			{
				int			side = (turn + i) % 2;
				int			k = (int) randombytes_uniform(SESSIONS);
				int64_t		start = now_ns();

				if (side == 0)
					start = read_cached(&reader, tokens[k]);
				else
				{
					const char *argv[] = {"MGET", names[k], epoch_name};

					reply = redisCommandArgv(redis, 3, argv, NULL);
					if (reply == NULL || reply->type != REDIS_REPLY_ARRAY ||
						reply->elements != 2 ||
						reply->element[0]->type != REDIS_REPLY_STRING)
						die("MGET", "no value");
					freeReplyObject(reply);
				}
				ns[side][i] = now_ns() - start;
			}
		print_round("read from the cache", "", round, ns, calls);
	}
	PQfinish(conn);
	redisFree(redis);
	cache_reader_close(&reader);
}

int
main(int argc, char **argv)
{
	if (argc == 7 && strcmp(argv[1], "servers") == 0)
	{
		const char *servers[] = {argv[3], argv[4]};

		measure_servers(argv[2], servers, atoi(argv[5]), atoi(argv[6]));
	}
	else if (argc == 7 && strcmp(argv[1], "read") == 0)
		measure_read(argv[2], argv[3], argv[4], atoi(argv[5]), atoi(argv[6]));
	else
		die("usage", "see the head of cache_driver.c");
	return 0;
}
