/*-------------------------------------------------------------------------
 *
 * check_vectors.c
 *	  Check the reader in examples/ against the vectors of the cache protocol.
 *
 * Standard input is what "cache.py --lines" prints: on each line
 *
 *	accepted|refused name token key epoch now max_age value plaintext
 *
 * with bytes in hexadecimal and "-" for nothing.  Prints "ok" or "not ok" for
 * each.  What is accepted must also seal, and open again, as it was.
 *
 *-------------------------------------------------------------------------
 */
#define CACHE_READER_LIBRARY
#include "cache_reader.c"

#define LINE_MAX_LEN	(1 << 16)

static int	number = 0;
static int	failures = 0;

static void
say(bool ok, const char *verdict, const char *name)
{
	printf("%sok %d - %s: %s\n", ok ? "" : "not ", ++number, verdict, name);
	failures += !ok;
}

static size_t
from_hex(uint8_t *out, size_t room, const char *hex)
{
	size_t		len = 0;

	if (strcmp(hex, "-") != 0 &&
		sodium_hex2bin(out, room, hex, strlen(hex), NULL, &len, NULL) != 0)
		exit(2);
	return len;
}

/* Is the row what the plaintext holds between its times and its padding? */
static bool
is_row_of(const char *row, const uint8_t *plaintext, size_t len)
{
	size_t		row_len = row != NULL ? strlen(row) : 0;

	if (row == NULL || len < TIMES_LEN + row_len ||
		memcmp(row, plaintext + TIMES_LEN, row_len) != 0)
		return false;
	for (size_t i = TIMES_LEN + row_len; i < len; i++)
		if (plaintext[i] != ' ')
			return false;
	return true;
}

int
main(void)
{
	static char line[LINE_MAX_LEN];
	static char text[9][LINE_MAX_LEN];
	static uint8_t value[LINE_MAX_LEN];
	static uint8_t plaintext[LINE_MAX_LEN];

	if (sodium_init() < 0)
		return 2;
	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		CacheReader reader = {0};
		Token		token;
		const char *epoch;
		bool		accepted;
		int64_t		now;
		int64_t		max_age;
		size_t		value_len;
		size_t		plaintext_len;
		char	   *row = NULL;
		bool		ok;

		if (sscanf(line, "%s %s %s %s %s %s %s %s %s", text[0], text[1], text[2],
				   text[3], text[4], text[5], text[6], text[7], text[8]) != 9)
			return 2;
		accepted = strcmp(text[0], "accepted") == 0;
		if (from_hex(reader.application_key, KEY_LEN, text[3]) != KEY_LEN ||
			!token_parse(&reader, text[2], &token))
			return 2;
		epoch = text[4];
		now = strtoll(text[5], NULL, 10);
		max_age = strtoll(text[6], NULL, 10);
		value_len = from_hex(value, sizeof(value), text[7]);
		plaintext_len = from_hex(plaintext, sizeof(plaintext), text[8]);

		/* without an epoch read_cache() does not come this far */
		if (strcmp(epoch, "-") != 0)
			row = open_value(&token, epoch, value, value_len, now, max_age);
		if (!accepted)
		{
			say(row == NULL, text[0], text[1]);
			free(row);
			continue;
		}

		ok = is_row_of(row, plaintext, plaintext_len);
		if (ok)
		{
			uint8_t    *again;
			size_t		again_len;
			char	   *row_again = NULL;

			again = seal_value(&token, epoch, get_time(plaintext), get_time(plaintext + 8),
							   row, &again_len);
			if (again != NULL)
				row_again = open_value(&token, epoch, again, again_len, now, max_age);
			ok = again_len == value_len && row_again != NULL && strcmp(row, row_again) == 0;
			free(again);
			free(row_again);
		}
		say(ok, text[0], text[1]);
		free(row);
	}
	return failures > 0 || number == 0;
}
