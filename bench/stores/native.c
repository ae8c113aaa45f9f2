/*-------------------------------------------------------------------------
 *
 * native.c
 *		Sides of bench/stores.sh in C: this extension by libpq, and sessions that
 *		a careful developer keeps in Redis alone, by hiredis.
 *
 *	native ours CONNINFO DATA
 *	native redis SOCKET DATA
 *
 * DATA is a file with a session's data.  Commands and answers are those that
 * compare.py describes.  A connection is a thread.
 *
 * In Redis a session is a value, sealed by XChaCha20-Poly1305 and bound to its
 * key, which is the hash of its token:
 *		nonce 24 | sealed: user, absolute end, address, user agent, data
 * and each user has a set of the keys of their sessions, which "sign out
 * everywhere" needs.  What belongs together is one transaction, a change of the
 * data is refused if somebody else has changed them meanwhile, and each call is
 * as few round trips as it can be.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <hiredis/hiredis.h>
#include <libpq-fe.h>
#include <sodium.h>

#define MAX_CONNECTIONS 32
#define MAX_EXTRA	4096		/* sessions that a connection has made itself */
#define DEVICES		3			/* sessions of a user who signs out everywhere */
#define LOGINS		10000		/* users who log in while it is measured */
#define MAX_DATA	1024
#define USER_LEN	32
#define TOKEN_LEN	72			/* sm1_ and 64 characters, or 43 of a peer */
#define HASH_LEN	43
#define TTL			"86400"
#define LIFETIME	604800
#define IP			"192.0.2.1"
#define USER_AGENT	"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"

typedef struct Session
{
	char		token[TOKEN_LEN];
	char		user[USER_LEN];
	int			number;
} Session;

typedef struct Connection
{
	PGconn	   *pg;
	redisContext *redis;
	Session		extra[MAX_EXTRA];
	int			nextra;
	uint64_t	random;
	/* of a run */
	pthread_t	thread;
	int			number;
	int64_t    *took;
	size_t		ntook;
	size_t		space;
} Connection;

/* What a side can do.  Whatever is not as it should be ends the program. */
typedef struct Side
{
	void		(*connect) (Connection *c);
	void		(*create) (Connection *c, Session *made);
	/* data has MAX_DATA bytes, or is NULL */
	bool		(*get) (Connection *c, const Session *session, char *data);
	void		(*refresh) (Connection *c, const Session *session);
	void		(*update) (Connection *c, const Session *session, int seen);
	void		(*revoke) (Connection *c, const Session *session);
	int			(*revoke_all) (Connection *c, const char *user);
} Side;

static const Side *side;
static const char *where;		/* the server is */
static char template[MAX_DATA];
static unsigned char sealing_key[crypto_aead_xchacha20poly1305_ietf_KEYBYTES];
static char script[64];			/* of revoke_all in Redis */

static Connection connections[MAX_CONNECTIONS];
static Session *sessions;
static int	nsessions;

/* the run that is under way */
static const char *operation;
static int	nconnections;
static int64_t duration;
static int	stock;				/* users who sign out everywhere */
static pthread_barrier_t barrier;

static _Noreturn void
die(const char *what, const char *detail)
{
	printf("error %s: %s\n", what, detail);
	exit(1);
}

static int64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* xorshift64 */
static uint64_t
next_random(Connection *c)
{
	c->random ^= c->random << 13;
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	return c->random;
}

static void
fill_in(char *data, int number)
{
	char		digits[9];

	strcpy(data, template);
	snprintf(digits, sizeof(digits), "%08d", number);
	for (char *zeros = data; (zeros = strstr(zeros, "00000000")) != NULL; zeros += 8)
		memcpy(zeros, digits, 8);
}

