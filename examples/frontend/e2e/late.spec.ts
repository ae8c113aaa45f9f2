/** Answers that are late, or lost: what they say of an older cookie is not said of the newer one. */

import { type BrowserContext, type Page } from '@playwright/test';
import { execFileSync } from 'node:child_process';
import type { Wire } from './wire';
import { COOKIE, cookieOf, expect, idle, record, signIn, stopClock, test, USER, visit } from './fixtures';

const GET = 'GET /api/session';
const psql = process.env.EXAMPLE_PSQL?.split(' ') ?? [];

const sql = (statement: string): string =>
  execFileSync(psql[0] ?? '', [...psql.slice(1), '-A', '-t', '-c', statement], { encoding: 'utf8' }).trim();

/** For how long a token that a refresh has replaced works: a grace of 0 s holds at once, for those replaced before too. */
function setGrace(value: string): void {
  sql(`ALTER SYSTEM SET session_manager.rotation_grace = ${value}`);
  sql('SELECT pg_reload_conf()');
}

test.afterEach(() => {
  if (psql.length) setGrace('DEFAULT');
});

/** The test decides how long an answer takes. */
async function withoutTimeLimit(page: Page): Promise<void> {
  await page.addInitScript(() => {
    const set = window.setTimeout.bind(window);
    window.setTimeout = ((work: () => void, ms?: number) => (ms === 10_000 ? 0 : set(work, ms))) as typeof setTimeout;
  });
}

/** What the server answers to a token, whatever the browser's cookie is, and past the proxy. */
function ask(path: string, token: string): Promise<Response> {
  const url = new URL(path, process.env.EXAMPLE_URL ?? 'http://localhost:3000');
  return fetch(url, { headers: { cookie: `${COOKIE}=${token}` }, redirect: 'manual' });
}

async function signInAgain(page: Page): Promise<void> {
  await page.goto('/auth/login?returnTo=/devices');
  await page.getByRole('link', { name: USER }).click();
  await page.waitForURL('**/devices');
}

/** As a view of the backend would that has checked a second factor, and sets the cookie. */
async function stepUp(page: Page): Promise<void> {
  const cookie = await cookieOf(page.context());
  const token = sql(`SELECT session_token FROM session_elevate('${cookie?.value ?? ''}', '{"amr": ["pwd", "otp"]}')`);
  if (cookie) await page.context().addCookies([{ ...cookie, value: token }]);
}

async function switchTenant(page: Page): Promise<void> {
  const select = page.getByRole('combobox', { name: 'Organisation' });
  const next = await select.locator('option:not(:checked)').first().textContent();
  await select.selectOption({ label: next ?? '' });
  await expect(page.locator('section', { hasText: 'Subscription' }).getByText(next ?? '')).toBeVisible();
}

async function refresh(page: Page): Promise<void> {
  const before = await valueOf(page.context());
  await page.getByRole('button', { name: 'Extend' }).click();
  await expect.poll(() => valueOf(page.context())).not.toBe(before);
  // The old token works until the grace is over and the new one has been used.
  expect((await ask('/api/session', before)).status).toBe(200);
  expect((await ask('/api/session', await valueOf(page.context()))).status).toBe(200);
  setGrace("'0s'");
  await expect.poll(async () => (await ask('/api/session', before)).status).toBe(401);
}

async function signOut(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Sign out', exact: true }).click();
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
}

const valueOf = async (context: BrowserContext) => (await cookieOf(context))?.value ?? '';

/**
 * Another tab has asked with the old cookie, and is told that there is no such session when
 * `replace` has given the browser the new one.
 */
async function refuseLate(page: Page, other: Page, replace: (page: Page) => Promise<void>, wire: Wire) {
  const held = wire.hold('GET', '/api/session');
  await other.evaluate(() => window.dispatchEvent(new Event('online')));
  await held.arrived;
  await replace(page);
  const cookie = await valueOf(page.context());
  held.release();
  expect(await held.answered).toBe(401);
  return cookie;
}

