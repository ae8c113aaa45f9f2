/*-------------------------------------------------------------------------
 *
 * cache_reader.c
 *	  Read sessions through Redis: a whole reader of docs/cache-protocol.md.
 *
 *	cache_reader CONNINFO REDIS KEYFILE < tokens
 *
 * CONNINFO is libpq's, for the primary and a role that has the bundle "app".
 * REDIS is HOST:PORT/DB or the path of a socket, then with database 1 as is
 * the extension's default.  KEYFILE holds the application key, 64 hexadecimal digits.
 * Each line of standard input is a token; each line of the output says
 * "cache", "database", "none" or "error", and the session as JSON.
 *
 * To use it in a program, include this file with CACHE_READER_LIBRARY
 * defined.  A CacheReader belongs to one thread.
 *
 * Never do less than this: PostgreSQL answers whenever Redis has no answer
 * that passes every check of open_value().  What is filled was read on the
 * primary after the lease was taken, and PostgreSQL said "cacheable", under
 * the installation whose epoch the lease is of.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <hiredis/hiredis.h>
#include <libpq-fe.h>
#include <sodium.h>

#define DOMAIN			"session_manager cache v1"
#define DOMAIN_LEN		24
#define ID_LEN			16
#define SECRET_LEN		32
#define TOKEN_LEN		68
#define KEY_LEN			32		/* application key and sealing keys */
#define EPOCH_LEN		32
#define NONCE_LEN		24
#define TAG_LEN			16
#define PREFIX_LEN		(1 + EPOCH_LEN)
#define TIMES_LEN		16		/* cached_at and not_after */
#define PAD_BLOCK		256
#define ASSOCIATED_LEN	(DOMAIN_LEN + ID_LEN + EPOCH_LEN)

#define SECOND			INT64_C(1000000)	/* in microseconds */
#define REDIS_TIMEOUT	20000	/* microseconds, for each command */
#define REDIS_PATIENCE	100000	/* the same after an answer that was late */
#define PATIENT_FOR		SECOND
#define BREAKER_LIMIT	3		/* failures in a row that open the breaker */
#define BREAKER_PAUSE	SECOND	/* unless a late answer comes */
#define SETTINGS_LIFE	(60 * SECOND)
#define SETTINGS_RETRY	(5 * SECOND)	/* while there is no epoch */
#define CLOCK_TOLERANCE (5 * SECOND)

typedef enum SessionSource
{
	SESSION_ERROR,				/* PostgreSQL did not answer */
	SESSION_NONE,				/* no such session, or not any more */
	SESSION_DATABASE,
	SESSION_CACHE
} SessionSource;

typedef struct CacheReader
{
	PGconn	   *pg;
	redisContext *redis;		/* NULL while not connected */
	bool		selected;		/* SELECT has been answered */
	bool		unsent;			/* there is something in hiredis's buffer */
	int			owed;			/* answers that have not come */
	char		redis_host[108];	/* or the path of a socket */
	int			redis_port;		/* 0 for a socket */
	int			redis_db;
	uint8_t		application_key[KEY_LEN];

	bool		enabled;		/* what session_cache_settings() said: */
	char		installation[36 + 1];
	char		epoch_key[64];
	int64_t		max_age;
	int64_t		settings_at;	/* when they were asked for; monotonic */
	bool		settings_doubtful;

	int			failures;		/* of Redis, in a row */
	int64_t		redis_again_at; /* monotonic; the breaker is open until then */
	int64_t		patient_until;	/* monotonic; Redis is alive, and busy */
	bool		complained;		/* of an error reply; once is enough */
} CacheReader;

/* A token taken apart, and what follows from it. */
typedef struct Token
{
	uint8_t		id[ID_LEN];
	char		redis_key[8 + 36 + 1];	/* session:<uuid> */
	char		digest_form[TOKEN_LEN + 1];
	uint8_t		sealing_key[KEY_LEN];
} Token;

/* What acquire returned. */
typedef struct Lease
{
	char		nonce[32 + 1];
	char		epoch[EPOCH_LEN + 1];
	int64_t		redis_time;		/* milliseconds */
} Lease;

static const char acquire_script[] =
"local epoch = redis.call('GET', KEYS[2])\n"
"if not epoch then return false end\n"
"local held = redis.call('GETRANGE', KEYS[1], 0, 32)\n"
"if held ~= '' and (string.sub(held, 1, 1) ~= 'V' or string.sub(held, 2) == epoch) then\n"
"  return false\n"
"end\n"
"redis.call('SET', KEYS[1], 'L' .. ARGV[1], 'PX', 3000)\n"
"local time = redis.call('TIME')\n"
"return {epoch, string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))}\n";