static void
base64url(char *to, const unsigned char *from, size_t len)
{
	sodium_bin2base64(to, sodium_base64_encoded_len(len, sodium_base64_VARIANT_URLSAFE_NO_PADDING),
					  from, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

/* --- session_manager --- */

static void
pg_connect(Connection *c)
{
	static const char *const statements[][2] = {
		{"create", "SELECT session_token FROM session_create($1, $2, ip => $3, user_agent => $4)"},
		{"get", "SELECT session_get_json($1)"},
		{"refresh", "SELECT status FROM session_refresh($1)"},
		{"update", "SELECT version FROM session_update($1, $2)"},
		{"revoke", "SELECT session_invalidate($1)"},
		{"revoke_all", "SELECT session_invalidate_all($1)"},
	};

	c->pg = PQconnectdb(where);
	if (PQstatus(c->pg) != CONNECTION_OK)
		die("connect", PQerrorMessage(c->pg));
	for (size_t i = 0; i < sizeof(statements) / sizeof(*statements); i++)
	{
		PGresult   *res = PQprepare(c->pg, statements[i][0], statements[i][1], 0, NULL);

		if (PQresultStatus(res) != PGRES_COMMAND_OK)
			die("prepare", PQerrorMessage(c->pg));
		PQclear(res);
	}
}

/* The only value of the only row. */
static PGresult *
pg_call(Connection *c, const char *statement, int nparams, const char *const *params)
{
	PGresult   *res = PQexecPrepared(c->pg, statement, nparams, params, NULL, NULL, 0);

	if (PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1)
		die(statement, PQerrorMessage(c->pg));
	return res;
}

/* The form of a token that is sent: see "Token" in docs/reference.md. */
static void
pg_digest(const char *token, char *digest)
{
	unsigned char raw[48];
	unsigned char hash[crypto_hash_sha256_BYTES];
	crypto_hash_sha256_state state;

	if (sodium_base642bin(raw, sizeof(raw), token + 4, 64, NULL, NULL, NULL,
						  sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0)
		die("token", "malformed");
	crypto_hash_sha256_init(&state);
	crypto_hash_sha256_update(&state, (const unsigned char *) "session_manager token v1", 24);
	crypto_hash_sha256_update(&state, raw, sizeof(raw));
	crypto_hash_sha256_final(&state, hash);
	memcpy(raw + 16, hash, sizeof(hash));
	memcpy(digest, "sd1_", 4);
	base64url(digest + 4, raw, sizeof(raw));
}

static void
pg_create(Connection *c, Session *made)
{
	char		data[MAX_DATA];
	const char *params[] = {made->user, data, IP, USER_AGENT};
	PGresult   *res;

	fill_in(data, made->number);
	res = pg_call(c, "create", 4, params);
	snprintf(made->token, sizeof(made->token), "%s", PQgetvalue(res, 0, 0));
	PQclear(res);
}

static PGresult *
pg_call_token(Connection *c, const char *statement, const Session *session, const char *patch)
{
	char		digest[TOKEN_LEN];
	const char *params[] = {digest, patch};

	pg_digest(session->token, digest);
	return pg_call(c, statement, patch == NULL ? 1 : 2, params);
}

static bool
pg_get(Connection *c, const Session *session, char *data)
{
	PGresult   *res = pg_call_token(c, "get", session, NULL);
	bool		found = !PQgetisnull(res, 0, 0);

	if (found && strstr(PQgetvalue(res, 0, 0), session->user) == NULL)
		die("get", "another user's session");
	if (found && data != NULL)
		snprintf(data, MAX_DATA, "%s", strstr(PQgetvalue(res, 0, 0), "\"data\""));
	PQclear(res);
	return found;
}

static void
pg_refresh(Connection *c, const Session *session)
{
	PGresult   *res = pg_call_token(c, "refresh", session, NULL);

	if (strcmp(PQgetvalue(res, 0, 0), "extended") != 0)
		die("refresh", PQgetvalue(res, 0, 0));
	PQclear(res);
}

static void
pg_update(Connection *c, const Session *session, int seen)
{
	char		patch[32];

	snprintf(patch, sizeof(patch), "{\"seen\": %d}", seen);
	PQclear(pg_call_token(c, "update", session, patch));
}

static void
pg_revoke(Connection *c, const Session *session)
{
	PGresult   *res = pg_call_token(c, "revoke", session, NULL);

	if (PQgetisnull(res, 0, 0))
		die("revoke", "no such session");
	PQclear(res);
}

static int
pg_revoke_all(Connection *c, const char *user)
{
	PGresult   *res = pg_call(c, "revoke_all", 1, &user);
	int			ended = atoi(PQgetvalue(res, 0, 0));

	PQclear(res);
	return ended;
}

static const Side ours = {
	pg_connect, pg_create, pg_get, pg_refresh, pg_update, pg_revoke, pg_revoke_all
};

/* --- Redis alone --- */

static redisReply *
next_reply(Connection *c)
{
	redisReply *reply;

	if (redisGetReply(c->redis, (void **) &reply) != REDIS_OK)
		die("redis", c->redis->errstr);
	if (reply->type == REDIS_REPLY_ERROR)
		die("redis", reply->str);
	return reply;
}

static void
skip_replies(Connection *c, int n)
{
	while (n-- > 0)
		freeReplyObject(next_reply(c));
}

static void
redis_connect(Connection *c)
{
	redisReply *reply;

	c->redis = redisConnectUnix(where);
	if (c->redis == NULL || c->redis->err != 0)
		die("connect", where);
	/* a login may come in between, so both at once */
	redisAppendCommand(c->redis, "SCRIPT LOAD %s",
					   "local keys = redis.call('SMEMBERS', KEYS[1]) "
					   "local n = 0 "
					   "if #keys > 0 then n = redis.call('DEL', unpack(keys)) end "
					   "redis.call('DEL', KEYS[1]) "
					   "return n");
	reply = next_reply(c);
	snprintf(script, sizeof(script), "%s", reply->str);
	freeReplyObject(reply);
}

static void
redis_key(const char *token, char *key)
{
	unsigned char hash[32];

	crypto_generichash(hash, sizeof(hash), (const unsigned char *) token, strlen(token), NULL, 0);
	memcpy(key, "s:", 2);
	base64url(key + 2, hash, sizeof(hash));
}

static size_t
redis_seal(unsigned char *value, const char *key, const char *text)
{
	unsigned long long len;

	randombytes_buf(value, crypto_aead_xchacha20poly1305_ietf_NPUBBYTES);
	crypto_aead_xchacha20poly1305_ietf_encrypt(value + crypto_aead_xchacha20poly1305_ietf_NPUBBYTES, &len,
											   (const unsigned char *) text, strlen(text),
											   (const unsigned char *) key, strlen(key),
											   NULL, value, sealing_key);
	return crypto_aead_xchacha20poly1305_ietf_NPUBBYTES + len;
}

/* Open a value into text, which has room for 2 * MAX_DATA bytes. */
static bool
redis_open(const redisReply *reply, const char *key, char *text)
{
	unsigned long long len;
	const unsigned char *value = (const unsigned char *) reply->str;
	const size_t nonce = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;

	if (reply->type != REDIS_REPLY_STRING || reply->len < nonce || reply->len > 2 * MAX_DATA ||
		crypto_aead_xchacha20poly1305_ietf_decrypt((unsigned char *) text, &len, NULL,
												   value + nonce, reply->len - nonce,
												   (const unsigned char *) key, strlen(key),
												   value, sealing_key) != 0)
		return false;
	text[len] = '\0';
	return true;
}

static void
redis_create(Connection *c, Session *made)
{
	unsigned char secret[32];
	unsigned char value[2 * MAX_DATA];
	char		data[MAX_DATA];
	char		text[2 * MAX_DATA];
	char		key[2 + HASH_LEN + 1];
	redisReply *reply;

	randombytes_buf(secret, sizeof(secret));
	base64url(made->token, secret, sizeof(secret));
	redis_key(made->token, key);
	fill_in(data, made->number);
	snprintf(text, sizeof(text), "%s\n%" PRId64 "\n%s\n%s\n%s", made->user,
			 (int64_t) time(NULL) + LIFETIME, IP, USER_AGENT, data);
	redisAppendCommand(c->redis, "MULTI");
	redisAppendCommand(c->redis, "SETEX %s " TTL " %b", key, value, redis_seal(value, key, text));
	redisAppendCommand(c->redis, "SADD u:%s %s", made->user, key);
	redisAppendCommand(c->redis, "EXPIRE u:%s %d", made->user, LIFETIME);
	redisAppendCommand(c->redis, "EXEC");
	skip_replies(c, 4);
	reply = next_reply(c);
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3)
		die("create", "not carried out");
	freeReplyObject(reply);
}

static bool
redis_get(Connection *c, const Session *session, char *data)
{
	char		key[2 + HASH_LEN + 1];
	char		text[2 * MAX_DATA];
	char	   *line;
	redisReply *reply;
	bool		found;

	redis_key(session->token, key);
	redisAppendCommand(c->redis, "GET %s", key);
	reply = next_reply(c);
	found = redis_open(reply, key, text);
	freeReplyObject(reply);
	if (!found)
		return false;
	line = strchr(text, '\n');
	if (strncmp(text, session->user, line - text) != 0)
		die("get", "another user's session");
	if (strtoll(line, NULL, 10) < time(NULL))
		return false;
	if (data != NULL)
		snprintf(data, MAX_DATA, "%s", strchr(text, '{'));
	return true;
}

/* The absolute end is in the value, and every reader looks at it. */
static void
redis_refresh(Connection *c, const Session *session)
{
	char		key[2 + HASH_LEN + 1];
	redisReply *reply;

	redis_key(session->token, key);
	redisAppendCommand(c->redis, "EXPIRE %s " TTL, key);
	reply = next_reply(c);
	if (reply->integer != 1)
		die("refresh", "no such session");
	freeReplyObject(reply);
}

static void
redis_update(Connection *c, const Session *session, int seen)
{
	char		key[2 + HASH_LEN + 1];
	char		text[2 * MAX_DATA];
	unsigned char value[2 * MAX_DATA];
	char	   *at;
	char		digits[16];
	redisReply *reply;

	redis_key(session->token, key);
	redisAppendCommand(c->redis, "WATCH %s", key);
	redisAppendCommand(c->redis, "GET %s", key);
	skip_replies(c, 1);
	reply = next_reply(c);
	if (!redis_open(reply, key, text))
		die("update", "no such session");
	freeReplyObject(reply);
	at = strstr(text, "\"seen\": ");
	if (at == NULL)
		die("update", "unexpected data");
	snprintf(digits, sizeof(digits), "%08d", seen);
	memcpy(at + 8, digits, 8);
	redisAppendCommand(c->redis, "MULTI");
	redisAppendCommand(c->redis, "SET %s %b XX KEEPTTL", key, value, redis_seal(value, key, text));
	redisAppendCommand(c->redis, "EXEC");
	skip_replies(c, 2);
	reply = next_reply(c);
	if (reply->type != REDIS_REPLY_ARRAY)
		die("update", "changed by somebody else");
	freeReplyObject(reply);
}

/* The request that signs out has read the session, and so knows the user. */
static void
redis_revoke(Connection *c, const Session *session)
{
	char		key[2 + HASH_LEN + 1];
	redisReply *reply;

	redis_key(session->token, key);
	redisAppendCommand(c->redis, "MULTI");
	redisAppendCommand(c->redis, "DEL %s", key);
	redisAppendCommand(c->redis, "SREM u:%s %s", session->user, key);
	redisAppendCommand(c->redis, "EXEC");
	skip_replies(c, 3);
	reply = next_reply(c);
	if (reply->type != REDIS_REPLY_ARRAY || reply->element[0]->integer != 1)
		die("revoke", "no such session");
	freeReplyObject(reply);
}

static int
redis_revoke_all(Connection *c, const char *user)
{
	redisReply *reply;
	int			ended;

	redisAppendCommand(c->redis, "EVALSHA %s 1 u:%s", script, user);
	reply = next_reply(c);
	ended = (int) reply->integer;
	freeReplyObject(reply);
	return ended;
}

static const Side redis_alone = {
	redis_connect, redis_create, redis_get, redis_refresh, redis_update, redis_revoke, redis_revoke_all
};

/* --- what compare.py asks for --- */

static void
user_name(char *user, const char *kind, int number)
{
	snprintf(user, USER_LEN, "auth0|%s%08d", kind, number);
}

static void
create_for(Connection *c, Session *made, const char *kind, int number)
{
	user_name(made->user, kind, number);
	made->number = number;
	side->create(c, made);
}

/* A session of those that belong to a connection */
static const Session *
pick(Connection *c)
{
	int			share = nsessions / nconnections;

	return &sessions[c->number + nconnections * (int) (next_random(c) % share)];
}

static void
get(Connection *c)
{
	if (!side->get(c, pick(c), NULL))
		die("get", "no such session");
}

static void
create(Connection *c)
{
	Session		made;

	create_for(c, &made, "d", (int) (next_random(c) % LOGINS));
}

static void
update(Connection *c)
{
	side->update(c, pick(c), 10000000 + (int) (next_random(c) % 80000000));
}

/* 95 % get, 2 % create, 1 % each of refresh, update and revoke */
static void
mixed(Connection *c)
{
	int			chance = (int) (next_random(c) % 100);

	if (chance < 2 && c->nextra < MAX_EXTRA)
		create_for(c, &c->extra[c->nextra++], "d", (int) (next_random(c) % LOGINS));
	else if (chance == 2)
		side->refresh(c, pick(c));
	else if (chance == 3)
		update(c);
	else if (chance == 4 && c->nextra > 0)
		side->revoke(c, &c->extra[--c->nextra]);
	else
		get(c);
}

static void
carry_out(Connection *c, int number)
{
	char		user[USER_LEN];

	switch (*operation)
	{
		case 'g':
			get(c);
			break;
		case 'c':
			create(c);
			break;
		case 'r':
			if (strcmp(operation, "refresh") == 0)
				side->refresh(c, pick(c));
			else
			{
				user_name(user, "b", number);
				if (side->revoke_all(c, user) != DEVICES)
					die("revoke_all", "not all sessions of the user");
			}
			break;
		default:
			mixed(c);
	}
}

static void *
run_connection(void *argument)
{
	Connection *c = argument;
	bool		once = strcmp(operation, "revoke_all") == 0;
	int64_t		start;
	int64_t		deadline;

	c->ntook = 0;
	pthread_barrier_wait(&barrier);
	start = now_ns();
	deadline = start + duration;
	for (int i = c->number; once ? i < stock : start < deadline; i += nconnections)
	{
		int64_t		end;

		carry_out(c, i);
		end = now_ns();
		if (c->ntook == c->space)
		{
			c->space = c->space ? c->space * 2 : 4096;
			c->took = realloc(c->took, c->space * sizeof(int64_t));
			if (c->took == NULL)
				die("memory", "none left");
		}
		c->took[c->ntook++] = end - start;
		start = end;
	}
	return NULL;
}

static void
run(int milliseconds)
{
	int64_t		start;

	pthread_barrier_init(&barrier, NULL, nconnections + 1);
	duration = milliseconds * INT64_C(1000000);
	for (int i = 0; i < nconnections; i++)
		if (pthread_create(&connections[i].thread, NULL, run_connection, &connections[i]) != 0)
			die("thread", "not created");
	start = now_ns();
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < nconnections; i++)
		pthread_join(connections[i].thread, NULL);
	printf("%" PRId64, now_ns() - start);
	for (int i = 0; i < nconnections; i++)
		for (size_t j = 0; j < connections[i].ntook; j++)
			printf(" %" PRId64, connections[i].took[j]);
	printf("\n");
	pthread_barrier_destroy(&barrier);
}

static void
load(int count)
{
	sessions = calloc(count, sizeof(Session));
	if (sessions == NULL)
		die("memory", "none left");
	for (; nsessions < count; nsessions++)
		create_for(&connections[0], &sessions[nsessions], "a", nsessions);
	printf("ok\n");
}

static void
check(void)
{
	Connection *c = &connections[0];
	Session		made[DEVICES];
	char		data[MAX_DATA];
	char		user[USER_LEN];

	for (int i = 0; i < DEVICES; i++)
	{
		create_for(c, &made[i], "c", 1);
		if (!side->get(c, &made[i], data) || strstr(data, "user00000001@example.com") == NULL)
			die("check", "a new session is not there");
	}
	side->refresh(c, &made[0]);
	side->update(c, &made[0], 12345678);
	if (!side->get(c, &made[0], data) || strstr(data, "\"seen\": 12345678") == NULL ||
		strstr(data, "user00000001@example.com") == NULL)
		die("check", "an update has not been made");
	side->revoke(c, &made[0]);
	if (side->get(c, &made[0], NULL) || !side->get(c, &made[1], NULL))
		die("check", "a revocation has not been made, or too much of one");
	user_name(user, "c", 1);
	if (side->revoke_all(c, user) != DEVICES - 1 ||
		side->get(c, &made[1], NULL) || side->get(c, &made[2], NULL))
		die("check", "not all sessions have been revoked");
	made[0].token[10] = made[0].token[10] == 'A' ? 'B' : 'A';
	if (side->get(c, &made[0], NULL))
		die("check", "a wrong token has a session");
	printf("ok\n");
}

static void
make_stock(int users)
{
	Session		made;

	for (stock = 0; stock < users; stock++)
		for (int i = 0; i < DEVICES; i++)
			create_for(&connections[0], &made, "b", stock);
	printf("ok\n");
}

int
main(int argc, char **argv)
{
	char		line[128];
	char		name[32];
	int			n;
	int			number;
	int			connected = 0;
	FILE	   *file;

	if (argc != 4 || sodium_init() < 0 || (file = fopen(argv[3], "r")) == NULL)
		die("usage", "native ours|redis ADDRESS DATA");
	if (fgets(template, sizeof(template), file) == NULL)
		die("data", argv[3]);
	fclose(file);
	template[strcspn(template, "\n")] = '\0';
	side = strcmp(argv[1], "ours") == 0 ? &ours : &redis_alone;
	where = argv[2];
	randombytes_buf(sealing_key, sizeof(sealing_key));

	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		if (sscanf(line, "connect %d", &n) == 1)
		{
			for (; connected < n && n <= MAX_CONNECTIONS; connected++)
			{
				connections[connected].number = connected;
				connections[connected].random = 88172645463325252ULL + (uint64_t) connected * 7919;
				side->connect(&connections[connected]);
			}
			printf("%d\n", (int) getpid());
		}
		else if (sscanf(line, "load %d", &n) == 1)
			load(n);
		else if (strcmp(line, "check\n") == 0)
			check();
		else if (sscanf(line, "stock %d", &n) == 1)
			make_stock(n);
		else if (sscanf(line, "run %31s %d %d", name, &n, &number) == 3)
		{
			operation = name;
			nconnections = n;
			run(number);
		}
		else
			die("unknown command", line);
		fflush(stdout);
	}
	return 0;
}
