/*-------------------------------------------------------------------------
 *
 * finding.h
 *	  Security findings that outlive the transaction that made them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_FINDING_H
#define SM_FINDING_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/uuid.h"

#include "session/client.h"
#include "session/events.h"

/* A finding: an event to be recorded and perhaps a session to be ended. */
typedef struct SmFinding
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
} SmFinding;

extern void sm_finding_init(void);

extern bool sm_finding_keep(SmEventType type, const pg_uuid_t *session_id,
							bool exists, const char *cause, int64 suppressed,
							const SmClient *client);
extern bool sm_finding_peek(Oid database, SmFinding *finding);
extern void sm_finding_done(const SmFinding *finding);
extern void sm_finding_later(const SmFinding *finding, bool failed);
extern int64 sm_finding_retry_at(Oid database);
extern bool sm_finding_waits(Oid database,
							 bool (*which) (const pg_uuid_t *session_id));

#endif							/* SM_FINDING_H */
