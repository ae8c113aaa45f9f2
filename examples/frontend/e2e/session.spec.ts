import { type BrowserContext, type Page } from '@playwright/test';
import { execFileSync } from 'node:child_process';
import { expect, cookieOf, focus, idle, record, signIn, stopClock, test, USER, visit } from './fixtures';

const ENDED_ELSEWHERE = 'You were signed out on another device.';
const EXPIRED = 'Your session has expired.';
const GET = 'GET /api/session';
const REFRESH = 'POST /api/session/refresh';

test('sign-in ends where it began, and shows who it is', async ({ newDevice }) => {
  const page = await (await newDevice()).newPage();
  await signIn(page, USER, '/devices');
  await page.getByRole('link', { name: 'Account' }).click();
  await expect(page.getByRole('heading', { name: 'Account' })).toBeVisible();
  await expect(page.locator('main').getByText(USER)).toBeVisible();
  await expect(page.getByTestId('subscription')).toHaveText(/Active|Trialing|Past due|Free|None/i);
  await expect(page.getByTestId('time-left')).toHaveText(/^(\d+:)?\d{1,2}:\d{2}$/);
});

test('a page that was rendered with the session asks for it no more', async ({ signedIn: page }) => {
  const log = record(page);
  await page.reload();
  await page.waitForTimeout(1_000);
  expect(log).toEqual([]);
});

test('the countdown counts', async ({ signedIn: page }) => {
  const left = page.getByTestId('time-left');
  const first = await left.textContent();
  await expect(left).not.toHaveText(first ?? '');
});

