/*-------------------------------------------------------------------------
 *
 * session.h
 *	  What ends a session or reports that it cannot be read.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_SESSION_H
#define SM_SESSION_H

#include "postgres.h"

#include "compat.h"
#include "session/authenticate.h"
#include "session/events.h"
#include "session/store.h"

/* SQLSTATE SM001: session_version_conflict */
#define ERRCODE_SM_VERSION_CONFLICT	MAKE_SQLSTATE('S', 'M', '0', '0', '1')
/* SQLSTATE SM002: session_limit_reached */
#define ERRCODE_SM_LIMIT_REACHED	MAKE_SQLSTATE('S', 'M', '0', '0', '2')
/* SQLSTATE SM004: session_data_corrupt */
#define ERRCODE_SM_DATA_CORRUPT		MAKE_SQLSTATE('S', 'M', '0', '0', '4')

extern void sm_end_session(SmScan *scan, SmEventWriter *events,
						   SmEventType type, text *reason);
extern void sm_patch_session(SmScan *scan, Jsonb *patch, bool replace,
							 bool used, bool current, int32 *version,
							 Jsonb **data);
extern bool sm_can_touch(void);
extern bool sm_touch_due(const SmSession *session, const SmToken *token,
						 TimestampTz now);
extern void sm_touch_session(SmScan *scan, const SmToken *token,
							 TimestampTz seen_at, bool moved,
							 inet *ip, text *user_agent);
extern void sm_warn_corrupt(const SmSession *session);
pg_noreturn extern void sm_report_corrupt(const SmSchema *schema,
											const SmSession *session);

#endif							/* SM_SESSION_H */
