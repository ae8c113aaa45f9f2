/*-------------------------------------------------------------------------
 *
 * envelope.h
 *	  What is inside an opened seal: is it whole?
 *
 * Like envelope.c, free of PostgreSQL headers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_ENVELOPE_H
#define SM_ENVELOPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A varlena header, and the alignment of jsonb. */
#define SM_VARHDRSZ			4
#define SM_INTALIGN(n)		(((n) + 3) & ~(size_t) 3)

/* The binary form of jsonb, as utils/jsonb.h has it; crypto.c compares. */
#define SM_JB_COUNT			0x0FFFFFFFU
#define SM_JB_SCALAR		0x10000000U
#define SM_JB_OBJECT		0x20000000U
#define SM_JB_ARRAY			0x40000000U
#define SM_JE_OFFLEN		0x0FFFFFFFU
#define SM_JE_TYPE			0x70000000U
#define SM_JE_HAS_OFF		0x80000000U
#define SM_JE_STRING		0x00000000U
#define SM_JE_NUMERIC		0x10000000U
#define SM_JE_FALSE			0x20000000U
#define SM_JE_TRUE			0x30000000U
#define SM_JE_NULL			0x40000000U
#define SM_JE_CONTAINER		0x50000000U

/* Where the values are in an opened seal. */
typedef struct SmEnvelope
{
	size_t		data_len;		/* of the container, without its header */
	size_t		auth_at;		/* where the header of auth is */
	size_t		auth_len;		/* 0 for no auth */
	size_t		device_at;		/* where the header of the device's key is */
	size_t		device_len;		/* 0 for no key */
} SmEnvelope;

extern bool sm_envelope_parse(const uint8_t *plain, size_t len,
							  bool has_device,
							  void (*check_depth) (void),
							  SmEnvelope *envelope);

#endif							/* SM_ENVELOPE_H */
