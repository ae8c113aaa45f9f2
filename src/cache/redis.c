/*-------------------------------------------------------------------------
 *
 * redis.c
 *	  A connection to Redis that never waits, by hiredis.
 *
 * Commands are put into a buffer; sm_redis_proceed writes and reads what the
 * socket takes and has, when the caller finds it ready.  Answers come in the
 * order of the commands.  After a failure a connection can only tell what its
 * problem is, and be closed.
 *
 * One thing may wait: a host that is a name is resolved when the connection is
 * opened, because hiredis does it there.  The resolver is given a second and
 * no second try for each of the system's name servers.
 *
 * The only file that includes hiredis.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <hiredis/hiredis.h>
#ifdef HAVE_HIREDIS_SSL
#include <hiredis/hiredis_ssl.h>
#endif

#include "utils/memutils.h"

#include "cache/redis.h"

struct SmRedis
{
	redisContext *context;
	bool		connected;
	bool		unsent;			/* there is something in hiredis's buffer */
	void	   *reply;			/* that the last answer is in */
	char	   *problem;		/* NULL while there is none */
	bool		tls;
#ifdef HAVE_HIREDIS_SSL
	redisSSLContext *ssl;
#endif
};

/* What may come ahead of what has been taken: INFO is a few kilobytes. */
#define MAX_UNREAD	(1024 * 1024)

static bool connection_is_made(SmRedis *redis);
static bool fail(SmRedis *redis, const char *problem);

/*
 * Begin to connect.  Never NULL: what goes wrong at once is found by
 * sm_redis_problem.
 */
SmRedis *
sm_redis_open(const SmRedisAddress *address)
{
	SmRedis    *redis = MemoryContextAllocZero(TopMemoryContext, sizeof(SmRedis));

	(void) setenv("RES_OPTIONS", "timeout:1 attempts:1", 0);
	redis->context = address->socket[0] != '\0' ?
		redisConnectUnixNonBlock(address->socket) :
		redisConnectNonBlock(address->host, address->port);
	redis->tls = address->tls && address->socket[0] == '\0';
	if (redis->context == NULL)
		(void) fail(redis, "out of memory");
	else if (redis->context->err)
		(void) fail(redis, redis->context->errstr);
#ifdef HAVE_HIREDIS_SSL
	else if (redis->tls)
	{
		redisSSLContextError error;

		redis->ssl = redisCreateSSLContext(address->ca_file[0] ? address->ca_file : NULL,
										   address->ca_file[0] ? NULL : "/etc/ssl/certs",
										   NULL, NULL, address->host, &error);
		if (redis->ssl == NULL)
			(void) fail(redis, redisSSLContextGetError(error));
	}
#endif
	return redis;
}

void
sm_redis_close(SmRedis *redis)
{
	if (redis->reply != NULL)
		freeReplyObject(redis->reply);
	if (redis->context != NULL)
		redisFree(redis->context);
#ifdef HAVE_HIREDIS_SSL
	if (redis->ssl != NULL)
		redisFreeSSLContext(redis->ssl);
#endif
	if (redis->problem != NULL)
		pfree(redis->problem);
	pfree(redis);
}

/*
 * What is wrong with the connection; NULL if nothing is.
 */
const char *
sm_redis_problem(const SmRedis *redis)
{
	return redis->problem;
}

pgsocket
sm_redis_fd(const SmRedis *redis)
{
	return redis->context->fd;
}

/*
 * What the socket is waited for.
 */
uint32
sm_redis_events(const SmRedis *redis)
{
	if (!redis->connected)
		return WL_SOCKET_WRITEABLE;
	return WL_SOCKET_READABLE | (redis->unsent ? WL_SOCKET_WRITEABLE : 0);
}

bool
sm_redis_connected(const SmRedis *redis)
{
	return redis->connected;
}

/*
 * Put a command into the buffer.
 */
