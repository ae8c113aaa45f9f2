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
#include "utils/uuid.h"

#include "session/client.h"


/* A use of a session, recorded. */
typedef struct SmTouch
{
	pg_uuid_t	session_id;
	TimestampTz seen;			/* the newest use */
	TimestampTz successor_used; /* first use of the token that a rotation
								 * made, or 0 */
	TimestampTz rotation;		/* the time of that rotation */
	SmFlatClient client;
} SmTouch;

extern void sm_touch_init(void);
extern bool sm_touch_record(const pg_uuid_t *session_id, TimestampTz now,
							const TimestampTz *rotation, const SmClient *client);
extern bool sm_touch_seen(const pg_uuid_t *session_id, TimestampTz rotation,
						  TimestampTz *seen, TimestampTz *successor_used);
extern TimestampTz sm_touch_first_use(const SmTouch *touch,
									  TimestampTz rotation);
extern int	sm_touch_collect(Oid database, SmTouch *touches, int max,
							 int *position);
extern bool sm_touch_waits(Oid database, bool (*which) (const pg_uuid_t *session_id));
extern void sm_touch_flushed(Oid database, const SmTouch *touch);

#endif							/* SM_TOUCH_H */
