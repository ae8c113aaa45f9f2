/*-------------------------------------------------------------------------
 *
 * test_token.c
 *	  Unit test of src/keys/token.c, without a server:
 *
 *		cc -Isrc -o test_token test/unit/test_token.c src/keys/token.c && ./test_token
 *
 * Prints a line per test and exits with 1 if one fails.  The reference codec
 * here looks characters up in the alphabet's string and so shares nothing
 * with the arithmetic under test.  Texts to parse lie in memory of exactly
 * their size, for AddressSanitizer to see a read beyond them.
 *
 *-------------------------------------------------------------------------
 */
#include "keys/token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAW_LEN		(SM_ID_LEN + SM_SECRET_LEN)
#define BODY_LEN	(SM_TOKEN_LEN - SM_PREFIX_LEN)
#define STAMP_RAW_LEN	(4 + 7 + SM_STAMP_MAC_LEN)

static const char alphabet[] =
"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static int	failures = 0;

static void
report(int ok, const char *name)
{
	printf("%s - %s\n", ok ? "ok" : "not ok", name);
	if (!ok)
		failures++;
}

/* xorshift64: the same numbers in every run */
static uint64_t
next_random(void)
{
	static uint64_t state = UINT64_C(0x9e3779b97f4a7c15);

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void
random_bytes(uint8_t *out, size_t len)
{
	while (len-- > 0)
		*out++ = (uint8_t) (next_random() >> 24);
}

static void
reference_encode(const uint8_t raw[RAW_LEN], char out[BODY_LEN])
{
	for (int bit = 0; bit < RAW_LEN * 8; bit += 6)
	{
		int			value = 0;

		for (int i = bit; i < bit + 6; i++)
			value = value * 2 + ((raw[i / 8] >> (7 - i % 8)) & 1);
		out[bit / 6] = alphabet[value];
	}
}

/* parse a copy that ends where the text ends, into buffers full of noise */
static SmTokenKind
parse(const char *text, size_t len, uint8_t raw[RAW_LEN])
{
	char	   *copy = malloc(len > 0 ? len : 1);
	uint8_t		id[SM_ID_LEN];
	uint8_t		payload[SM_SECRET_LEN];
	SmTokenKind kind;

	if (copy == NULL)
		abort();
	memcpy(copy, text, len);
	memset(id, 0xee, sizeof(id));
	memset(payload, 0xee, sizeof(payload));

	kind = sm_token_parse(copy, len, id, payload);

	free(copy);
	memcpy(raw, id, SM_ID_LEN);
	memcpy(raw + SM_ID_LEN, payload, SM_SECRET_LEN);
	return kind;
}

/* malformed, and nothing of the text given out */
static int
rejected(const char *text, size_t len)
{
	static const uint8_t zeroes[RAW_LEN];
	uint8_t		raw[RAW_LEN];

	return parse(text, len, raw) == SM_TOKEN_MALFORMED &&
		memcmp(raw, zeroes, RAW_LEN) == 0;
}

/* text and bytes belong together, in both directions and for both kinds */
static int
pair(const char *body, const uint8_t raw[RAW_LEN])
{
	static const struct
	{
		SmTokenKind kind;
		const char *prefix;
	}			kinds[] = {
		{SM_TOKEN_SECRET, "sm1_"},
		{SM_TOKEN_DIGEST, "sd1_"},
	};

	for (int i = 0; i < 2; i++)
	{
		char		text[SM_TOKEN_LEN];
		char		out[SM_TOKEN_LEN];
		uint8_t		back[RAW_LEN];

		memcpy(text, kinds[i].prefix, SM_PREFIX_LEN);
		memcpy(text + SM_PREFIX_LEN, body, BODY_LEN);

		if (parse(text, SM_TOKEN_LEN, back) != kinds[i].kind ||
			memcmp(back, raw, RAW_LEN) != 0)
			return 0;

		sm_token_format(kinds[i].kind, raw, raw + SM_ID_LEN, out);
		if (memcmp(out, text, SM_TOKEN_LEN) != 0)
			return 0;
	}
	return 1;
}

/* pair() for a text and bytes that repeat */
static int
repeated_pair(const char *text, const char *bytes, size_t bytes_len)
{
	char		body[BODY_LEN];
	uint8_t		raw[RAW_LEN];

	for (size_t i = 0; i < BODY_LEN; i++)
		body[i] = text[i % strlen(text)];
	for (size_t i = 0; i < RAW_LEN; i++)
		raw[i] = (uint8_t) bytes[i % bytes_len];
	return pair(body, raw);
}

static void
test_vectors(void)
{
	static const uint8_t counting[RAW_LEN] = {
		0x00, 0x10, 0x83, 0x10, 0x51, 0x87, 0x20, 0x92, 0x8b, 0x30, 0xd3, 0x8f,
		0x41, 0x14, 0x93, 0x51, 0x55, 0x97, 0x61, 0x96, 0x9b, 0x71, 0xd7, 0x9f,
		0x82, 0x18, 0xa3, 0x92, 0x59, 0xa7, 0xa2, 0x9a, 0xab, 0xb2, 0xdb, 0xaf,
		0xc3, 0x1c, 0xb3, 0xd3, 0x5d, 0xb7, 0xe3, 0x9e, 0xbb, 0xf3, 0xdf, 0xbf
	};

	/* those of RFC 4648 that need no padding, repeated to full length */
	report(repeated_pair("Zm9v", "foo", 3), "RFC 4648: foo");
	report(repeated_pair("Zm9vYmFy", "foobar", 6), "RFC 4648: foobar");
	report(repeated_pair("FPucA9l-", "\x14\xfb\x9c\x03\xd9\x7e", 6),
		   "RFC 4648, section 9: 14fb9c03d97e");

	report(repeated_pair("AAAA", "\0", 1), "all bits zero");
	report(repeated_pair("____", "\xff", 1), "all bits one");
	report(repeated_pair("----", "\xfb\xef\xbe", 3), "every value 62");
	report(pair(alphabet, counting), "every value from 0 to 63 in turn");
}

static void
test_round_trip(void)
{
	int			ok = 1;

	for (int run = 0; run < 20000 && ok; run++)
	{
		uint8_t		raw[RAW_LEN];
		char		body[BODY_LEN];

		random_bytes(raw, RAW_LEN);
		reference_encode(raw, body);
		ok = pair(body, raw);
	}
	report(ok, "random bytes agree with the reference codec both ways");
}

static void
test_lengths(const char *token)
{
	char		text[3 * SM_TOKEN_LEN];
	int			ok = 1;

	memset(text, 'A', sizeof(text));
	memcpy(text, token, SM_TOKEN_LEN);

	for (size_t len = 0; len <= sizeof(text); len++)
	{
		if (len != SM_TOKEN_LEN && !rejected(text, len))
			ok = 0;
	}
	report(ok, "every other length is malformed");

	report(rejected("", 0), "empty text is malformed");
	text[SM_TOKEN_LEN] = '\0';
	report(rejected(text, SM_TOKEN_LEN + 1),
		   "a terminator that is counted in is malformed");
}

static void
test_bytes(const char *token)
{
	char		text[SM_TOKEN_LEN];
	uint8_t		raw[RAW_LEN];
	uint8_t		expected[RAW_LEN];
	int			refused = 1;
	int			accepted = 1;
	int			prefix = 1;

	parse(token, SM_TOKEN_LEN, expected);

	for (int pos = SM_PREFIX_LEN; pos < SM_TOKEN_LEN; pos++)
	{
		for (int c = 0; c < 256; c++)
		{
			memcpy(text, token, SM_TOKEN_LEN);
			text[pos] = (char) c;

			if (c == '\0' || strchr(alphabet, c) == NULL)
			{
				if (!rejected(text, SM_TOKEN_LEN))
					refused = 0;
			}
			else if (parse(text, SM_TOKEN_LEN, raw) != SM_TOKEN_SECRET ||
					 (memcmp(raw, expected, RAW_LEN) == 0) !=
					 (c == token[pos]))
				accepted = 0;
		}
	}
	report(refused, "every byte outside the alphabet, at every position, is malformed");
	report(accepted, "every other character, at every position, gives other bytes");

	for (int pos = 0; pos < SM_PREFIX_LEN; pos++)
	{
		for (int c = 0; c < 256; c++)
		{
			memcpy(text, token, SM_TOKEN_LEN);
			text[pos] = (char) c;

			/* position 1 has two right characters: sm1_ and sd1_ */
			if (c != token[pos] && !(pos == 1 && c == 'd') &&
				!rejected(text, SM_TOKEN_LEN))
				prefix = 0;
		}
	}
	report(prefix, "every other byte in the prefix is malformed");

	memcpy(text, token, SM_TOKEN_LEN);
	text[1] = 'd';
	report(parse(text, SM_TOKEN_LEN, raw) == SM_TOKEN_DIGEST &&
		   memcmp(raw, expected, RAW_LEN) == 0,
		   "the prefix alone tells a token from a digest form");
}

static void
test_look_alikes(const char *token)
{
	char		text[SM_TOKEN_LEN];

	memcpy(text, token, SM_TOKEN_LEN);
	text[SM_TOKEN_LEN - 1] = '=';
	report(rejected(text, SM_TOKEN_LEN), "padding is malformed");

	text[0] = ' ';
	memcpy(text + 1, token, SM_TOKEN_LEN - 1);
	report(rejected(text, SM_TOKEN_LEN), "leading white space is malformed");

	memcpy(text, token, SM_TOKEN_LEN);
	text[SM_TOKEN_LEN - 1] = '\n';
	report(rejected(text, SM_TOKEN_LEN), "trailing white space is malformed");

	memcpy(text, token, SM_TOKEN_LEN);
	memcpy(text, "SM1_", SM_PREFIX_LEN);
	report(rejected(text, SM_TOKEN_LEN), "the prefix in upper case is malformed");

	memcpy(text, token, SM_TOKEN_LEN);
	text[20] = '+';
	report(rejected(text, SM_TOKEN_LEN), "+ of plain base64 is malformed");
	text[20] = '/';
	report(rejected(text, SM_TOKEN_LEN), "/ of plain base64 is malformed");
}

static void
test_ids(void)
{
	/*
	 * RFC 9562, appendix A.6, whose random bits after the version stand for
	 * 0.797 ms or so; the last 16 bits stand for the bucket
	 */
	static const uint8_t expected[SM_ID_LEN] = {
		0x01, 0x7f, 0x22, 0xe2, 0x79, 0xb0, 0x7c, 0xc4,
		0x98, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f
	};
	static const uint8_t random_vector[6] = {
		0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07
	};
	static const uint64_t last_us = UINT64_C(0xffffffffffff) * 1000 + 999;
	uint8_t		zeroes[6];
	uint8_t		ones[6];
	uint8_t		low[SM_ID_LEN];
	uint8_t		high[SM_ID_LEN];
	uint8_t		id[SM_ID_LEN];
	int			ok;
	int			bits;

	memset(zeroes, 0, sizeof(zeroes));
	memset(ones, 0xff, sizeof(ones));

	sm_id_make(id, UINT64_C(0x017f22e279b0) * 1000 + 798, random_vector, 0x398f);
	report(memcmp(id, expected, SM_ID_LEN) == 0, "RFC 9562: UUID version 7");

	ok = 1;
	for (int run = 0; run < 10000; run++)
	{
		uint8_t		random[6];
		uint64_t	us = (next_random() >> 16) * 1000 + next_random() % 1000;
		uint64_t	ms = 0;
		unsigned	fraction;

		random_bytes(random, sizeof(random));
		sm_id_make(id, us, random, (uint16_t) run);
		for (int i = 0; i < 6; i++)
			ms = ms << 8 | id[i];
		fraction = (id[6] & 0x0f) << 8 | id[7];
		if (ms != us / 1000 || (fraction * 1000 + 4095) / 4096 != us % 1000 ||
			id[6] >> 4 != 7 || id[8] >> 6 != 2)
			ok = 0;
	}
	report(ok, "time, version and variant for any random bits");

	/* a bit that differs here is random; the others are fixed */
	sm_id_make(low, 0, zeroes, 0);
	sm_id_make(high, 0, ones, 0);
	bits = 0;
	for (int i = 0; i < SM_ID_LEN * 8; i++)
		bits += ((low[i / 8] ^ high[i / 8]) >> (7 - i % 8)) & 1;
	report(bits == 46, "46 random bits");

	ok = 1;
	for (int i = 0; i < 48; i++)
	{
		uint8_t		one[6] = {0};
		int			differs;

		one[i / 8] = (uint8_t) (0x80 >> i % 8);
		sm_id_make(id, 0, one, 0);
		differs = memcmp(id, low, SM_ID_LEN) != 0;

		/* the bits under the variant have no place in the id */
		if (differs != (i > 1))
			ok = 0;
	}
	report(ok, "each random bit has a place of its own");

	ok = 1;
	for (uint32_t bucket = 0; bucket <= 0xffff; bucket++)
	{
		sm_id_make(id, last_us, ones, (uint16_t) bucket);
		if (sm_id_bucket(id) != bucket ||
			id[14] != bucket >> 8 || id[15] != (bucket & 0xff) ||
			memcmp(id + 8, high + 8, 6) != 0)
			ok = 0;
	}
	report(ok, "every bucket, big-endian, beside the random bits");

	sm_id_make(id, last_us + 1000, zeroes, 0);
	sm_id_make(high, 999, zeroes, 0);
	report(memcmp(id, high, SM_ID_LEN) == 0, "time is cut to 48 bits");

	ok = 1;
	for (uint64_t us = 1; us <= last_us; us <<= 1)
	{
		sm_id_make(low, us - 1, ones, 0xffff);
		sm_id_make(high, us, zeroes, 0);
		if (memcmp(low, high, SM_ID_LEN) >= 0)
			ok = 0;
	}
	for (uint64_t us = 1; us < 10000; us++)
	{
		sm_id_make(low, us - 1, ones, 0xffff);
		sm_id_make(high, us, zeroes, 0);
		if (memcmp(low, high, SM_ID_LEN) >= 0)
			ok = 0;
	}
	report(ok, "ids sort by time, to the microsecond");
}

/* the bytes of a stamp: key id and time, big-endian, and the MAC */
static int
stamp_pair(const uint8_t raw[STAMP_RAW_LEN], const char *prefix)
{
	char		text[SM_STAMP_LEN];
	char		out[SM_STAMP_LEN];
	char	   *copy = malloc(SM_STAMP_LEN);
	SmStamp		stamp;
	uint64_t	time = 0;
	int			ok;

	if (copy == NULL)
		abort();
	memcpy(text, prefix, SM_PREFIX_LEN);
	for (int bit = 0; bit < STAMP_RAW_LEN * 8; bit += 6)
	{
		int			value = 0;

		for (int i = bit; i < bit + 6; i++)
			value = value * 2 + ((raw[i / 8] >> (7 - i % 8)) & 1);
		text[SM_PREFIX_LEN + bit / 6] = alphabet[value];
	}
	for (int i = 4; i < 11; i++)
		time = time << 8 | raw[i];

	memcpy(copy, text, SM_STAMP_LEN);
	ok = sm_stamp_parse(copy, SM_STAMP_LEN, prefix, &stamp) &&
		stamp.key_id == ((uint32_t) raw[0] << 24 | (uint32_t) raw[1] << 16 |
						 (uint32_t) raw[2] << 8 | raw[3]) &&
		stamp.unix_us == (int64_t) time &&
		memcmp(stamp.mac, raw + 11, SM_STAMP_MAC_LEN) == 0;
	free(copy);
	if (!ok)
		return 0;
	sm_stamp_format(&stamp, prefix, out);
	return memcmp(out, text, SM_STAMP_LEN) == 0;
}

static void
test_stamps(void)
{
	uint8_t		raw[STAMP_RAW_LEN];
	char		text[SM_STAMP_LEN + 1];
	SmStamp		stamp = {.key_id = 1,.unix_us = 1764460800000000};
	int			ok = 1;
	int			refused = 1;

	for (int run = 0; run < 20000 && ok; run++)
	{
		random_bytes(raw, STAMP_RAW_LEN);
		ok = stamp_pair(raw, run % 2 ? SM_PROOF_PREFIX : SM_CHALLENGE_PREFIX);
	}
	report(ok, "random stamps agree with the reference codec both ways");

	sm_stamp_format(&stamp, SM_PROOF_PREFIX, text);
	text[SM_STAMP_LEN] = 'A';
	report(sm_stamp_parse(text, SM_STAMP_LEN, SM_PROOF_PREFIX, &stamp) &&
		   !sm_stamp_parse(text, SM_STAMP_LEN, SM_CHALLENGE_PREFIX, &stamp) &&
		   !sm_stamp_parse(text, SM_STAMP_LEN - 1, SM_PROOF_PREFIX, &stamp) &&
		   !sm_stamp_parse(text, SM_STAMP_LEN + 1, SM_PROOF_PREFIX, &stamp) &&
		   !sm_stamp_parse(text, 0, SM_PROOF_PREFIX, &stamp),
		   "a proof is no challenge, and every other length is malformed");
	for (int pos = 0; pos < SM_STAMP_LEN; pos++)
	{
		char		was = text[pos];

		for (int c = 0; c < 256; c++)
		{
			int			right = pos < SM_PREFIX_LEN ? c == was :
				c != '\0' && strchr(alphabet, c) != NULL;

			text[pos] = (char) c;
			if (sm_stamp_parse(text, SM_STAMP_LEN, SM_PROOF_PREFIX, &stamp) != right)
				refused = 0;
		}
		text[pos] = was;
	}
	report(refused, "every byte outside the alphabet or the prefix is malformed");

	memset(text, 'A', SM_STAMP_LEN);
	report(sm_token_len(text, 0) == 0 && sm_token_len(text, SM_STAMP_LEN) == SM_STAMP_LEN,
		   "what is shorter than a token is looked at whole");
}

static void
test_token_len(const char *token)
{
	char		text[SM_TOKEN_LEN + 2];

	memcpy(text, token, SM_TOKEN_LEN);
	memcpy(text + SM_TOKEN_LEN, ".x", 2);
	report(sm_token_len(text, SM_TOKEN_LEN) == SM_TOKEN_LEN &&
		   sm_token_len(text, SM_TOKEN_LEN + 1) == SM_TOKEN_LEN &&
		   sm_token_len(text, SM_TOKEN_LEN + 2) == SM_TOKEN_LEN,
		   "a token ends before a dot");
	text[SM_TOKEN_LEN] = 'A';
	report(sm_token_len(text, SM_TOKEN_LEN + 2) == SM_TOKEN_LEN + 2,
		   "and before nothing else");
}

int
main(void)
{
	uint8_t		raw[RAW_LEN];
	char		token[SM_TOKEN_LEN];

	memcpy(token, "sm1_", SM_PREFIX_LEN);
	random_bytes(raw, RAW_LEN);
	reference_encode(raw, token + SM_PREFIX_LEN);

	test_vectors();
	test_round_trip();
	test_lengths(token);
	test_bytes(token);
	test_look_alikes(token);
	test_token_len(token);
	test_stamps();
	test_ids();

	return failures > 0;
}
