/**
 * Sessions that are bound to a device, in a browser that can do it, with
 * proofs that live for seconds: every request then has the browser renew them.
 *
 * Chromium signs six times in nine minutes for a site, the registration
 * included, and counts for each context.
 */

import { expect, test as base, type Browser, type BrowserContext, type Page } from '@playwright/test';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { observe, signIn, USER } from './fixtures';
import { openFront, type Front } from './front';

const { APP_URL = '', BACKEND_URL = '', EXAMPLE_URL = '', ISSUER_URL = '' } = process.env;
const ADMIN_URL = APP_URL.replace('//app.', '//admin.');
const COOKIE = '__Host-session_token';
const PROOF = '__Host-session_proof';
const REGISTER = '/api/session/device/register';
const REFRESH = '/api/session/device/refresh';
/** How long a proof holds, and how long a session works without one after it has been bound. */
const LIFETIME = 5_000;
const UNPROVED = { status: 401, body: { code: 'device_proof_required' } };

const words = (variable: string | undefined): string[] => (variable ?? '').split(' ').filter(Boolean);

function run([program = '', ...first]: string[], ...args: string[]): string {
  return execFileSync(program, [...first, ...args], { encoding: 'utf8' }).trim();
}

const sql = (...statements: string[]): string =>
  run(words(process.env.EXAMPLE_PSQL), '-A', '-t', ...statements.flatMap((statement) => ['-c', statement]));

const test = base.extend<object, { front: Front; binding: Browser; plain: Browser }>({
  front: [
    // eslint-disable-next-line no-empty-pattern -- Playwright wants a pattern to read the names of fixtures from
    async ({}, provide) => {
      sql(`ALTER SYSTEM SET session_manager.device_proof_lifetime = '${LIFETIME}ms'`, 'SELECT pg_reload_conf()');
      const front = await openFront(APP_URL, { app: EXAMPLE_URL, admin: BACKEND_URL });
      await provide(front);
      await front.close();
    },
    { scope: 'worker' },
  ],
  binding: [
    async ({ front }, provide) => {
      const browser = await front.launch(true);
      await provide(browser);
      await browser.close();
    },
    { scope: 'worker' },
  ],
  plain: [
    async ({ front }, provide) => {
      const browser = await front.launch(false);
      await provide(browser);
      await browser.close();
    },
    { scope: 'worker' },
  ],
});

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** A browser of its own on the owner's machine: no other has its key. */
async function newContext(browser: Browser): Promise<BrowserContext> {
  const context = await browser.newContext({ baseURL: APP_URL, locale: 'en-GB', timezoneId: 'UTC' });
  await observe(context);
  return context;
}

async function cookie(context: BrowserContext, name: string): Promise<string | undefined> {
  return (await context.cookies()).find((entry) => entry.name === name)?.value;
}

/** Sign in at the identity provider, which is another site, and let the browser bind the session. */
async function signInBound(page: Page, front: Front): Promise<void> {
  const before = front.count('POST', REGISTER);
  await signIn(page, USER);
  await expect.poll(() => front.count('POST', REGISTER), { message: 'the browser registers' }).toBe(before + 1);
  await expect.poll(() => cookie(page.context(), PROOF)).toMatch(/^sp1_[\w-]{36}$/);
}

/** What a page of the application sends and gets. */
const ask = (page: Page, method = 'GET', path = '/api/session', body?: object) =>
  page.evaluate(
    async ([method, path, body]) => {
      const headers = { 'Content-Type': 'application/json' };
      const response = await fetch(path, { method, headers, body: body ?? null });
      return { status: response.status, body: (await response.json()) as Record<string, unknown> };
    },
    [method, path, body && JSON.stringify(body)] as const,
  );

/** An access token of the issuer's, by the code flow, without a browser. */
async function accessToken(): Promise<string> {
  const verifier = randomBytes(32).toString('base64url');
  const redirect = { client_id: 'example-web', redirect_uri: APP_URL + '/auth/callback' };
  const query = new URLSearchParams({
    ...redirect,
    response_type: 'code',
    scope: 'openid profile',
    state: 's',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    user: 'auth0|ada',
  });
  const { headers } = await fetch(`${ISSUER_URL}/authorize?${query}`, { redirect: 'manual' });
  const code = new URL(headers.get('location') ?? '').searchParams.get('code') ?? '';
  const body = new URLSearchParams({ ...redirect, grant_type: 'authorization_code', code, code_verifier: verifier });
  const answer = await fetch(`${ISSUER_URL}/token`, { method: 'POST', body });
  return ((await answer.json()) as { access_token: string }).access_token;
}

/**
 * The same by a page that sends nothing of its own accord: each request costs the browser a signature.
 * Returns the session's id, and a time before its first proof was issued.
 */
async function signInQuietly(page: Page, front: Front): Promise<{ id: unknown; since: number }> {
  await page.goto('/icon.svg');
  const before = front.count('POST', REGISTER);
  const credentials = { accessToken: await accessToken() };
  const since = Date.now();
  const { status, body } = await ask(page, 'POST', '/api/session', credentials);
  expect(status).toBe(201);
  await expect.poll(() => front.count('POST', REGISTER), { message: 'the browser registers' }).toBe(before + 1);
  await expect.poll(() => cookie(page.context(), PROOF)).toMatch(/^sp1_/);
  return { id: (body.session as { id: unknown }).id, since };
}