static const char fill_script[] =
"if redis.call('GET', KEYS[1]) ~= 'L' .. ARGV[1] then return 0 end\n"
"redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])\n"
"return 1\n";

static const char settings_query[] =
"SELECT mode <> 'off', installation, (extract(epoch FROM max_age) * 1000000)::bigint"
" FROM session_cache_settings()";

/* The row as it is cached, and what fill() needs of it. */
static const char get_query[] =
"SELECT s, s ->> 'cacheable', s ->> 'read_at',"
" least((s ->> 'expires_at')::bigint, (s ->> 'absolute_expires_at')::bigint),"
" s ->> 'cache_installation'"
" FROM session_get_json($1) AS s WHERE s IS NOT NULL";

static int64_t
clock_us(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * SECOND + now.tv_nsec / 1000;
}

/*
 * Read a token, not a digest form: what is in a cookie must be a token.
 */
static bool
token_parse(const CacheReader *reader, const char *text, Token *token)
{
	uint8_t		raw[ID_LEN + SECRET_LEN];
	uint8_t		input[DOMAIN_LEN + sizeof(raw)] = DOMAIN;
	char		hex[2 * ID_LEN + 1];
	size_t		len;
	bool		ok;

	if (strlen(text) != TOKEN_LEN || memcmp(text, "sm1_", 4) != 0 ||
		sodium_base642bin(raw, sizeof(raw), text + 4, TOKEN_LEN - 4, NULL, &len,
						  NULL, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0 ||
		len != sizeof(raw))
		return false;

	memcpy(token->id, raw, ID_LEN);
	sodium_bin2hex(hex, sizeof(hex), token->id, ID_LEN);
	snprintf(token->redis_key, sizeof(token->redis_key),
			 "session:%.8s-%.4s-%.4s-%.4s-%.12s",
			 hex, hex + 8, hex + 12, hex + 16, hex + 20);

	memcpy(input + DOMAIN_LEN, raw, sizeof(raw));
	ok = crypto_generichash(token->sealing_key, KEY_LEN, input, sizeof(input),
							reader->application_key, KEY_LEN) == 0;

	/* the digest form has another string of the same length at its head */
	memcpy(input, "session_manager token v1", DOMAIN_LEN);
	ok = crypto_hash_sha256(raw + ID_LEN, input, sizeof(input)) == 0 && ok;
	memcpy(token->digest_form, "sd1_", 4);
	sodium_bin2base64(token->digest_form + 4, TOKEN_LEN - 4 + 1, raw, sizeof(raw),
					  sodium_base64_VARIANT_URLSAFE_NO_PADDING);

	sodium_memzero(input, sizeof(input));
	sodium_memzero(raw, sizeof(raw));
	return ok;
}

static void
associated_data(const Token *token, const char *epoch, uint8_t out[ASSOCIATED_LEN])
{
	memcpy(out, DOMAIN, DOMAIN_LEN);
	memcpy(out + DOMAIN_LEN, token->id, ID_LEN);
	memcpy(out + DOMAIN_LEN + ID_LEN, epoch, EPOCH_LEN);
}

static void
put_time(uint8_t *out, int64_t time)
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t) ((uint64_t) time >> (56 - 8 * i));
}

static int64_t
get_time(const uint8_t *in)
{
	uint64_t	time = 0;

	for (int i = 0; i < 8; i++)
		time = time << 8 | in[i];
	return (int64_t) time;
}

/*
 * Seal a row.  The result is malloc'ed.
 */
static uint8_t *
seal_value(const Token *token, const char *epoch, int64_t cached_at,
		   int64_t not_after, const char *row, size_t *value_len)
{
	size_t		row_len = strlen(row);
	size_t		text_len = (TIMES_LEN + row_len + PAD_BLOCK - 1) / PAD_BLOCK * PAD_BLOCK;
	uint8_t    *value = malloc(PREFIX_LEN + NONCE_LEN + text_len + TAG_LEN);
	uint8_t    *nonce = value + PREFIX_LEN;
	uint8_t    *text = nonce + NONCE_LEN;
	uint8_t		associated[ASSOCIATED_LEN];

	if (value == NULL)
		return NULL;
	value[0] = 'V';
	memcpy(value + 1, epoch, EPOCH_LEN);
	randombytes_buf(nonce, NONCE_LEN);
	put_time(text, cached_at);
	put_time(text + 8, not_after);
	memcpy(text + TIMES_LEN, row, row_len);
	memset(text + TIMES_LEN + row_len, ' ', text_len - TIMES_LEN - row_len);

	associated_data(token, epoch, associated);
	if (crypto_aead_xchacha20poly1305_ietf_encrypt(text, NULL, text, text_len,
												   associated, sizeof(associated), NULL,
												   nonce, token->sealing_key) != 0)
	{
		free(value);
		return NULL;
	}
	*value_len = PREFIX_LEN + NONCE_LEN + text_len + TAG_LEN;
	return value;
}

