/*-------------------------------------------------------------------------
 *
 * redact.h
 *	  Keeps session tokens out of the server log.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_REDACT_H
#define SM_REDACT_H

extern void sm_redact_init(void);

#endif							/* SM_REDACT_H */
