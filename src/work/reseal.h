/*-------------------------------------------------------------------------
 *
 * reseal.h
 *	  Moves seals to the active key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_RESEAL_H
#define SM_RESEAL_H

#include "postgres.h"

#include "schema.h"

extern bool sm_reseal_step(const SmSchema *schema);

#endif							/* SM_RESEAL_H */
