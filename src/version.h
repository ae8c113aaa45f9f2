/*-------------------------------------------------------------------------
 *
 * version.h
 *	  The versions of the library and of the extension.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_VERSION_H
#define SM_VERSION_H

extern int	sm_version_compare(const char *a, const char *b);
extern void sm_version_check(void);

#endif							/* SM_VERSION_H */
