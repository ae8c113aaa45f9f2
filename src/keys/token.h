/*-------------------------------------------------------------------------
 *
 * token.h
 *	  Session tokens, digest forms and session ids as text and bytes.
 *
 * Pure C: no PostgreSQL and no libsodium header, so that the parser is
 * unit-tested and fuzzed stand-alone.
 *
 *	token        "sm1_" + base64url(16-byte session id || 32-byte secret)
 *	digest form  "sd1_" + base64url(16-byte session id || 32-byte digest)
 *
 * Both are 68 characters, without padding.  base64url: RFC 4648, section 5.
 * 48 bytes are 64 characters with no bit to spare, so every pair of id and
 * payload has exactly one text of each kind.
 *
 * The session id is a UUID version 7 (RFC 9562) that ends in the user's
 * bucket, big-endian:
 *
 *	bits   0 ..  47	  milliseconds since 1970
 *	bits  48 ..  51	  version, 7
 *	bits  52 ..  63	  fraction of the millisecond, in 1/4096 (section 6.2, method 3)
 *	bits  64 ..  65	  variant, binary 10
 *	bits  66 .. 111	  random
 *	bits 112 .. 127	  bucket
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_TOKEN_H
#define SM_TOKEN_H

#include <stddef.h>
#include <stdint.h>

#define SM_ID_LEN		16
#define SM_SECRET_LEN	32
#define SM_DIGEST_LEN	32
#define SM_TOKEN_LEN	68
#define SM_PREFIX_LEN	4

#define SM_TOKEN_PREFIX		"sm1_"
#define SM_DIGEST_PREFIX	"sd1_"

typedef enum SmTokenKind
{
	SM_TOKEN_MALFORMED,
	SM_TOKEN_SECRET,			/* sm1_: payload is the secret */
	SM_TOKEN_DIGEST				/* sd1_: payload is the digest */
} SmTokenKind;

/*
 * Read a token or digest form of len bytes, which need not be terminated.
 * When it is malformed, id and payload are set to zeroes.
 */
extern SmTokenKind sm_token_parse(const char *text, size_t len,
								  uint8_t id[SM_ID_LEN],
								  uint8_t payload[SM_SECRET_LEN]);

/*
 * Write a token or digest form: SM_TOKEN_LEN characters and no terminator.
 * kind is SM_TOKEN_SECRET or SM_TOKEN_DIGEST.
 */
extern void sm_token_format(SmTokenKind kind,
							const uint8_t id[SM_ID_LEN],
							const uint8_t payload[SM_SECRET_LEN],
							char out[SM_TOKEN_LEN]);

/*
 * Make a session id of a time in microseconds since 1970; 46 of the 48 random
 * bits are used.
 */
extern void sm_id_make(uint8_t id[SM_ID_LEN], uint64_t unix_us,
					   const uint8_t random[6], uint16_t bucket);

/* The bucket that a session id ends in. */
extern uint16_t sm_id_bucket(const uint8_t id[SM_ID_LEN]);

#endif							/* SM_TOKEN_H */
