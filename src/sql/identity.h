/*-------------------------------------------------------------------------
 *
 * identity.h
 *	  The identity bound to a transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_IDENTITY_H
#define SM_IDENTITY_H

extern void sm_identity_init(void);

#endif							/* SM_IDENTITY_H */
