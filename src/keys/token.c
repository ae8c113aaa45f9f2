/*-------------------------------------------------------------------------
 *
 * token.c
 *	  Session tokens, digest forms, stamps and session ids as text and bytes.
 *
 * A token is a password, so neither the time that the code here takes nor
 * the memory it touches depends on the secret: characters are translated by
 * arithmetic, without a table and without a branch, and all of them are
 * looked at before it decides.  Length and prefix are no secret and may
 * decide early.  No copy of the secret is left behind on the stack.
 *
 *-------------------------------------------------------------------------
 */
#include "keys/token.h"

#include <string.h>

/* base64url: a group of 4 characters is 3 bytes */
#define TOKEN_GROUPS	16
#define STAMP_GROUPS	9

#define KEY_ID_LEN		4
#define TIME_LEN		7
#define STAMP_RAW_LEN	(KEY_ID_LEN + TIME_LEN + SM_STAMP_MAC_LEN)

/* set by decode_group() beside the 24 bits of a value */
#define MALFORMED_GROUP	(UINT32_C(1) << 24)

/* a number in each of the four 16-bit lanes of 64 bits */
#define LANES(x)	((uint64_t) (x) * UINT64_C(0x0001000100010001))

static uint32_t in_range(uint32_t c, uint32_t low, uint32_t high);
static uint32_t encode_char(uint32_t value);
static inline uint64_t lanes_in_range(uint64_t c, uint32_t low, uint32_t high);
static inline uint32_t decode_group(const char *in);
static void encode_group(uint32_t bits, char *out);

/*
 * All ones if low <= c <= high, else zero.  The arguments are below 2^31, so
 * that a difference has its top bit set exactly when it is negative.
 */
static uint32_t
in_range(uint32_t c, uint32_t low, uint32_t high)
{
	return (((c - low) | (high - c)) >> 31) - 1;
}

/*
 * The base64url character of a value from 0 to 63.
 */
static uint32_t
encode_char(uint32_t value)
{
	return (in_range(value, 0, 25) & (value + 'A')) |
		(in_range(value, 26, 51) & (value - 26 + 'a')) |
		(in_range(value, 52, 61) & (value - 52 + '0')) |
		(in_range(value, 62, 62) & '-') |
		(in_range(value, 63, 63) & '_');
}

/*
 * In each of four lanes all ones if low <= c <= high, else zero.  Characters
 * are below 2^8, so that no lane of 16 bits carries into the next; the top bit
 * of a lane is the answer.
 */
static inline uint64_t
lanes_in_range(uint64_t c, uint32_t low, uint32_t high)
{
	uint64_t	inside = (c + LANES(0x8000 - low)) & (LANES(0x8000 + high) - c);

	return (inside >> 15 & LANES(1)) * 0xFFFF;
}

/*
 * Decode 4 characters, all at once, to 24 bits; MALFORMED_GROUP is set beside
 * them unless all of the characters are base64url.
 */
static inline uint32_t
decode_group(const char *in)
{
	uint64_t	c = (uint64_t) (unsigned char) in[0] |
		(uint64_t) (unsigned char) in[1] << 16 |
		(uint64_t) (unsigned char) in[2] << 32 |
		(uint64_t) (unsigned char) in[3] << 48;
	uint64_t	upper = lanes_in_range(c, 'A', 'Z');
	uint64_t	lower = lanes_in_range(c, 'a', 'z');
	uint64_t	digit = lanes_in_range(c, '0', '9');
	uint64_t	minus = lanes_in_range(c, '-', '-');
	uint64_t	under = lanes_in_range(c, '_', '_');
	uint64_t	malformed = ~(upper | lower | digit | minus | under);

	/* the difference of each character to its value, modulo 64 */
	c += (upper & LANES(0 + 128 - 'A')) |
		(lower & LANES(26 + 128 - 'a')) |
		(digit & LANES(52 + 64 - '0')) |
		(minus & LANES(62 + 64 - '-')) |
		(under & LANES(63 + 64 - '_'));

	return (uint32_t) ((c & 63) << 18 |
					   (c >> 16 & 63) << 12 |
					   (c >> 32 & 63) << 6 |
					   (c >> 48 & 63)) |
		(uint32_t) ((malformed | malformed >> 16 | malformed >> 32 | malformed >> 48) & 1) *
		MALFORMED_GROUP;
}

/*
 * Encode 24 bits as 4 characters.
 */
static void
encode_group(uint32_t bits, char *out)
{
	for (int i = 0; i < 4; i++)
		out[i] = (char) encode_char((bits >> (18 - 6 * i)) & 63);
}

