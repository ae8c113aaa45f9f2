/*-------------------------------------------------------------------------
 *
 * server.h
 *	  What the Redis server says of itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CACHE_SERVER_H
#define SM_CACHE_SERVER_H

#include "postgres.h"

extern void sm_server_inquire(void);
extern void sm_server_inquire_again(int64 now);

#endif							/* SM_CACHE_SERVER_H */
