/*-------------------------------------------------------------------------
 *
 * guess.h
 *	  Counts wrong tokens by the network that they come from.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_GUESS_H
#define SM_GUESS_H

#include "postgres.h"

#include "utils/jsonb.h"

#include "session/client.h"

/* What a wrong token from a network makes of it. */
typedef enum SmGuess
{
	SM_GUESS_FEW,				/* nothing that should be recorded */
	SM_GUESS_BURST,				/* to be recorded now */
	SM_GUESS_KNOWN				/* it was, not long ago */
} SmGuess;

extern void sm_guess_init(void);
extern SmGuess sm_guess_count(const uint8 *id, const uint8 *digest,
							  const SmClient *client, int64 *count);
extern Jsonb *sm_guess_detail(const SmClient *client, int64 count);

#endif							/* SM_GUESS_H */