void
sm_redis_send(SmRedis *redis, int argc, const char **argv)
{
	if (redis->problem != NULL)
		return;
	if (redisAppendCommandArgv(redis->context, argc, argv, NULL) != REDIS_OK)
		(void) fail(redis, redis->context->errstr);
	redis->unsent = true;
}

/*
 * Write and read as far as the socket allows.  False if the connection has
 * failed.
 */
bool
sm_redis_proceed(SmRedis *redis, uint32 events)
{
	int			done = 0;

	if (redis->problem != NULL)
		return false;
	if (!redis->connected)
		return (events & WL_SOCKET_WRITEABLE) == 0 || connection_is_made(redis);
	if (redis->unsent)
	{
		if (redisBufferWrite(redis->context, &done) != REDIS_OK)
			return fail(redis, redis->context->errstr);
		redis->unsent = !done;
	}
	if ((events & WL_SOCKET_READABLE) != 0 &&
		redisBufferRead(redis->context) != REDIS_OK)
		return fail(redis, redis->context->errstr);
	if (redis->context->reader->len > MAX_UNREAD)
		return fail(redis, "reply too large");
	return true;
}

/*
 * The next answer that has come; false if there is none, or what came is not
 * Redis's protocol.
 */
bool
sm_redis_next(SmRedis *redis, SmRedisAnswer *answer)
{
	redisReply *reply;

	if (redis->problem != NULL)
		return false;
	if (redis->reply != NULL)
		freeReplyObject(redis->reply);
	redis->reply = NULL;
	if (redisReaderGetReply(redis->context->reader, &redis->reply) != REDIS_OK)
		return fail(redis, redis->context->reader->errstr);
	if (redis->reply == NULL)
		return false;

	reply = redis->reply;
	memset(answer, 0, sizeof(*answer));
	answer->text = "";
	switch (reply->type)
	{
		case REDIS_REPLY_STATUS:
		case REDIS_REPLY_STRING:
			answer->kind = SM_REDIS_TEXT;
			answer->text = reply->str;
			break;
		case REDIS_REPLY_ERROR:
			answer->kind = SM_REDIS_ERROR;
			answer->text = reply->str;
			break;
		case REDIS_REPLY_INTEGER:
			answer->kind = SM_REDIS_INTEGER;
			answer->integers[0] = reply->integer;
			break;
		case REDIS_REPLY_ARRAY:
			answer->kind = SM_REDIS_ARRAY;
			for (size_t i = 0; i < Min(reply->elements, lengthof(answer->integers)); i++)
			{
				if (reply->element[i]->type == REDIS_REPLY_INTEGER)
					answer->integers[i] = reply->element[i]->integer;
				else if (reply->element[i]->type == REDIS_REPLY_STRING)
					answer->text = reply->element[i]->str;
			}
			break;
		default:
			answer->kind = SM_REDIS_NIL;
			break;
	}
	return true;
}

/* The socket has become writable: connected, or not. */
static bool
connection_is_made(SmRedis *redis)
{
	int			error = 0;
	socklen_t	len = sizeof(error);

	if (getsockopt(redis->context->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
		error = errno;
	if (error != 0)
		return fail(redis, strerror(error));
#ifdef HAVE_HIREDIS_SSL
	/* the handshake goes on with the first writes and reads */
	if (redis->tls &&
		redisInitiateSSLWithContext(redis->context, redis->ssl) != REDIS_OK)
		return fail(redis, redis->context->errstr);
#endif
	redis->connected = true;
	return true;
}

static bool
fail(SmRedis *redis, const char *problem)
{
	/* what hiredis says when TLS fails without an error of the system */
	if (redis->tls && strcmp(problem, "Success") == 0)
		problem = "TLS failed: the certificate is not trusted, or the server does not support TLS";
	if (redis->problem == NULL)
		redis->problem = MemoryContextStrdup(TopMemoryContext, problem);
	return false;
}