/*
 * The row in a value, malloc'ed, if it may be used at the time now; else NULL.
 */
static char *
open_value(const Token *token, const char *epoch, const uint8_t *value,
		   size_t value_len, int64_t now, int64_t max_age)
{
	const uint8_t *nonce = value + PREFIX_LEN;
	uint8_t		associated[ASSOCIATED_LEN];
	uint8_t    *text;
	size_t		text_len;
	int64_t		cached_at;
	int64_t		not_after;

	if (value_len < PREFIX_LEN + NONCE_LEN + TIMES_LEN + TAG_LEN ||
		value[0] != 'V' || memcmp(value + 1, epoch, EPOCH_LEN) != 0)
		return NULL;

	text_len = value_len - PREFIX_LEN - NONCE_LEN - TAG_LEN;
	text = malloc(text_len + 1);
	associated_data(token, epoch, associated);
	if (text == NULL ||
		crypto_aead_xchacha20poly1305_ietf_decrypt(text, NULL, NULL, nonce + NONCE_LEN,
												   text_len + TAG_LEN,
												   associated, sizeof(associated),
												   nonce, token->sealing_key) != 0)
	{
		free(text);
		return NULL;
	}

	cached_at = get_time(text);
	not_after = get_time(text + 8);
	if (now >= not_after || now >= cached_at + max_age ||
		now < cached_at - CLOCK_TOLERANCE)
	{
		free(text);
		return NULL;
	}

	while (text_len > TIMES_LEN && text[text_len - 1] == ' ')
		text_len--;
	memmove(text, text + TIMES_LEN, text_len - TIMES_LEN);
	text[text_len - TIMES_LEN] = '\0';
	return (char *) text;
}

static void
redis_failed(CacheReader *reader)
{
	if (++reader->failures >= BREAKER_LIMIT)
		reader->redis_again_at = clock_us(CLOCK_MONOTONIC) + BREAKER_PAUSE;
}

static void
redis_close(CacheReader *reader)
{
	/* what is still on its way must not answer the next command */
	if (reader->redis != NULL)
		redisFree(reader->redis);
	reader->redis = NULL;
	reader->owed = 0;
}

static void
redis_send(CacheReader *reader, int argc, const char **argv, const size_t *lengths)
{
	/* without memory for it there is no answer */
	(void) redisAppendCommandArgv(reader->redis, argc, argv, lengths);
	reader->unsent = true;
	reader->owed++;
}

/*
 * Begin to connect; the database is selected on the way to the first command.
 */
static bool
redis_connect(CacheReader *reader)
{
	char		db[16];
	const char *select[] = {"SELECT", db};

	if (reader->redis_port == 0)
		reader->redis = redisConnectUnixNonBlock(reader->redis_host);
	else
		reader->redis = redisConnectNonBlock(reader->redis_host, reader->redis_port);
	if (reader->redis == NULL || reader->redis->err != 0)
		return false;
	reader->selected = false;
	snprintf(db, sizeof(db), "%d", reader->redis_db);
	redis_send(reader, 2, select, NULL);
	return true;
}

/*
 * Take the answers that are owed, each in its turn, and free all but the last.
 * Returns false if the connection has failed.  *reply is NULL if the last has
 * not come by the deadline: who was late himself still looks once.
 */