test('signing out in one tab clears the other at once, without a request of its own', async ({ signedIn: page }) => {
  const other = await page.context().newPage();
  await visit(other, '/devices');
  await expect(other.getByText('This device')).toBeVisible();
  const log = record(other);

  await page.getByRole('button', { name: 'Sign out', exact: true }).click();
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  await expect(other.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  await expect(other.getByText('This device')).toHaveCount(0);
  expect(log).toEqual([]);
  expect(await cookieOf(page.context())).toBeUndefined();

  await page.goto('/account');
  await expect(page).toHaveURL(/\/login/);
});

test('the session is refreshed at three quarters of its life', async ({ newDevice }) => {
  const page = await (await newDevice()).newPage();
  await page.clock.install();
  await signIn(page, USER);
  const log = record(page);
  const life = await lifetime(page);
  const before = await cookieOf(page.context());
  await stopClock(page);

  await advance(page, life * 0.66);
  expect(log).toEqual([]);
  await page.waitForTimeout(500);
  expect(log).toEqual([]);
  const refreshed = refreshOf(page.context());
  await advance(page, life * 0.17, () => log.length > 0);
  await refreshed;
  await expect.poll(async () => (await cookieOf(page.context()))?.value).not.toBe(before?.value);
  await advance(page, life * 0.5);
  expect(log).toEqual([REFRESH]);
  await expect(page.getByText('until you are signed out')).toBeVisible();
});

test('three tabs send exactly one refresh', async ({ newDevice }) => {
  const context = await newDevice();
  const first = await context.newPage();
  await first.clock.install();
  await signIn(first, USER);
  const tabs = [first, await context.newPage(), await context.newPage()];
  for (const tab of tabs.slice(1)) await visit(tab, '/account');
  await stopClock(first);
  const life = await lifetime(first);
  const end = await shownEnd(first);
  const log = record(context);
  const refreshed = refreshOf(context);

  await advance(first, life * 0.84, () => log.length > 0);
  await refreshed;
  // What one has been told the others know, before they would do it themselves.
  for (const tab of tabs) await expect.poll(() => shownEnd(tab)).not.toBe(end);
  await advance(first, life * 0.3);
  expect(log).toEqual([REFRESH]);
  for (const tab of tabs) await expect(tab.getByText('until you are signed out')).toBeVisible();
});

test('three tabs that are told to refresh at the same moment send exactly one request', async ({ newDevice }) => {
  const context = await newDevice();
  const page = await context.newPage();
  await page.clock.install();
  await signIn(page, USER);
  const tabs = [page, await context.newPage(), await context.newPage()];
  for (const tab of tabs.slice(1)) await visit(tab, '/account');
  await stopClock(page);
  const end = await shownEnd(page);
  const log = record(context);
  const refreshed = refreshOf(context);
  // All of them are told before there is an answer.
  let release: () => void = () => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  await context.route('**/api/session/refresh', async (route) => {
    await released;
    await route.continue();
  });
  for (const tab of tabs) {
    await tab.getByRole('button', { name: 'Extend' }).evaluate((button: HTMLElement) => {
      setTimeout(() => {
        button.click();
      }, 500);
    });
  }
  await page.clock.runFor(500);
  release();
  await refreshed;
  for (const tab of tabs) await expect.poll(() => shownEnd(tab)).not.toBe(end);
  // Each has its turn, and finds that there is nothing left to do.
  await expect(async () => {
    await advance(page, 3_000);
    expect(await turns(page)).toBe(0);
  }).toPass();
  expect(log).toEqual([REFRESH]);
});

test('a sign-out does not wait for the retries of a refresh in another tab', async ({ signedIn: page }) => {
  const other = await page.context().newPage();
  await visit(other, '/account');
  const log = record(page.context());
  await other.route('**/api/session/refresh', (route) =>
    route.fulfill({ status: 503, headers: { 'Retry-After': '20' }, json: { detail: 'later', code: 'unavailable' } }),
  );
  await other.getByRole('button', { name: 'Extend' }).click();
  await expect(other.getByText('The server cannot answer right now.')).toBeVisible();

  await page.getByRole('button', { name: 'Sign out', exact: true }).click();
  // (in less than the 20 s)
  for (const tab of [page, other]) await expect(tab.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  expect(log).toEqual([REFRESH, 'DELETE /api/session']);
});

test('a sign-out gets past a tab that was suspended with the lock in its hands', async ({ newDevice }) => {
  const context = await newDevice();
  const page = await context.newPage();
  await page.clock.install();
  await signIn(page, USER);
  const suspended = await context.newPage();
  await suspended.goto('/login');
  await suspended.evaluate(() => {
    void navigator.locks.request('session_manager /api/session', () => new Promise(() => undefined));
  });
  const log = record(page);
  await stopClock(page);

  await page.getByRole('button', { name: 'Sign out', exact: true }).click();
  await advance(page, 8_000);
  expect(log).toEqual([]);
  await advance(page, 20_000, () => log.length > 0);
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  expect(log).toEqual(['DELETE /api/session']);
});

test('a revocation from another device holds at the next request', async ({ signedIn: page, newDevice }) => {
  const other = await (await newDevice('phone')).newPage();
  await signIn(other, USER, '/devices');
  const { id } = await currentSession(page);
  await other.locator(`[data-session="${id}"]`).getByRole('button', { name: /^Revoke/ }).click();
  await expect(other.locator(`[data-session="${id}"]`)).toHaveCount(0);

  await page.getByRole('link', { name: 'Devices' }).click();
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  await expect(page.getByText(ENDED_ELSEWHERE)).toBeVisible();
});

test('without the network the data stays until it expires, and the page says why', async ({ newDevice }) => {
  const page = await (await newDevice()).newPage();
  await page.clock.install();
  await signIn(page, USER);
  const life = await lifetime(page);
  await page.context().setOffline(true);
  await page.clock.runFor(10_000);
  await focus(page);
  await expect(page.getByText('You are offline.')).toBeVisible();
  await expect(page.locator('main').getByText(USER)).toBeVisible();

  await advance(page, life * 0.9);
  await expect(page.locator('main').getByText(USER)).toBeVisible();
  await advance(page, life * 0.2);
  await expect(page.getByText(EXPIRED)).toBeVisible();
  await expect(page.getByText(USER)).toHaveCount(0);

  // The session is still alive at the server, whose clock counts.
  await page.context().setOffline(false);
  await expect(page.locator('main').getByText(USER)).toBeVisible();
});

test('503 keeps the session, and the page says why', async ({ newDevice }) => {
  const page = await (await newDevice()).newPage();
  await page.clock.install();
  await signIn(page, USER);
  await page.route('**/api/session', (route) =>
    route.fulfill({ status: 503, headers: { 'Retry-After': '1' }, json: { detail: 'later', code: 'unavailable' } }),
  );
  await stopClock(page);
  await advance(page, 10_000);
  await focus(page);
  await expect(page.getByText('The server cannot answer right now.')).toBeVisible();
  await expect(page.locator('main').getByText(USER)).toBeVisible();
  expect(await cookieOf(page.context())).toBeDefined();

  await page.unroute('**/api/session');
  await advance(page, 60_000);
  await expect(page.getByText('The server cannot answer right now.')).toHaveCount(0);
});

test('without its database the server says 503, and the session outlives that', async ({ signedIn: page }) => {
  const psql = process.env.EXAMPLE_PSQL?.split(' ') ?? [];
  test.skip(psql.length === 0, 'EXAMPLE_PSQL is not set');
  const sql = (...statements: string[]) =>
    execFileSync(psql[0] ?? '', [...psql.slice(1), ...statements.flatMap((statement) => ['-c', statement])]);
  const before = await cookieOf(page.context());
  const answers: number[] = [];
  page.on('response', (response) => {
    if (response.url().endsWith('/refresh')) answers.push(response.status());
  });
  try {
    sql('ALTER ROLE webapp NOLOGIN', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'webapp'");
    await page.getByRole('button', { name: 'Extend' }).click();
    await expect(page.getByText('The server cannot answer right now.')).toBeVisible();
    await expect(page.locator('main').getByText(USER)).toBeVisible();
    expect((await cookieOf(page.context()))?.value).toBe(before?.value);
  } finally {
    sql('ALTER ROLE webapp LOGIN');
  }
  await expect(page.getByText('The server cannot answer right now.')).toHaveCount(0, { timeout: 60_000 });
  expect(answers[0]).toBe(503);
  expect(answers.at(-1)).toBe(200);
  expect((await cookieOf(page.context()))?.value).not.toBe(before?.value);
});

test('after a deep sleep the session is looked at at once', async ({ newDevice }) => {
  const page = await (await newDevice()).newPage();
  await page.clock.install();
  await signIn(page, USER);
  const life = await lifetime(page);
  const { id } = await currentSession(page);
  const other = await (await newDevice('phone')).newPage();
  await signIn(other, USER, '/devices');
  await other.getByRole('button', { name: 'Sign out all others' }).click();
  await expect(other.locator(`[data-session="${id}"]`)).toHaveCount(0);

  const log = record(page);
  await page.clock.fastForward(life / 2);
  await expect(page.getByText(ENDED_ELSEWHERE)).toBeVisible();
  expect(log).toEqual([GET, GET]);
});

test('signing out everywhere ends the other device too', async ({ signedIn: page, newDevice }) => {
  const other = await (await newDevice('tablet')).newPage();
  await signIn(other, USER, '/devices');
  await other.getByRole('button', { name: 'Sign out everywhere' }).click();
  await expect(other.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  await page.reload();
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  await expect(page.getByText(USER)).toHaveCount(0);
});

test('another organisation is another session, for all tabs', async ({ signedIn: page }) => {
  const other = await page.context().newPage();
  await visit(other, '/account');
  const before = await cookieOf(page.context());
  const select = page.getByRole('combobox', { name: 'Organisation' });
  const next = await select.locator('option:not(:checked)').first().textContent();
  await select.selectOption({ label: next ?? '' });
  await expect(page.locator('section', { hasText: 'Subscription' }).getByText(next ?? '')).toBeVisible();
  await expect(other.locator('section', { hasText: 'Subscription' }).getByText(next ?? '')).toBeVisible();
  expect((await cookieOf(page.context()))?.value).not.toBe(before?.value);
});

test('an invoice is of one organisation', async ({ signedIn: page }) => {
  const customer = `Customer ${Date.now()}`;
  await visit(page, '/invoices');
  await page.getByLabel('Customer').fill(customer);
  await page.getByLabel('Amount in euro').fill('12.50');
  await page.getByRole('button', { name: 'Create' }).click();
  await expect(page.getByRole('row', { name: customer })).toContainText('€12.50');

  const select = page.getByRole('combobox', { name: 'Organisation' });
  const own = await select.locator('option:checked').textContent();
  await select.selectOption({ label: (await select.locator('option:not(:checked)').first().textContent()) ?? '' });
  await expect(page.getByRole('row', { name: customer })).toHaveCount(0);
  await select.selectOption({ label: own ?? '' });
  await expect(page.getByRole('row', { name: customer })).toBeVisible();
});

test('what the server has rendered follows update(), in all tabs', async ({ signedIn: page }) => {
  const mark = `Order ${Date.now()}`;
  await visit(page, '/invoices');
  const shown = (tab: Page) => tab.getByRole('row', { name: mark }).locator('td:last-child').allTextContents();
  let before: string[] = [];
  let largestFirst: string[] = [];
  // Those of a day come in any order, which may be this one.
  for (let amount = 70_001; before.join() === largestFirst.join(); amount++) {
    await page.getByLabel('Customer').fill(mark);
    await page.getByLabel('Amount in euro').fill(String(amount));
    await page.getByRole('button', { name: 'Create' }).click();
    await expect(page.getByRole('row', { name: mark })).toHaveCount(before.length + 1);
    before = await shown(page);
    largestFirst = [...before].sort().reverse();
  }
  const other = await page.context().newPage();
  await visit(other, '/invoices');

  await page.getByRole('button', { name: 'Largest first' }).click();
  for (const tab of [page, other]) await expect.poll(() => shown(tab)).toEqual(largestFirst);
  await other.getByRole('button', { name: 'Largest first' }).click();
  for (const tab of [page, other]) await expect.poll(() => shown(tab)).toEqual(before);
});

test('what the server has rendered follows a switch of organisations in another tab', async ({ signedIn: page }) => {
  const customer = `Tab ${Date.now()}`;
  await visit(page, '/invoices');
  await page.getByLabel('Customer').fill(customer);
  await page.getByLabel('Amount in euro').fill('1');
  await page.getByRole('button', { name: 'Create' }).click();
  await expect(page.getByRole('row', { name: customer })).toBeVisible();

  const other = await page.context().newPage();
  await visit(other, '/account');
  const select = other.getByRole('combobox', { name: 'Organisation' });
  await select.selectOption({ label: (await select.locator('option:not(:checked)').first().textContent()) ?? '' });
  await expect(page.getByRole('row', { name: customer })).toHaveCount(0);
});

test('the history tells of the sign-in', async ({ signedIn: page }) => {
  await page.goto('/history');
  const first = page.getByRole('listitem').filter({ hasText: 'This session' }).first();
  await expect(first).toContainText('Signed in');
  await expect(first).toContainText('Firefox on Linux');
  await expect(first).toContainText(/203\.0\.113\.\d+/);
});

/**
 * Let the clock of a browser's pages run, in steps that are shorter than the time limit of
 * a request: what is under way goes on in real time, and is waited for after each step.
 */
async function advance(page: Page, ms: number, until = () => false): Promise<void> {
  for (let left = ms; left > 0 && !until(); left -= 8_000) {
    await page.clock.runFor(Math.min(left, 8_000));
    await idle(page.context());
  }
}

/** Until the next refresh has been answered: what follows must not overtake it. */
async function refreshOf(context: BrowserContext): Promise<void> {
  await context.waitForEvent('requestfinished', (request) => request.url().endsWith('/api/session/refresh'));
}

/** How many tabs of a browser have their turn, or wait for it. */
async function turns(page: Page): Promise<number> {
  return page.evaluate(async () => {
    const { held = [], pending = [] } = await navigator.locks.query();
    return held.length + pending.length;
  });
}

/** When the session ends, by what the page has been told. */
async function shownEnd(page: Page): Promise<string | null> {
  return page.locator('dt:has-text("Ends at") + dd time').getAttribute('datetime');
}

/** Milliseconds that a session lives unless it is refreshed. */
async function lifetime(page: Page): Promise<number> {
  const { expires_at, server_time } = await currentSession(page);
  return Date.parse(expires_at) - Date.parse(server_time);
}

async function currentSession(page: Page) {
  // A kept connection may be closed by the server, as it has been idle, while the request is on its way.
  const response = await page.request.get('/api/session', { maxRetries: 2 });
  const { session, server_time } = (await response.json()) as {
    session: { id: string; expires_at: string };
    server_time: string;
  };
  return { ...session, server_time };
}
