/*-------------------------------------------------------------------------
 *
 * secret_file.h
 *	  Who may own and read a file that holds a secret.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_SECRET_FILE_H
#define SM_SECRET_FILE_H

#include <sys/stat.h>

typedef enum SmSecretFile
{
	SM_SECRET_FILE_OK,
	SM_SECRET_FILE_NOT_REGULAR,
	SM_SECRET_FILE_NOT_OURS,	/* another user's than the server's or root */
	SM_SECRET_FILE_OPEN			/* others can read or write it */
} SmSecretFile;

extern SmSecretFile sm_secret_file_check(const struct stat *st);

#endif							/* SM_SECRET_FILE_H */
