/*-------------------------------------------------------------------------
 *
 * commit.h
 *	  What the commit of a transaction waits for that ended sessions or
 *	  replaced a token.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_COMMIT_H
#define SM_COMMIT_H

#include "postgres.h"

extern void sm_commit_init(void);
extern void sm_commit_durably(void);
extern void sm_commit_visibly(void);
extern const char *sm_commit_state(void);

#endif							/* SM_COMMIT_H */
