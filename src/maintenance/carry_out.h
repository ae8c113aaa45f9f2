/*-------------------------------------------------------------------------
 *
 * carry_out.h
 *	  Carries out findings of transactions that rolled back.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CARRY_OUT_H
#define SM_CARRY_OUT_H

#include "postgres.h"

#include "maintenance/pass.h"

extern void sm_carry_out(SmPass *pass);

#endif							/* SM_CARRY_OUT_H */
