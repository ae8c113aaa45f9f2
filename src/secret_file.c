/*-------------------------------------------------------------------------
 *
 * secret_file.c
 *	  Who may own and read a file that holds a secret.
 *
 * The same as check_ssl_key_file_permissions demands of ssl_key_file: a secret
 * that is mounted into a container belongs to root and is readable by a group.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "secret_file.h"

/*
 * May an opened file be used: is it 0600 or stricter, or root's and at most 0640?
 */
SmSecretFile
sm_secret_file_check(const struct stat *st)
{
	mode_t		others = S_IRWXG | S_IRWXO;

	if (!S_ISREG(st->st_mode))
		return SM_SECRET_FILE_NOT_REGULAR;
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return SM_SECRET_FILE_NOT_OURS;
	if (st->st_uid == 0 && geteuid() != 0)
		others = S_IWGRP | S_IXGRP | S_IRWXO;
	if ((st->st_mode & others) != 0)
		return SM_SECRET_FILE_OPEN;
	return SM_SECRET_FILE_OK;
}