static bool
redis_receive(CacheReader *reader, int64_t deadline, redisReply **reply)
{
	redisContext *redis = reader->redis;

	for (;;)
	{
		struct pollfd fd = {.fd = redis->fd,.events = POLLIN};
		int64_t		left;
		int			ready;
		int			done = 0;

		*reply = NULL;
		if (redisGetReplyFromReader(redis, (void **) reply) != REDIS_OK)
			return false;
		if (*reply != NULL)
		{
			bool		ok = reader->selected || (*reply)->type == REDIS_REPLY_STATUS;

			reader->selected = true;
			if (--reader->owed == 0 && ok)
				return true;
			freeReplyObject(*reply);
			*reply = NULL;
			if (!ok)
				return false;
			continue;
		}

		left = deadline - clock_us(CLOCK_MONOTONIC);
		if (reader->unsent)
			fd.events |= POLLOUT;
		ready = poll(&fd, 1, left > 0 ? (int) (left / 1000) + 1 : 0);
		if (ready < 0 && errno != EINTR)
			return false;
		if (ready == 0 && left <= 0)
			return true;
		if (ready <= 0)
			continue;
		if ((fd.revents & POLLOUT) != 0)
		{
			if (redisBufferWrite(redis, &done) != REDIS_OK)
				return false;
			reader->unsent = !done;
		}
		if ((fd.revents & ~POLLOUT) != 0 && redisBufferRead(redis) != REDIS_OK)
			return false;
	}
}

/*
 * May Redis be asked?  A late answer that has come shows that it is alive: it
 * is dropped, and the breaker closes.  If none comes for as long as the breaker
 * is open, the connection is given up.
 */
static bool
redis_ready(CacheReader *reader)
{
	if (reader->redis != NULL && reader->owed > 0)
	{
		int			owed = reader->owed;
		redisReply *late = NULL;

		if (!redis_receive(reader, 0, &late))
			redis_close(reader);
		else if (reader->owed < owed)
		{
			reader->failures = 0;
			reader->patient_until = clock_us(CLOCK_MONOTONIC) + PATIENT_FOR;
		}
		freeReplyObject(late);
	}
	if (reader->failures >= BREAKER_LIMIT)
	{
		if (clock_us(CLOCK_MONOTONIC) < reader->redis_again_at)
			return false;
		if (reader->owed > 0)
			redis_close(reader);
	}
	if (reader->redis == NULL && !redis_connect(reader))
	{
		redis_close(reader);
		redis_failed(reader);
		return false;
	}
	return true;
}

/*
 * One command: its reply, or NULL when there is none that can be used.
 */
static redisReply *
redis_command(CacheReader *reader, int argc, const char **argv, const size_t *lengths)
{
	redisReply *reply = NULL;
	int64_t		now;
	bool		patient;

	if (!redis_ready(reader))
		return NULL;

	now = clock_us(CLOCK_MONOTONIC);
	patient = (now < reader->patient_until);
	redis_send(reader, argc, argv, lengths);
	if (!redis_receive(reader, now + (patient ? REDIS_PATIENCE : REDIS_TIMEOUT), &reply))
		redis_close(reader);
	if (reply != NULL && clock_us(CLOCK_MONOTONIC) > now + REDIS_TIMEOUT)
		reader->patient_until = now + PATIENT_FOR;
	if (reply == NULL)
	{
		redis_failed(reader);
		return NULL;
	}
	if (reply->type == REDIS_REPLY_ERROR)
	{
		if (!reader->complained)
			fprintf(stderr, "redis: %s\n", reply->str);
		reader->complained = true;
		if (strncmp(reply->str, "READONLY", 8) == 0 || strncmp(reply->str, "LOADING", 7) == 0)
		{
			redis_close(reader);
			redis_failed(reader);
		}
		freeReplyObject(reply);
		return NULL;
	}
	reader->failures = 0;
	return reply;
}

static bool
is_string(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_STRING;
}

/*
 * Look into Redis.  A row that may be used is the result; otherwise *fillable
 * says whether to ask for a lease.
 */
static char *
read_cache(CacheReader *reader, const Token *token, bool *fillable)
{
	const char *argv[] = {"MGET", token->redis_key, reader->epoch_key};
	redisReply *reply = redis_command(reader, 3, argv, NULL);
	char	   *row = NULL;

	*fillable = false;
	if (reply == NULL)
		return NULL;
	/* none, or that of a server that has been restarted since */
	reader->settings_doubtful = reply->type == REDIS_REPLY_ARRAY &&
		reply->elements == 2 && !is_string(reply->element[1]);
	if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
		is_string(reply->element[1]) && reply->element[1]->len == EPOCH_LEN)
	{
		const redisReply *value = reply->element[0];
		const char *epoch = reply->element[1]->str;

		if (is_string(value))
			row = open_value(token, epoch, (const uint8_t *) value->str, value->len,
							 clock_us(CLOCK_REALTIME), reader->max_age);
		*fillable = !is_string(value) ||
			(value->len > PREFIX_LEN && value->str[0] == 'V' &&
			 memcmp(value->str + 1, epoch, EPOCH_LEN) != 0);
	}
	freeReplyObject(reply);
	return row;
}

