/*-------------------------------------------------------------------------
 *
 * restore.h
 *	  Is a dump being restored into this database?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_RESTORE_H
#define SM_RESTORE_H

#include "postgres.h"

#include "schema.h"

extern const char *sm_restore_pending(const SmSchema *schema);

#endif							/* SM_RESTORE_H */
