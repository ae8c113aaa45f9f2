/*-------------------------------------------------------------------------
 *
 * verdict.h
 *	  Security findings that outlive the transaction that made them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_VERDICT_H
#define SM_VERDICT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/inet.h"
#include "utils/uuid.h"

#include "session/events.h"
#include "session/touch.h"

/* A finding: an event to be recorded and perhaps a session to be ended. */
typedef struct SmVerdict
{
	Oid			database;
	uint64		id;				/* in the queue */
	int			failures;
	int64		retry_at;		/* by sm_clock(); 0: at any time */
	SmEventType type;
	TimestampTz at;
	pg_uuid_t	session_id;
	bool		exists;			/* there was such a session */
	bool		revoke;
	char		cause[16];		/* "" for none */
	int64		suppressed;
	uint8		ip_len;			/* of the inet value; 0 for none */
	uint16		user_agent_len;
	char		ip[32];
	char		user_agent[SM_MAX_USER_AGENT_LEN];
} SmVerdict;

extern void sm_verdict_init(void);
extern Size sm_verdict_size(void);
extern void sm_verdict_startup(void);

extern bool sm_verdict_keep(SmEventType type, const pg_uuid_t *session_id,
							bool exists, bool revoke, const char *cause,
							int64 suppressed, const inet *ip,
							const text *user_agent);
extern bool sm_verdict_peek(Oid database, SmVerdict *verdict);
extern void sm_verdict_done(const SmVerdict *verdict);
extern void sm_verdict_later(const SmVerdict *verdict, bool failed);
extern int64 sm_verdict_retry_at(Oid database);
extern void sm_verdict_forget(Oid database);

#endif							/* SM_VERDICT_H */