static bool
acquire(CacheReader *reader, const Token *token, Lease *lease)
{
	uint8_t		random[16];
	const char *argv[] = {"EVAL", acquire_script, "2", token->redis_key,
	reader->epoch_key, lease->nonce};
	redisReply *reply;
	bool		ok = false;

	randombytes_buf(random, sizeof(random));
	sodium_bin2hex(lease->nonce, sizeof(lease->nonce), random, sizeof(random));
	reply = redis_command(reader, 6, argv, NULL);
	if (reply == NULL)
		return false;
	if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
		is_string(reply->element[0]) && reply->element[0]->len == EPOCH_LEN &&
		is_string(reply->element[1]))
	{
		memcpy(lease->epoch, reply->element[0]->str, EPOCH_LEN + 1);
		lease->redis_time = strtoll(reply->element[1]->str, NULL, 10);
		ok = lease->redis_time > 0;
	}
	freeReplyObject(reply);
	return ok;
}

static void
fill(CacheReader *reader, const Token *token, const Lease *lease,
	 int64_t cached_at, int64_t expires_at, const char *row)
{
	int64_t		not_after = cached_at + reader->max_age;
	char		vanish_at[24];
	const char *argv[] = {"EVAL", fill_script, "1", token->redis_key, lease->nonce,
	NULL, vanish_at};
	size_t		lengths[7];

	if (expires_at < not_after)
		not_after = expires_at;
	if (not_after - cached_at < 1000)
		return;
	snprintf(vanish_at, sizeof(vanish_at), "%" PRId64,
			 lease->redis_time + (not_after - cached_at) / 1000);

	argv[5] = (char *) seal_value(token, lease->epoch, cached_at, not_after, row, &lengths[5]);
	if (argv[5] == NULL)
		return;
	for (int i = 0; i < 7; i++)
		if (i != 5)
			lengths[i] = strlen(argv[i]);
	freeReplyObject(redis_command(reader, 7, argv, lengths));
	free((char *) argv[5]);
}

/*
 * Run a query on the primary, which a restart of it survives.
 */
static PGresult *
query(CacheReader *reader, const char *sql, const char *parameter)
{
	PGresult   *result;

	if (PQstatus(reader->pg) != CONNECTION_OK)
		PQreset(reader->pg);
	result = PQexecParams(reader->pg, sql, parameter != NULL ? 1 : 0, NULL,
						  &parameter, NULL, NULL, 0);
	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		return result;
	fprintf(stderr, "%s", PQerrorMessage(reader->pg));
	PQclear(result);
	return NULL;
}

static void
refresh_settings(CacheReader *reader)
{
	int64_t		now = clock_us(CLOCK_MONOTONIC);
	PGresult   *result;

	if (reader->settings_at != 0 &&
		now < reader->settings_at +
		(reader->settings_doubtful ? SETTINGS_RETRY : SETTINGS_LIFE))
		return;
	reader->settings_at = now;
	result = query(reader, settings_query, NULL);
	/* without an answer what is known stays good: an epoch never comes back */
	reader->settings_doubtful = (result == NULL);
	if (result == NULL)
		return;
	reader->enabled = PQntuples(result) == 1 && *PQgetvalue(result, 0, 0) == 't';
	if (reader->enabled)
	{
		snprintf(reader->installation, sizeof(reader->installation), "%s",
				 PQgetvalue(result, 0, 1));
		snprintf(reader->epoch_key, sizeof(reader->epoch_key), "session:epoch:%s",
				 reader->installation);
		reader->max_age = strtoll(PQgetvalue(result, 0, 2), NULL, 10);
	}
	else
		reader->settings_doubtful = true;
	PQclear(result);
}

/*
 * Another server than that of the settings has answered: ask for them again in
 * some seconds.
 */
static void
ask_soon(CacheReader *reader)
{
	int64_t		soon = clock_us(CLOCK_MONOTONIC) - SETTINGS_LIFE + SETTINGS_RETRY;

	if (reader->settings_at > soon)
		reader->settings_at = soon;
}

/*
 * The session of a token.  *row is malloc'ed JSON, or NULL.
 */
