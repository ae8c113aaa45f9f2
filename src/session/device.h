/*-------------------------------------------------------------------------
 *
 * device.h
 *	  Which kind of device a user agent names.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_DEVICE_H
#define SM_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#define SM_MAX_BROWSER_LEN	32

/* A kind of device, by names without versions; "" stands for what is unknown. */
typedef struct SmDevice
{
	const char *browser;		/* not terminated: may lead into the user
								 * agent */
	size_t		browser_len;
	const char *system;			/* terminated */
} SmDevice;

extern SmDevice sm_device(const char *user_agent, size_t len);
extern bool sm_device_equal(const SmDevice *a, const SmDevice *b);

#endif							/* SM_DEVICE_H */
