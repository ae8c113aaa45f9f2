/*-------------------------------------------------------------------------
 *
 * fuzz_token.c
 *	  libFuzzer target for src/keys/token.c:
 *
 *		clang -g -Isrc -fsanitize=fuzzer,address,undefined -o fuzz_token \
 *			test/fuzz/fuzz_token.c src/keys/token.c
 *		./fuzz_token -max_total_time=60 test/fuzz/corpus/token
 *
 * libFuzzer adds to the directory that is named first: name a scratch
 * directory before the corpus to leave the corpus as it is.
 *
 * Any input is parsed as a token; the verdict must be that of the simple
 * check below, and what is accepted must format to the input again; likewise
 * as a proof and as a challenge.  An
 * input of sufficient length is formatted as id and payload too, and must
 * parse to the same.
 *
 *-------------------------------------------------------------------------
 */
#include "keys/token.h"

#include <stdlib.h>
#include <string.h>

#define RAW_LEN		(SM_ID_LEN + SM_SECRET_LEN)

#define CHECK(condition) \
	do { \
		if (!(condition)) \
			abort(); \
	} while (0)

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static SmTokenKind
expected_kind(const uint8_t *data, size_t size)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

	if (size != SM_TOKEN_LEN)
		return SM_TOKEN_MALFORMED;
	for (size_t i = SM_PREFIX_LEN; i < size; i++)
	{
		if (memchr(alphabet, data[i], sizeof(alphabet) - 1) == NULL)
			return SM_TOKEN_MALFORMED;
	}
	if (memcmp(data, "sm1_", SM_PREFIX_LEN) == 0)
		return SM_TOKEN_SECRET;
	if (memcmp(data, "sd1_", SM_PREFIX_LEN) == 0)
		return SM_TOKEN_DIGEST;
	return SM_TOKEN_MALFORMED;
}

static void
check_text(const uint8_t *data, size_t size)
{
	uint8_t		id[SM_ID_LEN];
	uint8_t		payload[SM_SECRET_LEN];
	char		out[SM_TOKEN_LEN];
	SmTokenKind kind;

	kind = sm_token_parse((const char *) data, size, id, payload);
	CHECK(kind == expected_kind(data, size));

	if (kind != SM_TOKEN_MALFORMED)
	{
		sm_token_format(kind, id, payload, out);
		CHECK(memcmp(out, data, SM_TOKEN_LEN) == 0);
	}
}

static void
check_stamp(const uint8_t *data, size_t size, const char *prefix)
{
	SmStamp		stamp;
	char		out[SM_STAMP_LEN];

	if (!sm_stamp_parse((const char *) data, size, prefix, &stamp))
		return;
	CHECK(size == SM_STAMP_LEN);
	sm_stamp_format(&stamp, prefix, out);
	CHECK(memcmp(out, data, SM_STAMP_LEN) == 0);
}

static void
check_raw(SmTokenKind kind, const uint8_t *raw)
{
	uint8_t		id[SM_ID_LEN];
	uint8_t		payload[SM_SECRET_LEN];
	char		text[SM_TOKEN_LEN];

	sm_token_format(kind, raw, raw + SM_ID_LEN, text);
	CHECK(sm_token_parse(text, sizeof(text), id, payload) == kind);
	CHECK(memcmp(id, raw, SM_ID_LEN) == 0);
	CHECK(memcmp(payload, raw + SM_ID_LEN, SM_SECRET_LEN) == 0);
}

static void
check_id(const uint8_t *raw)
{
	uint8_t		id[SM_ID_LEN];
	uint64_t	unix_us;
	uint64_t	back = 0;
	uint16_t	bucket = sm_id_bucket(raw);

	memcpy(&unix_us, raw, sizeof(unix_us));
	sm_id_make(id, unix_us, raw + 8, bucket);

	for (int i = 0; i < 6; i++)
		back = back << 8 | id[i];
	CHECK(back == (unix_us / 1000 & UINT64_C(0xffffffffffff)));
	CHECK(((id[6] & 0x0f) << 8 | id[7]) == (int) (unix_us % 1000 * 4096 / 1000));
	CHECK(id[6] >> 4 == 7);
	CHECK(id[8] >> 6 == 2);
	CHECK(sm_id_bucket(id) == bucket);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_text(data, size);
	check_stamp(data, size, SM_PROOF_PREFIX);
	check_stamp(data, size, SM_CHALLENGE_PREFIX);
	CHECK(sm_token_len((const char *) data, size) <= size);

	if (size >= SM_ID_LEN)
		check_id(data);
	if (size >= RAW_LEN)
	{
		check_raw(SM_TOKEN_SECRET, data);
		check_raw(SM_TOKEN_DIGEST, data);
	}
	return 0;
}
