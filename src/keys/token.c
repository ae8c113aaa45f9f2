/*-------------------------------------------------------------------------
 *
 * token.c
 *	  Session tokens, digest forms and session ids as text and bytes.
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
#define GROUPS		16

/* set by decode_char() beside the 6 bits of a value */
#define NOT_BASE64URL	0x40u

static uint32_t in_range(uint32_t c, uint32_t low, uint32_t high);
static uint32_t decode_char(uint32_t c);
static uint32_t encode_char(uint32_t value);

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
 * Value of a base64url character, or NOT_BASE64URL.
 */
static uint32_t
decode_char(uint32_t c)
{
	uint32_t	upper = in_range(c, 'A', 'Z');
	uint32_t	lower = in_range(c, 'a', 'z');
	uint32_t	digit = in_range(c, '0', '9');
	uint32_t	minus = in_range(c, '-', '-');
	uint32_t	under = in_range(c, '_', '_');

	return (upper & (c - 'A')) |
		(lower & (c - 'a' + 26)) |
		(digit & (c - '0' + 52)) |
		(minus & 62) |
		(under & 63) |
		(~(upper | lower | digit | minus | under) & NOT_BASE64URL);
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
		const unsigned char *in =
			(const unsigned char *) text + SM_PREFIX_LEN;

		for (int group = 0; group < GROUPS; group++)
		{
			uint32_t	bits = 0;

			for (int i = 0; i < 4; i++)
			{
				uint32_t	value = decode_char(*in++);

				seen |= value;
				bits = bits << 6 | (value & 63);
			}

			for (int i = 0; i < 3; i++)
			{
				int			pos = group * 3 + i;
				uint8_t    *byte = pos < SM_ID_LEN ?
					&id[pos] : &payload[pos - SM_ID_LEN];

				*byte = (uint8_t) (bits >> (16 - 8 * i));
			}
		}

		if (seen & NOT_BASE64URL)
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

	for (int group = 0; group < GROUPS; group++)
	{
		uint32_t	bits = 0;

		for (int i = 0; i < 3; i++)
		{
			int			pos = group * 3 + i;

			bits = bits << 8 | (pos < SM_ID_LEN ?
								id[pos] : payload[pos - SM_ID_LEN]);
		}

		for (int i = 0; i < 4; i++)
			*out++ = (char) encode_char((bits >> (18 - 6 * i)) & 63);
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
