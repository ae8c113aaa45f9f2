/*-------------------------------------------------------------------------
 *
 * test_device.c
 *	  Unit test of src/session/device.c, without a server:
 *
 *		cc -Isrc -o test_device test/unit/test_device.c src/session/device.c && ./test_device
 *
 * Prints a line per test and exits with 1 if one fails.  User agents lie in
 * memory of exactly their size, for AddressSanitizer to see a read beyond them.
 *
 *-------------------------------------------------------------------------
 */
#include "session/device.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int	failures = 0;

static void
report(int ok, const char *name)
{
	printf("%s - %s\n", ok ? "ok" : "not ok", name);
	if (!ok)
		failures++;
}

/* "browser/system" of a copy that ends where the user agent ends */
static void
describe(const char *user_agent, size_t len, char out[128])
{
	char	   *copy = malloc(len > 0 ? len : 1);
	SmDevice	device;

	if (copy == NULL)
		abort();
	memcpy(copy, user_agent, len);
	device = sm_device(copy, len);
	snprintf(out, 128, "%.*s/%s", (int) device.browser_len, device.browser,
			 device.system);
	free(copy);
}

static void
names(const char *user_agent, const char *expected)
{
	char		found[128];
	char		name[256];

	describe(user_agent, strlen(user_agent), found);
	snprintf(name, sizeof(name), "%s: %.100s", found, user_agent);
	report(strcmp(found, expected) == 0, name);
}

static void
test_browsers(void)
{
	names("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
		  "Firefox/Linux");
	names("Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0",
		  "Firefox/Linux");
	names("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
		  "Chrome/Windows");
	names("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0",
		  "Edge/Windows");
	names("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 OPR/112.0.0.0",
		  "Opera/Windows");
	names("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
		  "Safari/macOS");
	names("Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
		  "Safari/iPhone");
	names("Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/126.0.6478.54 Mobile/15E148 Safari/604.1",
		  "Chrome/iPhone");
	names("Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/127.0 Mobile/15E148 Safari/605.1.15",
		  "Firefox/iPad");
	names("Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36",
		  "Chrome/Android");
	names("Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36",
		  "Samsung Internet/Android");
	names("Mozilla/5.0 (Linux; Android 14; Pixel 8; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/126.0.0.0 Mobile Safari/537.36",
		  "Android WebView/Android");
	names("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
		  "Chrome/ChromeOS");
	names("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/126.0.0.0 Safari/537.36",
		  "Headless Chrome/Linux");
	names("Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
		  "Internet Explorer/Windows");
	names("Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
		  "WebKit/iPhone");
}

static void
test_others(void)
{
	names("curl/8.5.0", "curl/");
	names("python-requests/2.32.3", "python-requests/");
	names("okhttp/4.12.0", "okhttp/");
	names("Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8)", "Dalvik/Android");
	names("MyApp/3.1 CFNetwork/1496.0.7 Darwin/23.5.0", "MyApp/Darwin");
	names("Firefox", "Firefox/");
	names("Mozilla/5.0", "Mozilla/");
	names("", "/");
	names("(compatible)", "/");
	names("\xc3\xa4\xc3\xb6/1", "/");
	names("Firefoxy/1 Chromes/2", "Firefoxy/");
	names("evil.example wants your password", "evil/");
	names("a-name-that-is-much-longer-than-any-product-name-would-be/1",
		  "a-name-that-is-much-longer-than-/");
}

static void
test_updates(void)
{
	static const char *const before = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
	static const char *const after = "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0";
	static const char *const other = "Mozilla/5.0 (Windows NT 10.0; rv:141.0) Gecko/20100101 Firefox/141.0";
	SmDevice	a = sm_device(before, strlen(before));
	SmDevice	b = sm_device(after, strlen(after));
	SmDevice	c = sm_device(other, strlen(other));
	SmDevice	none = sm_device("", 0);

	report(sm_device_equal(&a, &b), "an update is no other device");
	report(!sm_device_equal(&a, &c), "another system is");
	report(!sm_device_equal(&a, &none), "and so is none");
	report(sm_device_equal(&none, &none), "none is none");
}

/* Every byte, in agents of every length: what is returned can be shown. */
static void
test_noise(void)
{
	static const char *const pieces[] = {"Firefox", "Windows", "/", " ", "(", "\xff", "Edg", "\0"};
	uint64_t	state = UINT64_C(0x9e3779b97f4a7c15);
	int			ok = 1;

	for (int round = 0; round < 100000 && ok; round++)
	{
		char		agent[600];
		char		found[128];
		size_t		len = 0;
		size_t		limit;

		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		limit = state % 512;
		while (len < limit)
		{
			state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
			if ((state >> 33) % 4 == 0)
			{
				const char *piece = pieces[(state >> 40) % 8];

				memcpy(agent + len, piece, strlen(piece));
				len += strlen(piece);
			}
			else
				agent[len++] = (char) (state >> 48);
		}
		describe(agent, len, found);
		ok = strlen(found) <= 64;
		for (const char *c = found; *c != '\0'; c++)
			ok = ok && *c >= ' ' && *c <= 'z' && strchr("<>&\"'.:", *c) == NULL;
	}
	report(ok, "no noise comes out");
}

int
main(void)
{
	test_browsers();
	test_others();
	test_updates();
	test_noise();
	return failures > 0;
}
