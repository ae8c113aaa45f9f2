import { type CDPSession, type Page } from '@playwright/test';
import { COOKIE, cookieOf, expect, signIn, test, USER } from './fixtures';

test('the cookie is HttpOnly, SameSite=Lax, and of the whole site', async ({ signedIn: page }) => {
  const cookie = await cookieOf(page.context());
  expect(cookie).toMatchObject({ httpOnly: true, sameSite: 'Lax', path: '/' });
  expect(cookie?.value).toMatch(/^sm1_[\w-]{64}$/);
  // To the end of the longest life that the session can have.
  expect(cookie?.expires).toBeGreaterThan(Date.now() / 1000 + 3_600);
});

/** Everything that scripts of the page hold, as V8 sees it. */
async function heap(session: CDPSession): Promise<string> {
  const chunks: string[] = [];
  session.on('HeapProfiler.addHeapSnapshotChunk', ({ chunk }: { chunk: string }) => chunks.push(chunk));
  await session.send('HeapProfiler.takeHeapSnapshot', { reportProgress: false });
  return chunks.join('');
}

test('no token is ever in a script, in storage or in a page', async ({ newDevice, baseURL, wire }) => {
  const context = await newDevice('laptop', { proxy: wire.proxy });
  const page = await context.newPage();
  await signIn(page, USER);
  await page.getByRole('button', { name: 'Extend' }).click();
  for (const name of ['Devices', 'History', 'Account']) {
    await page.getByRole('link', { name }).click();
    await expect(page.getByRole('heading', { name, exact: true })).toBeVisible();
  }
  const token = (await cookieOf(context))?.value ?? '';
  expect(token).toMatch(/^sm1_/);

  const storage = await page.evaluate(async () => ({
    cookie: document.cookie,
    local: JSON.stringify(localStorage),
    session: JSON.stringify(sessionStorage),
    databases: (await indexedDB.databases()).length,
    caches: (await caches.keys()).length,
    html: document.documentElement.outerHTML,
    history: JSON.stringify(history.state),
  }));
  expect(storage).toMatchObject({ local: '{}', databases: 0, caches: 0 });
  expect(storage.cookie).not.toContain(COOKIE);

  const cdp = await context.newCDPSession(page);
  const held = await heap(cdp);
  expect(held).toContain(USER);
  await expect.poll(wire.open).toBe(0);
  for (const path of ['/account', '/api/session/refresh']) {
    const found = wire.answers.filter(({ url, body }) => url === `${baseURL}${path}` && body.includes(USER));
    expect(found, path).not.toHaveLength(0);
  }
  const sent = wire.answers.map(({ url, headers, body }) => [url, `${url}\n${headers}\n${body}`]);
  for (const [where, text] of [...Object.entries({ ...storage, heap: held }), ...sent]) {
    // The session's token, of any session, and the issuer's: a JSON Web Token.
    expect(/s[md]1_[\w-]{64}/.exec(String(text))?.[0], where).toBeUndefined();
    expect(/\beyJ[\w-]{10,}\.[\w-]+\.[\w-]{10,}/.exec(String(text))?.[0], where).toBeUndefined();
  }
});

test('another origin can neither end nor read nor change the session', async ({ signedIn: page, baseURL }) => {
  // The same site, as far as cookies go: only the port differs.
  const evil = await page.context().newPage();
  await evil.route('http://localhost:9/**', (route) => route.fulfill({ contentType: 'text/html', body: '<p>evil</p>' }));
  await evil.goto('http://localhost:9/');
  const outcomes = await evil.evaluate(async (target) => {
    const attempt = async (path: string, init: RequestInit) => {
      try {
        const response = await fetch(target + path, { credentials: 'include', ...init });
        return `${response.type} ${response.status} ${await response.text()}`;
      } catch {
        return 'failed';
      }
    };
    const json = { 'Content-Type': 'application/json' };
    return Promise.all([
      attempt('/api/session', { method: 'GET' }),
      attempt('/api/session', { method: 'DELETE' }),
      attempt('/api/session', { method: 'POST', mode: 'no-cors', body: '{"accessToken":"x"}' }),
      attempt('/api/session/refresh', { method: 'POST', mode: 'no-cors' }),
      attempt('/api/session/tenant', { method: 'POST', headers: json, body: '{}' }),
      attempt('/api/session', { method: 'PATCH', headers: json, body: '{"client":{"theme":"evil"}}' }),
    ]);
  }, baseURL ?? '');
  for (const outcome of outcomes) expect(outcome).toMatch(/^(failed|opaque 0 )$/);

  const before = (await cookieOf(page.context()))?.value;
  await evil.setContent(`<form method="post" action="${baseURL}/api/session/refresh"></form>`);
  const [answer] = await Promise.all([
    evil.waitForResponse('**/api/session/refresh'),
    evil.evaluate(() => {
      document.forms[0]?.submit();
    }),
  ]);
  expect(answer.status()).toBe(403);
  expect((await cookieOf(page.context()))?.value).toBe(before);
  await page.reload();
  await expect(page.locator('main').getByText(USER)).toBeVisible();
});

