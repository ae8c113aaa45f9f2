/*-------------------------------------------------------------------------
 *
 * link.h
 *	  The cache worker's connection to Redis, and what is on its way over it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CACHE_LINK_H
#define SM_CACHE_LINK_H

#include "postgres.h"

#include "cache/cache.h"
#include "cache/redis.h"

/* A command that Redis has not answered yet. */
typedef struct SmRequest SmRequest;

/* Takes the answer to a command. */
typedef void (*SmAnswerHandler) (const SmRequest *request,
								 const SmRedisAnswer *answer);

struct SmRequest
{
	SmAnswerHandler handler;
	int64		sent_at;		/* by sm_clock() */
	uint64		context[3];		/* what the handler has to know */
};

extern void sm_link_init(const char *database, void (*dropped) (void));
extern void sm_link_configure(void);

/* the connection */
extern bool sm_link_is_open(void);
extern int64 sm_link_retry_at(void);
extern bool sm_link_open(void);
extern void sm_link_drop(const char *problem);

/* commands */
extern void sm_link_send(SmAnswerHandler handler, const void *context,
						 size_t context_size,...) __attribute__((sentinel));
extern void sm_link_expect_success(const SmRequest *request,
								   const SmRedisAnswer *answer);
extern bool sm_link_is_success(const SmRedisAnswer *answer);
extern bool sm_link_is_overdue(int64 now);

/* waiting */
extern void sm_link_wake_by(int64 when);
extern void sm_link_wait(void);

/* what session_info and the log tell */
extern void sm_link_report(SmLinkState state, const char *problem);
extern void sm_link_log(bool good, const char *text);
extern const char *sm_link_address(void);
extern const char *sm_link_database(void);
extern void sm_copy_ascii(char *to, const char *from, size_t size);

#endif							/* SM_CACHE_LINK_H */