test.describe('an answer about the old cookie that comes after', () => {
  test.skip(psql.length === 0, 'EXAMPLE_PSQL is not set');

  for (const [name, replace] of [
    ['another sign-in', signInAgain],
    ['a step-up', stepUp],
    ['a switch of organisations', switchTenant],
    ['a refresh', refresh],
  ] as const) {
    test(`${name} ends nothing`, async ({ newDevice, wire }) => {
      const context = await newDevice('laptop', { proxy: wire.proxy });
      const page = await context.newPage();
      await signIn(page, USER);
      const other = await context.newPage();
      await withoutTimeLimit(other);
      await visit(other, '/account');
      const looks = record(other);

      const cookie = await refuseLate(page, other, replace, wire);
      // (a switch of organisations is news: the tab knows that the answer is about another session)
      if (replace !== switchTenant) await expect.poll(() => looks).toEqual([GET, GET]);
      await idle(context);
      expect(await valueOf(context)).toBe(cookie);
      for (const tab of [page, other]) {
        await expect(tab.getByRole('button', { name: 'Sign out', exact: true })).toBeVisible();
        await expect(tab.getByRole('heading', { name: 'Sign in' })).toHaveCount(0);
      }
      await other.reload();
      await expect(other.locator('main').getByText(USER)).toBeVisible();
    });
  }

  test('a sign-out brings nothing back', async ({ newDevice, wire }) => {
    const context = await newDevice('laptop', { proxy: wire.proxy });
    const page = await context.newPage();
    await signIn(page, USER);
    const other = await context.newPage();
    await withoutTimeLimit(other);
    await visit(other, '/account');

    expect(await refuseLate(page, other, signOut, wire)).toBe('');
    await idle(context);
    expect(await cookieOf(context)).toBeUndefined();
    for (const tab of [page, other]) await expect(tab.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  });
});

test('a phone in a tunnel stays signed in: the answer to its refresh was lost, and the network for longer than the grace', async ({
  newDevice,
  wire,
}) => {
  test.skip(psql.length === 0, 'EXAMPLE_PSQL is not set');
  const context = await newDevice('phone', { proxy: wire.proxy });
  const page = await context.newPage();
  await page.clock.install();
  await signIn(page, USER);
  // Attempts are repeated when the test lets time pass.
  await stopClock(page);
  const cookie = await valueOf(context);

  const lost = wire.lose('POST', '/api/session/refresh');
  await page.getByRole('button', { name: 'Extend' }).click();
  expect(await lost.answered).toBe(200);
  await expect(page.getByText('You are offline.')).toBeVisible();
  // Longer than the grace.
  setGrace("'0s'");
  await expect.poll(() => sql('SHOW session_manager.rotation_grace')).toMatch(/^0/);
  wire.mend();

  // With the cookie that the browser still has: a look, and a page that the server renders.
  const looked = page.waitForResponse((response) => response.url().endsWith('/api/session'));
  await page.evaluate(() => window.dispatchEvent(new Event('online')));
  expect((await looked).status()).toBe(200);
  await expect(page.getByText('You are offline.')).toHaveCount(0);
  await expect(page.locator('main').getByText(USER)).toBeVisible();
  const rendered = await ask('/account', cookie);
  expect(rendered.status).toBe(200);
  expect(await rendered.text()).toContain(USER);
  expect(await valueOf(context)).toBe(cookie);

  // The next attempt gives it a new one, which is good from then on.
  await page.clock.runFor(5_000);
  await expect.poll(() => valueOf(context)).not.toBe(cookie);
  await idle(context);
  expect((await ask('/api/session', await valueOf(context))).status).toBe(200);
  await page.clock.resume();
  await page.reload();
  await expect(page.locator('main').getByText(USER)).toBeVisible();
});
