/*-------------------------------------------------------------------------
 *
 * redis.h
 *	  A connection to Redis that never waits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_REDIS_H
#define SM_REDIS_H

#include "postgres.h"

#include "storage/latch.h"

typedef struct SmRedis SmRedis;

/* Where Redis is. */
typedef struct SmRedisAddress
{
	const char *socket;			/* empty: host and port */
	const char *host;
	int			port;
	bool		tls;
	const char *ca_file;		/* empty: those that the system trusts */
} SmRedisAddress;

typedef enum SmRedisKind
{
	SM_REDIS_TEXT,
	SM_REDIS_INTEGER,
	SM_REDIS_NIL,
	SM_REDIS_ARRAY,				/* of two */
	SM_REDIS_ERROR
} SmRedisKind;

/* An answer; good until the next one is asked for. */
typedef struct SmRedisAnswer
{
	SmRedisKind kind;
	const char *text;			/* of a text, an error, the last text of an
								 * array */
	int64		integers[2];	/* of an integer, or those of an array */
} SmRedisAnswer;

extern SmRedis *sm_redis_open(const SmRedisAddress *address);
extern void sm_redis_close(SmRedis *redis);
extern const char *sm_redis_problem(const SmRedis *redis);
extern pgsocket sm_redis_fd(const SmRedis *redis);
extern uint32 sm_redis_events(const SmRedis *redis);
extern bool sm_redis_connected(const SmRedis *redis);
extern void sm_redis_send(SmRedis *redis, int argc, const char **argv);
extern bool sm_redis_proceed(SmRedis *redis, uint32 events);
extern bool sm_redis_next(SmRedis *redis, SmRedisAnswer *answer);

#endif							/* SM_REDIS_H */
