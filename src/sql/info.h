/*-------------------------------------------------------------------------
 *
 * info.h
 *	  session_info.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_INFO_H
#define SM_INFO_H

extern void sm_info_init(void);

#endif							/* SM_INFO_H */