for (const target of ['//evil.example', '/\\evil.example', 'https://evil.example/', 'javascript:alert(1)', '/%09/evil.example']) {
  test(`a sign-in does not lead to ${target}`, async ({ newDevice, baseURL }) => {
    const page = await (await newDevice()).newPage();
    await page.goto('/login?returnTo=' + target);
    await page.getByRole('link', { name: 'Continue' }).click();
    await page.getByRole('link', { name: USER }).click();
    await page.waitForURL(`${baseURL}/**`);
    expect(new URL(page.url()).origin).toBe(baseURL);
  });
}

test('a callback that was not asked for signs nobody in', async ({ newDevice }) => {
  const context = await newDevice();
  const page = await context.newPage();
  await page.goto('/auth/callback?code=stolen&state=guessed');
  await expect(page.getByText('The sign-in did not succeed.')).toBeVisible();
  await page.goto('/auth/login');
  await page.goto('/auth/callback?code=stolen&state=guessed');
  await expect(page.getByText('The sign-in did not succeed.')).toBeVisible();
  expect(await cookieOf(context)).toBeUndefined();
});

test('what is rendered for a user is stored nowhere', async ({ signedIn: page }) => {
  for (const [path, headers] of [
    ['/account', {}],
    ['/devices', {}],
    ['/account', { RSC: '1' }],
    ['/devices?_rsc=x', { RSC: '1', 'Next-Url': '/account' }],
    ['/api/session', {}],
    ['/api/session/devices', {}],
  ] as const) {
    const response = await page.request.get(path, { headers, maxRetries: 2 });
    expect(response.status(), path).toBe(200);
    expect(response.headers()['cache-control'], path).toMatch(/no-store/);
    expect(response.headers()['cache-control'], path).toMatch(/private/);
  }
});

test('headers do not open a protected page, nor does a cookie that is made up', async ({ newDevice }) => {
  const { request } = await newDevice();
  const made = `${COOKIE}=sm1_${'A'.repeat(64)}`;
  const attempts: Record<string, string>[] = [
    { 'x-middleware-subrequest': 'middleware:middleware:middleware:middleware:middleware' },
    { 'x-middleware-subrequest': 'src/middleware:src/middleware:src/middleware:src/middleware:src/middleware' },
    { cookie: made },
    { cookie: made, RSC: '1' },
    { authorization: 'Bearer x', 'x-user': 'ada' },
  ];
  for (const headers of attempts) {
    const response = await request.get('/account', { headers, maxRedirects: 0, maxRetries: 2 });
    const text = await response.text();
    expect(text).not.toContain('Signed in by');
    expect(response.headers().location ?? text).toContain('/login');
  }
});

test('scripts that are injected do not run', async ({ signedIn: page }) => {
  const violations = page.evaluate(
    () =>
      new Promise((resolve) => {
        document.addEventListener('securitypolicyviolation', (event) => {
          resolve(event.violatedDirective);
        });
      }),
  );
  await page.evaluate(() => {
    const element = document.createElement('div');
    element.innerHTML = '<img src="x" onerror="window.__injected = true">';
    document.body.append(element);
  });
  expect(await violations).toContain('script-src');
  expect(await page.evaluate(() => '__injected' in window)).toBe(false);
});

test('a user agent is text and nothing else', async ({ newDevice }) => {
  const context = await newDevice('laptop', { userAgent: '<img src=x onerror=alert(1)> Firefox/1 Linux' });
  const page: Page = await context.newPage();
  await signIn(page, USER, '/devices');
  await expect(page.getByText('Firefox on Linux').first()).toBeVisible();
  await expect(page.locator('main img')).toHaveCount(0);
});
