/*-------------------------------------------------------------------------
 *
 * patch.h
 *	  JSON Merge Patch (RFC 7396) on jsonb.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_PATCH_H
#define SM_PATCH_H

#include "postgres.h"

#include "utils/jsonb.h"

/* Both must be objects at the root; neither is changed. */
extern Jsonb *sm_merge_patch(Jsonb *target, Jsonb *patch);

#endif							/* SM_PATCH_H */