SessionSource
session_read(CacheReader *reader, const char *text, char **row)
{
	Token		token;
	Lease		lease;
	bool		fillable = false;
	bool		leased = false;
	SessionSource source = SESSION_NONE;
	PGresult   *result;

	*row = NULL;
	if (!token_parse(reader, text, &token))
		return SESSION_NONE;

	refresh_settings(reader);
	if (reader->enabled)
		*row = read_cache(reader, &token, &fillable);
	if (*row != NULL)
	{
		sodium_memzero(token.sealing_key, KEY_LEN);
		return SESSION_CACHE;
	}

	/* the lease first, then the look at the row: never the other way round */
	if (fillable)
		leased = acquire(reader, &token, &lease);
	result = query(reader, get_query, token.digest_form);
	if (result == NULL)
		source = SESSION_ERROR;
	else if (PQntuples(result) == 1)
	{
		source = SESSION_DATABASE;
		*row = strdup(PQgetvalue(result, 0, 0));
		if (leased && strcmp(PQgetvalue(result, 0, 1), "true") == 0)
		{
			/* another server could not end the epoch that the lease is of */
			if (strcmp(PQgetvalue(result, 0, 4), reader->installation) != 0)
				ask_soon(reader);
			else
				fill(reader, &token, &lease,
					 strtoll(PQgetvalue(result, 0, 2), NULL, 10),
					 strtoll(PQgetvalue(result, 0, 3), NULL, 10), *row);
		}
	}
	PQclear(result);
	sodium_memzero(token.sealing_key, KEY_LEN);
	return source;
}

static bool
read_key(const char *path, uint8_t key[KEY_LEN])
{
	FILE	   *file = fopen(path, "r");
	char		hex[2 * KEY_LEN + 1];
	size_t		len = 0;
	bool		ok;

	if (file == NULL)
		return false;
	ok = fgets(hex, sizeof(hex), file) != NULL &&
		sodium_hex2bin(key, KEY_LEN, hex, strlen(hex), NULL, &len, NULL) == 0 &&
		len == KEY_LEN;
	fclose(file);
	sodium_memzero(hex, sizeof(hex));
	return ok;
}

/*
 * Prepare a reader.  False, with a message on standard error, if PostgreSQL
 * is not there or the key file is no good.  Redis need not be there.
 */
bool
cache_reader_open(CacheReader *reader, const char *conninfo, const char *redis,
				  const char *key_file)
{
	memset(reader, 0, sizeof(*reader));
	reader->redis_db = 1;
	/* a connection that Redis has closed is an error, not the end */
	signal(SIGPIPE, SIG_IGN);
	if (sodium_init() < 0)
		return false;
	if (!read_key(key_file, reader->application_key))
	{
		fprintf(stderr, "%s: not a key of 64 hexadecimal digits\n", key_file);
		return false;
	}
	if (*redis == '/')
		snprintf(reader->redis_host, sizeof(reader->redis_host), "%s", redis);
	else if (sscanf(redis, "%107[^:]:%d/%d", reader->redis_host,
					&reader->redis_port, &reader->redis_db) != 3)
	{
		fprintf(stderr, "%s: not HOST:PORT/DB or a path\n", redis);
		return false;
	}
	reader->pg = PQconnectdb(conninfo);
	if (PQstatus(reader->pg) != CONNECTION_OK)
	{
		fprintf(stderr, "%s", PQerrorMessage(reader->pg));
		PQfinish(reader->pg);
		return false;
	}
	return true;
}

void
cache_reader_close(CacheReader *reader)
{
	PQfinish(reader->pg);
	if (reader->redis != NULL)
		redisFree(reader->redis);
	sodium_memzero(reader->application_key, KEY_LEN);
}

#ifndef CACHE_READER_LIBRARY

int
main(int argc, char **argv)
{
	static const char *const names[] = {"error", "none", "database", "cache"};
	CacheReader reader;
	char		line[256];

	if (argc != 4)
	{
		fprintf(stderr, "usage: %s CONNINFO REDIS KEYFILE < tokens\n", argv[0]);
		return 2;
	}
	if (!cache_reader_open(&reader, argv[1], argv[2], argv[3]))
		return 1;
	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		SessionSource source;
		char	   *row;

		line[strcspn(line, "\n")] = '\0';
		source = session_read(&reader, line, &row);
		printf("%s %s\n", names[source], row != NULL ? row : "");
		fflush(stdout);
		free(row);
	}
	cache_reader_close(&reader);
	return 0;
}

#endif							/* CACHE_READER_LIBRARY */
