/*-------------------------------------------------------------------------
 *
 * envelope.c
 *	  What is inside an opened seal: is it whole?
 *
 *	length 4 | data, int-aligned | length 4 | auth
 *
 * Data and auth are jsonb in its binary form, which PostgreSQL reads without
 * looking where the value ends.  That it was sealed proves only that whoever
 * made it had the key, so every length and offset in it is followed once here,
 * before anything else does.  What is accepted is a tree of objects and arrays
 * whose parts lie side by side and fill the value exactly.
 *
 * Free of PostgreSQL headers, so that it is fuzzed by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "keys/envelope.h"

#include <string.h>

/* The header of a numeric, as utils/adt/numeric.c has it. */
#define NUMERIC_IS_SHORT	0x8000	/* or NaN, or an infinity */
#define NUMERIC_SHORT_LEN	(SM_VARHDRSZ + 2)
#define NUMERIC_LONG_LEN	(SM_VARHDRSZ + 4)
#define NUMERIC_BASE		10000

static bool is_object(const uint8_t *value, size_t len,
					  void (*check_depth) (void));
static bool next_value(const uint8_t *plain, size_t len, size_t *at,
					   size_t *value_len);
static bool is_container(const uint8_t *value, size_t len,
						 void (*check_depth) (void));
static bool is_numeric(const uint8_t *value, size_t len);
static uint32_t get_uint32(const uint8_t *p);
static uint16_t get_uint16(const uint8_t *p);

/*
 * Take an opened seal apart, without its padding.  False if it is not whole.
 * With "has_device" a third value follows, the key of the device.
 * "check_depth" is called at each level of nesting; it may not return.
 */
bool
sm_envelope_parse(const uint8_t *plain, size_t len, bool has_device,
				  void (*check_depth) (void), SmEnvelope *envelope)
{
	size_t		at = 0;
	size_t		end;

	if (!next_value(plain, len, &at, &envelope->data_len))
		return false;
	envelope->auth_at = at;
	if (!next_value(plain, len, &at, &envelope->auth_len))
		return false;
	end = envelope->auth_at + SM_VARHDRSZ + envelope->auth_len;
	envelope->device_at = at;
	envelope->device_len = 0;
	if (has_device)
	{
		if (!next_value(plain, len, &at, &envelope->device_len) ||
			envelope->device_len == 0)
			return false;
		end = envelope->device_at + SM_VARHDRSZ + envelope->device_len;
	}
	if (end != len)
		return false;

	return is_object(plain + SM_VARHDRSZ, envelope->data_len, check_depth) &&
		(envelope->auth_len == 0 ||
		 is_object(plain + envelope->auth_at + SM_VARHDRSZ,
				   envelope->auth_len, check_depth)) &&
		(envelope->device_len == 0 ||
		 is_object(plain + envelope->device_at + SM_VARHDRSZ,
				   envelope->device_len, check_depth));
}

/*
 * The length of the value whose header is at *at, which is moved to where the
 * next one's would be.  False if it does not fit.
 */
static bool
next_value(const uint8_t *plain, size_t len, size_t *at, size_t *value_len)
{
	if (*at > len || len - *at < SM_VARHDRSZ)
		return false;
	*value_len = get_uint32(plain + *at);
	if (*value_len > len - *at - SM_VARHDRSZ)
		return false;
	*at = SM_INTALIGN(*at + SM_VARHDRSZ + *value_len);
	return true;
}

static bool
is_object(const uint8_t *value, size_t len, void (*check_depth) (void))
{
	return len >= sizeof(uint32_t) &&
		(get_uint32(value) & SM_JB_OBJECT) != 0 &&
		is_container(value, len, check_depth);
}

/*
 * An object or array of exactly this length.  Its entries say where each
 * child ends, or how long it is; the children follow the entries.
 */
static bool
is_container(const uint8_t *value, size_t len, void (*check_depth) (void))
{
	uint32_t	header;
	size_t		n;
	const uint8_t *entries;
	const uint8_t *children;
	size_t		end = 0;

	check_depth();
	if (len < sizeof(uint32_t))
		return false;
	header = get_uint32(value);
	n = header & SM_JB_COUNT;
	switch (header & ~SM_JB_COUNT)
	{
		case SM_JB_OBJECT:
			n *= 2;				/* keys, then values */
			break;
		case SM_JB_ARRAY:
			break;
		default:
			return false;
	}
	len -= sizeof(uint32_t);
	if (n > len / sizeof(uint32_t))
		return false;
	len -= n * sizeof(uint32_t);
	entries = value + sizeof(uint32_t);
	children = entries + n * sizeof(uint32_t);

	for (size_t i = 0; i < n; i++)
	{
		uint32_t	entry = get_uint32(entries + i * sizeof(uint32_t));
		size_t		start = end;
		size_t		aligned;

		end = entry & SM_JE_OFFLEN;
		if ((entry & SM_JE_HAS_OFF) == 0)
			end += start;
		if (end < start || end > len)
			return false;
		if ((header & SM_JB_OBJECT) && i < n / 2 &&
			(entry & SM_JE_TYPE) != SM_JE_STRING)
			return false;
		/* what is aligned begins behind its padding */
		aligned = SM_INTALIGN(start);
		switch (entry & SM_JE_TYPE)
		{
			case SM_JE_STRING:
				break;
			case SM_JE_NUMERIC:
				if (aligned > end ||
					!is_numeric(children + aligned, end - aligned))
					return false;
				break;
			case SM_JE_FALSE:
			case SM_JE_TRUE:
			case SM_JE_NULL:
				if (end != start)
					return false;
				break;
			case SM_JE_CONTAINER:
				if (aligned > end ||
					!is_container(children + aligned, end - aligned, check_depth))
					return false;
				break;
			default:
				return false;
		}
	}
	return end == len;
}

/* A numeric of exactly this length, plain, with an ordinary header. */
static bool
is_numeric(const uint8_t *value, size_t len)
{
	uint32_t	size;
	size_t		digits;

	if (len < NUMERIC_SHORT_LEN)
		return false;
	size = get_uint32(value);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	if ((size & 3) != 0)
		return false;
	size >>= 2;
#endif
	if (size != len)
		return false;
	digits = (get_uint16(value + SM_VARHDRSZ) & NUMERIC_IS_SHORT) ?
		NUMERIC_SHORT_LEN : NUMERIC_LONG_LEN;
	if (len < digits || (len - digits) % 2 != 0)
		return false;
	for (; digits < len; digits += 2)
		if (get_uint16(value + digits) >= NUMERIC_BASE)
			return false;
	return true;
}

static uint32_t
get_uint32(const uint8_t *p)
{
	uint32_t	value;

	memcpy(&value, p, sizeof(value));
	return value;
}

static uint16_t
get_uint16(const uint8_t *p)
{
	uint16_t	value;

	memcpy(&value, p, sizeof(value));
	return value;
}