SmTokenKind
sm_token_parse(const char *text, size_t len, uint8_t id[SM_ID_LEN],
			   uint8_t payload[SM_SECRET_LEN])
{
	SmTokenKind kind = SM_TOKEN_MALFORMED;
	uint32_t	seen = 0;

	if (len == SM_TOKEN_LEN)
	{
		if (memcmp(text, SM_TOKEN_PREFIX, SM_PREFIX_LEN) == 0)
			kind = SM_TOKEN_SECRET;
		else if (memcmp(text, SM_DIGEST_PREFIX, SM_PREFIX_LEN) == 0)
			kind = SM_TOKEN_DIGEST;
	}

	if (kind != SM_TOKEN_MALFORMED)
	{
		const char *in = text + SM_PREFIX_LEN;

		for (int group = 0; group < TOKEN_GROUPS; group++, in += 4)
		{
			uint32_t	bits = decode_group(in);

			seen |= bits;
			for (int i = 0; i < 3; i++)
			{
				int			pos = group * 3 + i;
				uint8_t    *byte = pos < SM_ID_LEN ?
					&id[pos] : &payload[pos - SM_ID_LEN];

				*byte = (uint8_t) (bits >> (16 - 8 * i));
			}
		}
		if (seen & MALFORMED_GROUP)
			kind = SM_TOKEN_MALFORMED;
	}

	if (kind == SM_TOKEN_MALFORMED)
	{
		memset(id, 0, SM_ID_LEN);
		memset(payload, 0, SM_SECRET_LEN);
	}

	return kind;
}

void
sm_token_format(SmTokenKind kind, const uint8_t id[SM_ID_LEN],
				const uint8_t payload[SM_SECRET_LEN], char out[SM_TOKEN_LEN])
{
	memcpy(out,
		   kind == SM_TOKEN_DIGEST ? SM_DIGEST_PREFIX : SM_TOKEN_PREFIX,
		   SM_PREFIX_LEN);
	out += SM_PREFIX_LEN;

	for (int group = 0; group < TOKEN_GROUPS; group++, out += 4)
	{
		uint32_t	bits = 0;

		for (int i = 0; i < 3; i++)
		{
			int			pos = group * 3 + i;

			bits = bits << 8 | (pos < SM_ID_LEN ?
								id[pos] : payload[pos - SM_ID_LEN]);
		}
		encode_group(bits, out);
	}
}

bool
sm_stamp_parse(const char *text, size_t len, const char *prefix,
			   SmStamp *stamp)
{
	uint8_t		raw[STAMP_RAW_LEN];
	uint32_t	seen = 0;
	uint64_t	time = 0;

	if (len != SM_STAMP_LEN || memcmp(text, prefix, SM_PREFIX_LEN) != 0)
		return false;
	for (int group = 0; group < STAMP_GROUPS; group++)
	{
		uint32_t	bits = decode_group(text + SM_PREFIX_LEN + group * 4);

		seen |= bits;
		for (int i = 0; i < 3; i++)
			raw[group * 3 + i] = (uint8_t) (bits >> (16 - 8 * i));
	}
	if (seen & MALFORMED_GROUP)
		return false;

	stamp->key_id = 0;
	for (int i = 0; i < KEY_ID_LEN; i++)
		stamp->key_id = stamp->key_id << 8 | raw[i];
	for (int i = 0; i < TIME_LEN; i++)
		time = time << 8 | raw[KEY_ID_LEN + i];
	stamp->unix_us = (int64_t) time;
	memcpy(stamp->mac, raw + KEY_ID_LEN + TIME_LEN, SM_STAMP_MAC_LEN);
	return true;
}

void
sm_stamp_format(const SmStamp *stamp, const char *prefix,
				char out[SM_STAMP_LEN])
{
	uint8_t		raw[STAMP_RAW_LEN];

	for (int i = 0; i < KEY_ID_LEN; i++)
		raw[i] = (uint8_t) (stamp->key_id >> (8 * (KEY_ID_LEN - 1 - i)));
	for (int i = 0; i < TIME_LEN; i++)
		raw[KEY_ID_LEN + i] =
			(uint8_t) ((uint64_t) stamp->unix_us >> (8 * (TIME_LEN - 1 - i)));
	memcpy(raw + KEY_ID_LEN + TIME_LEN, stamp->mac, SM_STAMP_MAC_LEN);

	memcpy(out, prefix, SM_PREFIX_LEN);
	for (int group = 0; group < STAMP_GROUPS; group++)
	{
		const uint8_t *in = raw + group * 3;

		encode_group((uint32_t) in[0] << 16 | (uint32_t) in[1] << 8 | in[2],
					 out + SM_PREFIX_LEN + group * 4);
	}
}

void
sm_id_make(uint8_t id[SM_ID_LEN], uint64_t unix_us, const uint8_t random[6],
		   uint16_t bucket)
{
	uint64_t	unix_ms = unix_us / 1000;
	unsigned	fraction = (unsigned) (unix_us % 1000) * 4096 / 1000;

	for (int i = 0; i < 6; i++)
		id[i] = (uint8_t) (unix_ms >> (40 - 8 * i));

	id[6] = (uint8_t) (0x70 | fraction >> 8);	/* version */
	id[7] = (uint8_t) fraction;
	memcpy(&id[8], random, 6);
	id[8] = 0x80 | (id[8] & 0x3f);	/* variant */

	id[14] = (uint8_t) (bucket >> 8);
	id[15] = (uint8_t) bucket;
}

uint16_t
sm_id_bucket(const uint8_t id[SM_ID_LEN])
{
	return (uint16_t) (id[14] << 8 | id[15]);
}
