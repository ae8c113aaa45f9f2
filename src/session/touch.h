/*-------------------------------------------------------------------------
 *
 * touch.h
 *	  Last-seen times in shared memory, on their way to the table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_TOUCH_H
#define SM_TOUCH_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/inet.h"
#include "utils/uuid.h"

#define SM_TOUCH_PARTITIONS 64
#define SM_MAX_USER_AGENT_LEN 512

/* A use of a session, noted. */
typedef struct SmTouch
{
	pg_uuid_t	session_id;
	TimestampTz seen;			/* the newest use */
	TimestampTz successor_used; /* first use of the token that a rotation
								 * made, or 0 */
	TimestampTz rotation;		/* the time of that rotation */
	uint8		ip_len;			/* of the inet value; 0 for none */
	uint16		user_agent_len; /* 0 for none */
	char		ip[32];
	char		user_agent[SM_MAX_USER_AGENT_LEN];
} SmTouch;

extern Size sm_touch_size(void);
extern void sm_touch_startup(void);
extern bool sm_touch_save(FILE *file);
extern bool sm_touch_load(FILE *file);

extern bool sm_touch_note(const pg_uuid_t *session_id, TimestampTz now,
						  const TimestampTz *rotation, const inet *ip,
						  const text *user_agent);
extern bool sm_touch_seen(const pg_uuid_t *session_id, TimestampTz rotation,
						  TimestampTz *seen, TimestampTz *successor_used);
extern TimestampTz sm_touch_first_use(const SmTouch *touch,
									  TimestampTz rotation);
extern int	sm_touch_collect(Oid database, SmTouch *touches, int max,
							 int *position);
extern void sm_touch_flushed(Oid database, const SmTouch *touch);
extern void sm_touch_forget(Oid database);

#endif							/* SM_TOUCH_H */
