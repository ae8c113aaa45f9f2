/*-------------------------------------------------------------------------
 *
 * fuzz_envelope.c
 *	  libFuzzer target for src/keys/envelope.c:
 *
 *		clang -g -Isrc -fsanitize=fuzzer,address,undefined -o fuzz_envelope \
 *			test/fuzz/fuzz_envelope.c src/keys/envelope.c
 *		./fuzz_envelope -max_total_time=60 test/fuzz/corpus/envelope
 *
 * Any input is taken for an opened seal, with a device's key and without.  What is accepted is read as
 * PostgreSQL reads jsonb, which trusts every length: from memory that ends
 * where the value ends, so that AddressSanitizer sees a read past it.
 *
 *-------------------------------------------------------------------------
 */
#include "keys/envelope.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
	do { \
		if (!(condition)) \
			abort(); \
	} while (0)

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned sum;			/* so that no read is optimized away */

static void
any_depth(void)
{
}

static uint32_t
read_uint32(const uint8_t *p)
{
	uint32_t	value;

	memcpy(&value, p, sizeof(value));
	return value;
}

static void
touch(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += p[i];
}

/* getJsonbOffset */
static size_t
offset_of(const uint8_t *container, size_t index)
{
	size_t		offset = 0;

	for (size_t i = index; i-- > 0;)
	{
		uint32_t	entry = read_uint32(container + 4 + 4 * i);

		offset += entry & SM_JE_OFFLEN;
		if (entry & SM_JE_HAS_OFF)
			break;
	}
	return offset;
}

/* getJsonbLength */
static size_t
length_of(const uint8_t *container, size_t index)
{
	uint32_t	entry = read_uint32(container + 4 + 4 * index);

	if (entry & SM_JE_HAS_OFF)
		return (entry & SM_JE_OFFLEN) - offset_of(container, index);
	return entry & SM_JE_OFFLEN;
}

/* JsonbIterator and fillJsonbValue */
static void
read_container(const uint8_t *container)
{
	uint32_t	header = read_uint32(container);
	size_t		n = header & SM_JB_COUNT;
	const uint8_t *base;

	CHECK(((header & SM_JB_OBJECT) != 0) != ((header & SM_JB_ARRAY) != 0));
	CHECK((header & SM_JB_SCALAR) == 0);
	if (header & SM_JB_OBJECT)
		n *= 2;
	base = container + 4 + 4 * n;

	for (size_t i = 0; i < n; i++)
	{
		size_t		offset = offset_of(container, i);
		size_t		length = length_of(container, i);
		const uint8_t *aligned = base + SM_INTALIGN(offset);

		switch (read_uint32(container + 4 + 4 * i) & SM_JE_TYPE)
		{
			case SM_JE_STRING:
				touch(base + offset, length);
				break;
			case SM_JE_NUMERIC:
				CHECK(!(header & SM_JB_OBJECT) || i >= n / 2);
				CHECK((read_uint32(aligned) & 3) == 0);
				touch(aligned, read_uint32(aligned) >> 2);
				CHECK((read_uint32(aligned) >> 2) >= ((aligned[5] & 0x80) ? 6 : 8));
				break;
			case SM_JE_CONTAINER:
				CHECK(!(header & SM_JB_OBJECT) || i >= n / 2);
				read_container(aligned);
				break;
			case SM_JE_FALSE:
			case SM_JE_TRUE:
			case SM_JE_NULL:
				CHECK(!(header & SM_JB_OBJECT) || i >= n / 2);
				break;
			default:
				abort();
		}
	}
}

/* A value as PostgreSQL gets it: behind its varlena header, and no longer. */
static void
read_value(const uint8_t *container, size_t len)
{
	uint8_t    *copy = malloc(len);

	CHECK(copy != NULL && len >= 4);
	memcpy(copy, container, len);
	CHECK(read_uint32(copy) & SM_JB_OBJECT);
	read_container(copy);
	free(copy);
}

static void
read_envelope(const uint8_t *plain, size_t size, bool has_device)
{
	SmEnvelope	envelope;

	if (!sm_envelope_parse(plain, size, has_device, any_depth, &envelope))
		return;
	CHECK(envelope.data_len <= size && envelope.auth_len <= size);
	CHECK((envelope.device_len > 0) == has_device);
	read_value(plain + SM_VARHDRSZ, envelope.data_len);
	if (envelope.auth_len > 0)
		read_value(plain + envelope.auth_at + SM_VARHDRSZ, envelope.auth_len);
	if (has_device)
	{
		CHECK(envelope.device_at >= envelope.auth_at + SM_VARHDRSZ + envelope.auth_len);
		CHECK(envelope.device_at + SM_VARHDRSZ + envelope.device_len == size);
		read_value(plain + envelope.device_at + SM_VARHDRSZ, envelope.device_len);
	}
	else
		CHECK(envelope.auth_at + SM_VARHDRSZ + envelope.auth_len == size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t    *plain = malloc(size > 0 ? size : 1);

	CHECK(plain != NULL);
	memcpy(plain, data, size);
	read_envelope(plain, size, false);
	read_envelope(plain, size, true);
	free(plain);
	return 0;
}
