/*-------------------------------------------------------------------------
 *
 * keyfile.h
 *	  The key file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_KEYFILE_H
#define SM_KEYFILE_H

#include "postgres.h"

/* SQLSTATE SM003: session_key_unavailable */
#define ERRCODE_SM_KEY_UNAVAILABLE	MAKE_SQLSTATE('S', 'M', '0', '0', '3')

extern void sm_key_file_init(void);
extern uint64 sm_key_file_refresh(void);
extern void sm_key_file_read(void);
extern void sm_key_file_expect_change(void);
extern bool sm_key_file_read_again(void);
extern const uint8 *sm_key_file_master(int32 key_id);
extern const char *sm_key_file_problem(void);
extern int32 sm_key_file_append(int32 above);

#endif							/* SM_KEYFILE_H */
