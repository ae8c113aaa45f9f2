/**
 * What the tests share: browsers on devices of their own, signing in by the
 * issuer's page, and a record of what goes over the wire.
 */

import { test as base, expect, type Browser, type BrowserContext, type Page } from '@playwright/test';
import { openWire, type Wire } from './wire';

export const COOKIE = 'session_token';

/** One of the issuer's users, who belongs to two organisations. */
export const USER = 'Ada Lovelace';

export const USER_AGENTS = {
  laptop: 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0',
  phone:
    'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1',
  tablet: 'Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36',
};

export type Device = keyof typeof USER_AGENTS;

/** An address for documentation, for each device another; the tests stand for the proxy in front. */
let host = process.pid % 200;
const nextAddress = () => `203.0.113.${(host++ % 250) + 1}`;

type Options = NonNullable<Parameters<Browser['newContext']>[0]>;

interface Fixtures {
  /** A browser with a cookie jar of its own. */
  newDevice: (device?: Device, options?: Options) => Promise<BrowserContext>;
  /** A signed-in page on a device of its own, at /account. */
  signedIn: Page;
  /** What goes over the wire, for devices that are given its `proxy`. */
  wire: Wire;
}

export const test = base.extend<Fixtures>({
  newDevice: async ({ browser, baseURL }, provide) => {
    const contexts: BrowserContext[] = [];
    await provide(async (device = 'laptop', options = {}) => {
      const context = await browser.newContext({
        baseURL: baseURL ?? '',
        userAgent: USER_AGENTS[device],
        locale: 'en-GB',
        timezoneId: 'UTC',
        extraHTTPHeaders: { 'x-forwarded-for': nextAddress() },
        ...options,
      });
      await observe(context);
      contexts.push(context);
      return context;
    });
    await Promise.all(contexts.map((context) => context.close()));
  },
  signedIn: async ({ newDevice }, provide) => {
    const page = await (await newDevice()).newPage();
    await signIn(page, USER);
    await provide(page);
  },
  // eslint-disable-next-line no-empty-pattern -- Playwright wants a pattern to read the names of fixtures from
  wire: async ({}, provide) => {
    const wire = await openWire();
    await provide(wire);
    wire.close();
  },
});

/** Let the pages of a browser tell what they are doing. */
export async function observe(context: BrowserContext): Promise<void> {
  await context.addInitScript(countRequests);
  await context.addInitScript(noteListening);
}

/** Go through the issuer's page; ends at `path`. */
export async function signIn(page: Page, user: string, path = '/account'): Promise<void> {
  await page.goto(path);
  await page.getByRole('link', { name: 'Continue' }).click();
  await page.getByRole('link', { name: user }).click();
  await page.waitForURL((url) => url.pathname === path);
  await expect(page.getByRole('button', { name: 'Sign out', exact: true })).toBeVisible();
  await listens(page);
}

/** Load a page of the application; ends when it hears what other tabs say. */
export async function visit(page: Page, path: string): Promise<void> {
  await page.goto(path);
  await listens(page);
}

/** Until a page that has been loaded is at work: what other tabs say before that is lost, and so is what is clicked. */
async function listens(page: Page): Promise<void> {
  await expect.poll(() => page.evaluate(() => window.isListening)).toBe(true);
}

declare global {
  interface Window {
    /** How many answers about the session the page waits for. */
    underWay?: number;
    /** The page hears what other tabs say. */
    isListening?: boolean;
  }
}

/** Runs in pages, before their own scripts. */
function countRequests(): void {
  const fetch = window.fetch.bind(window);
  window.underWay = 0;
  window.fetch = async (...args) => {
    // What the framework loads ahead of time may never end.
    const [input] = args;
    if (!(input instanceof Request ? input.url : input.toString()).includes('/api/session')) return fetch(...args);
    window.underWay = (window.underWay ?? 0) + 1;
    try {
      const response = await fetch(...args);
      // An answer has come when its body has.
      await response.clone().arrayBuffer();
      return response;
    } finally {
      window.underWay--;
    }
  };
}

/** Runs in pages, before their own scripts. */
function noteListening(): void {
  window.BroadcastChannel = class extends BroadcastChannel {
    constructor(name: string) {
      super(name);
      window.isListening = true;
    }
  };
}

/** Until no page of a browser waits for an answer about the session. */
export async function idle(context: BrowserContext): Promise<void> {
  for (const page of context.pages()) await expect.poll(() => page.evaluate(() => window.underWay)).toBe(0);
}

/** "METHOD /path" of the requests for the session from now on, of one page or of all in a browser. */
export function record(target: Page | BrowserContext): string[] {
  const log: string[] = [];
  target.on('request', (request) => {
    const { pathname, search } = new URL(request.url());
    if (pathname.startsWith('/api/session')) log.push(`${request.method()} ${pathname}${search}`);
  });
  return log;
}

/**
 * From here on no time passes in a browser's pages but what the test lets pass.  A page that is told too late
 * stops where it is, so that the next attempt is in time.
 */
export async function stopClock(page: Page): Promise<void> {
  await expect(async () => page.clock.pauseAt(await page.evaluate(() => Date.now() + 1_000))).toPass();
}

export async function cookieOf(context: BrowserContext) {
  return (await context.cookies()).find(({ name }) => name === COOKIE);
}

/** Let the page believe that it has come back into view. */
export async function focus(page: Page): Promise<void> {
  await page.evaluate(() => window.dispatchEvent(new Event('focus')));
}

export { expect };
