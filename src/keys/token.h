/*-------------------------------------------------------------------------
 *
 * token.h
 *	  Session tokens, digest forms, stamps and session ids as text and bytes.
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
 * A token of a session that is bound to a device is followed by a dot and a
 * proof.  Proofs and challenges are stamps: a time under a MAC.
 *
 *	proof		"sp1_" + base64url(4-byte key id || 7-byte time || 16-byte MAC)
 *	challenge	"sc1_" + the same
 *
 * Both are 40 characters; numbers are big-endian.  The time is in microseconds
 * since 1970, until the year 4253: when a proof expires, when a challenge was
 * issued.
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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SM_ID_LEN		16
#define SM_SECRET_LEN	32
#define SM_DIGEST_LEN	32
#define SM_TOKEN_LEN	68
#define SM_PREFIX_LEN	4

#define SM_TOKEN_PREFIX		"sm1_"
#define SM_DIGEST_PREFIX	"sd1_"

#define SM_STAMP_MAC_LEN	16
#define SM_STAMP_LEN		40

#define SM_PROOF_PREFIX		"sp1_"
#define SM_CHALLENGE_PREFIX	"sc1_"

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
 * How much of a text is its token or digest form: all of it, unless a dot
 * follows, behind which there is a proof.
 */
static inline size_t
sm_token_len(const char *text, size_t len)
{
	return len > SM_TOKEN_LEN && text[SM_TOKEN_LEN] == '.' ? SM_TOKEN_LEN : len;
}

/*
 * Write a token or digest form: SM_TOKEN_LEN characters and no terminator.
 * kind is SM_TOKEN_SECRET or SM_TOKEN_DIGEST.
 */
extern void sm_token_format(SmTokenKind kind,
							const uint8_t id[SM_ID_LEN],
							const uint8_t payload[SM_SECRET_LEN],
							char out[SM_TOKEN_LEN]);

/* A proof or a challenge, taken apart. */
typedef struct SmStamp
{
	uint32_t	key_id;			/* session key whose subkey made the MAC */
	int64_t		unix_us;		/* below 2^56 */
	uint8_t		mac[SM_STAMP_MAC_LEN];
} SmStamp;

/*
 * Read a stamp of len bytes with one of the prefixes above.  False if it is
 * malformed.
 */
extern bool sm_stamp_parse(const char *text, size_t len, const char *prefix,
						   SmStamp *stamp);

/*
 * Write a stamp: SM_STAMP_LEN characters and no terminator.
 */
extern void sm_stamp_format(const SmStamp *stamp, const char *prefix,
							char out[SM_STAMP_LEN]);

/*
 * Make a session id of a time in microseconds since 1970; 46 of the 48 random
 * bits are used.
 */
extern void sm_id_make(uint8_t id[SM_ID_LEN], uint64_t unix_us,
					   const uint8_t random[6], uint16_t bucket);

/* The bucket that a session id ends in. */
extern uint16_t sm_id_bucket(const uint8_t id[SM_ID_LEN]);

#endif							/* SM_TOKEN_H */