/** What Django answers to anybody who has the cookies. */
async function django(path: string, cookie: string): Promise<{ status: number }> {
  const headers = { cookie, 'x-forwarded-proto': 'https' };
  const { status } = await fetch(BACKEND_URL + path, { headers, redirect: 'manual' });
  return { status };
}

/** Ask as the owner, who notices nothing. */
async function askAsOwner(page: Page): Promise<void> {
  expect(await ask(page)).toMatchObject({ status: 200, body: { session: { device_bound: true } } });
}

/** Another browser, into which somebody has copied the owner's cookies. */
async function steal(browser: Browser, owner: BrowserContext, ...names: string[]): Promise<Page> {
  const context = await browser.newContext({ baseURL: APP_URL });
  const all = await owner.cookies(APP_URL);
  await context.addCookies(all.filter(({ name }) => names.includes(name)).map((entry) => ({ ...entry, expires: -1 })));
  const page = await context.newPage();
  await page.goto('/icon.svg');
  return page;
}

test('a stolen cookie is worth what is left of the proof', async ({ binding: browser, plain: elsewhere, front }) => {
  const owner = await newContext(browser);
  const page = await owner.newPage();
  const { since } = await signInQuietly(page, front);
  const token = (await cookie(owner, COOKIE)) ?? '';

  // Whoever has the cookie alone, and who has copied the proof too.
  const thieves = [await steal(elsewhere, owner, COOKIE), await steal(elsewhere, owner, COOKIE, PROOF)];
  for (const thief of thieves) {
    const { status } = await ask(thief);
    // On a busy machine the proof may not last as long as it takes to steal it.
    expect(Date.now() < since + LIFETIME ? [200] : [200, 401]).toContain(status);
  }
  await pause(LIFETIME + 1_500);
  await askAsOwner(page);

  for (const thief of thieves) {
    // From the cache, into which the owner's request has put it, and from the database.
    for (let n = 0; n < 3; n++) expect(await ask(thief)).toMatchObject(UNPROVED);
    expect(await ask(thief, 'POST', '/api/session/refresh')).toMatchObject(UNPROVED);
    expect(await ask(thief, 'GET', '/api/session/devices')).toMatchObject({ status: 401 });
    // The pages of Next.js.
    for (const path of ['/account', '/invoices']) {
      await thief.goto(path);
      await expect(thief.getByRole('link', { name: 'Sign in again' })).toBeVisible();
      expect(await thief.content(), path).not.toContain(USER);
    }
  }
  // Django itself.
  for (const path of ['/api/sessions/current/', '/api/invoices/']) {
    expect(await django(path, `${COOKIE}=${token}`), path).toMatchObject({ status: 401 });
  }
  expect(sql(`SELECT count(*) FROM session_get('${token}')`)).toBe('0');
  await askAsOwner(page);
  // What the thieves have tried has not signed the owner out.
  await page.goto('/account');
  await expect(page.getByRole('button', { name: 'Sign out', exact: true })).toBeVisible();
  await Promise.all([owner, ...thieves.map((thief) => thief.context())].map((context) => context.close()));
});

test('a link on another site leads to the page, though the browser proves nothing before', async ({ binding: browser, front }) => {
  const owner = await newContext(browser);
  const page = await owner.newPage();
  await signInBound(page, front);
  await pause(LIFETIME + 1_500);
  // The issuer is another site.
  await page.goto(ISSUER_URL + '/.well-known/jwks.json');
  const before = front.passed.length;
  await page.evaluate((url) => {
    location.assign(url);
  }, APP_URL + '/account');
  await expect(page.getByRole('button', { name: 'Sign out', exact: true })).toBeVisible();
  await expect(page.getByRole('heading', { name: 'Account', exact: true })).toBeVisible();
  const pages = front.passed.slice(before).filter(({ url }) => url.endsWith('/account'));
  expect(pages[0]?.headers.cookie).not.toContain(PROOF);
  expect(pages.at(-1)?.headers.cookie).toContain(PROOF);
  await owner.close();
});

test('the admin: bound by itself, and closed to a stolen cookie', async ({ binding: browser, front }) => {
  const owner = await newContext(browser);
  const page = await owner.newPage();
  await page.goto(ADMIN_URL + '/admin/');
  await page.getByLabel('Username').fill('admin');
  await page.getByLabel('Password').fill('admin');
  await page.getByRole('button', { name: 'Log in' }).click();
  await expect(page.getByRole('button', { name: 'Log out' })).toBeVisible();
  await expect.poll(() => front.count('POST', '/api/sessions/device/register/')).toBe(1);
  await expect.poll(() => cookie(owner, PROOF)).toMatch(/^sp1_/);

  const token = (await cookie(owner, COOKIE)) ?? '';
  const proof = (await cookie(owner, PROOF)) ?? '';
  expect(await django('/admin/', `${COOKIE}=${token}; ${PROOF}=${proof}`)).toMatchObject({ status: 200 });
  await pause(LIFETIME + 1_500);
  await page.goto(ADMIN_URL + '/admin/');
  await expect(page.getByRole('button', { name: 'Log out' })).toBeVisible();
  for (const sent of [`${COOKIE}=${token}`, `${COOKIE}=${token}; ${PROOF}=${proof}`]) {
    expect(await django('/admin/', sent)).toMatchObject({ status: 302 });
  }
  await page.reload();
  await expect(page.getByRole('button', { name: 'Log out' })).toBeVisible();
  await owner.close();
});

