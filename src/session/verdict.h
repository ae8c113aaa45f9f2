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
#include "utils/uuid.h"

#include "session/client.h"
#include "session/events.h"

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
	SmFlatClient client;
} SmVerdict;

extern void sm_verdict_init(void);
extern Size sm_verdict_size(void);
extern void sm_verdict_startup(void);

extern bool sm_verdict_keep(SmEventType type, const pg_uuid_t *session_id,
							bool exists, bool revoke, const char *cause,
							int64 suppressed, const SmClient *client);
extern bool sm_verdict_peek(Oid database, SmVerdict *verdict);
extern void sm_verdict_done(const SmVerdict *verdict);
extern void sm_verdict_later(const SmVerdict *verdict, bool failed);
extern int64 sm_verdict_retry_at(Oid database);
extern void sm_verdict_forget(Oid database);

#endif							/* SM_VERDICT_H */