test('signing out takes the binding along', async ({ binding: browser, front }) => {
  const owner = await newContext(browser);
  const page = await owner.newPage();
  await signInBound(page, front);
  const [answer] = await Promise.all([
    page.waitForResponse((response) => response.request().method() === 'DELETE'),
    page.getByRole('button', { name: 'Sign out', exact: true }).click(),
  ]);
  const ended = (await answer.headersArray())
    .filter(({ name }) => name.toLowerCase() === 'set-cookie')
    .flatMap(({ value }) => value.split('\n'))
    .filter((value) => value.includes('Max-Age=0'))
    .map((value) => value.split('=')[0]);
  expect(ended).toEqual(expect.arrayContaining([COOKIE, PROOF]));
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  expect(await cookie(owner, COOKIE)).toBeUndefined();
  // A proof that the browser was renewing may come after that answer.  It is of no use, and soon expires.
  await expect.poll(() => cookie(owner, PROOF)).toBeUndefined();
  await signInBound(page, front);
  await askAsOwner(page);
  await owner.close();
});

test.describe('the owner goes on undisturbed, over five refreshes,', () => {
  let owner: BrowserContext;
  let page: Page;
  let id: unknown;
  let registrations: number;
  let refreshes: () => number;

  /**
   * Every request has the browser renew the proof, behind it or, when it has expired, before it.  One that
   * it sends before it has taken in the previous answer does not: then the next one must.
   */
  async function proved(work: () => Promise<unknown>): Promise<void> {
    const before = refreshes();
    await expect(async () => {
      await work();
      await expect.poll(refreshes, { timeout: 15_000 }).toBeGreaterThan(before);
    }).toPass({ timeout: 180_000 });
  }

  test.beforeEach(async ({ binding, front }) => {
    owner = await newContext(binding);
    page = await owner.newPage();
    ({ id } = await signInQuietly(page, front));
    registrations = front.passed.filter(({ url }) => url.endsWith(REGISTER)).length;
    const start = front.count('POST', REFRESH);
    refreshes = () => front.count('POST', REFRESH) - start;
  });

  test.afterEach(async ({ front }) => {
    const isTheSame = async () => {
      expect((await ask(page)).body.session).toMatchObject({ id });
    };
    while (refreshes() < 4) await proved(() => askAsOwner(page));
    // With the fifth: a browser renews no more than six times, and then the proof would expire.
    await (refreshes() < 5 ? proved(isTheSame) : isTheSame());
    // Nobody had to bind it again.
    expect(front.passed.filter(({ url }) => url.endsWith(REGISTER))).toHaveLength(registrations);
    await owner.close();
  });

  test('two tabs, and a proof that has expired', async () => {
    const other = await owner.newPage();
    await proved(() => other.goto('/icon.svg?other'));
    await pause(LIFETIME + 500);
    await proved(() => Promise.all([askAsOwner(page), askAsOwner(other)]));
  });

  test('a network that is away until the proof has expired @long', async ({ front }) => {
    await proved(() => askAsOwner(page));
    front.cut();
    await pause(LIFETIME + 500);
    expect(await ask(page).catch(() => 'failed')).toBe('failed');
    front.mend();
    await proved(() => askAsOwner(page));
  });

  test('a computer that sleeps until the proof has expired @long', async ({ binding, front }) => {
    await proved(() => askAsOwner(page));
    front.signal(binding, 'SIGSTOP');
    await pause(LIFETIME + 500);
    front.signal(binding, 'SIGCONT');
    await proved(() => askAsOwner(page));
  });

  test('a PostgreSQL and a Django that are restarted, and another key', async () => {
    await proved(() => askAsOwner(page));
    run(words(process.env.EXAMPLE_PG_CTL), '-m', 'fast', 'restart');
    process.kill(Number(process.env.EXAMPLE_BACKEND_PID), 'SIGHUP');
    // By then the proof has expired.
    await pause(LIFETIME);
    await proved(() => askAsOwner(page));
    const key = sql('SELECT session_key_generate()');
    sql(`SELECT session_key_add(${key})`, `SELECT session_key_activate(${key})`);
    await proved(() => askAsOwner(page));
  });

  test('a Redis that does not answer @long', async () => {
    const redis = Number(process.env.EXAMPLE_REDIS_PID);
    process.kill(redis, 'SIGSTOP');
    try {
      await proved(() => askAsOwner(page));
      await pause(LIFETIME);
      await proved(() => askAsOwner(page));
    } finally {
      process.kill(redis, 'SIGCONT');
    }
  });
});
