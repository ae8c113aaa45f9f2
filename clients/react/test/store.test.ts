import { delay, http, HttpResponse } from 'msw';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { SessionActions, SessionData } from '../src/index.js';
import { createSessionStore, type SessionStore as Store, type StoreOptions } from '../src/store.js';
import { Backend, server } from './support/backend.js';
import { FakeChannel, setLocks, setOnline, setVisible } from './support/browser.js';
import { deepSleep, pass, passUntil, settle, withoutChance } from './support/time.js';

const GET = 'GET /api/session';
const REFRESH = 'POST /api/session/refresh';
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

type SessionStore = Store & SessionActions;

let backend: Backend;

beforeEach(() => {
  withoutChance();
  backend = new Backend();
  backend.install();
});

/** A tab: a store that has been started. */
function open(initial?: SessionData | null, options: Partial<StoreOptions> = {}): SessionStore & { close(): void } {
  const store = createSessionStore(
    { basePath: '/api/session', refetchInterval: 0, refetchOnWindowFocus: true, refreshAt: 0.75, ...options },
    initial,
  );
  const close = store.start();
  onTestFinished(close);
  return { ...store, ...store.actions, close };
}

const statusOf = (store: SessionStore) => store.getState().status;

describe('the first load', () => {
  it('asks when the page brought nothing', async () => {
    backend.signIn();
    const store = open();
    expect(store.getState()).toMatchObject({ status: 'loading', data: null, error: null });
    await settle();
    expect(store.getState()).toMatchObject({ status: 'authenticated', isRefetching: false, isStale: false });
    expect(store.getState().data?.user.id).toBe('auth0|ada');
    expect(backend.log).toEqual([GET]);
  });

  it('asks nothing when the page brought the session, or none', async () => {
    const store = open(backend.signIn());
    const none = open(null);
    await settle();
    expect(statusOf(store)).toBe('authenticated');
    expect(statusOf(none)).toBe('unauthenticated');
    expect(backend.log).toEqual([]);
  });

  it('without a session is no error', async () => {
    const store = open();
    await settle();
    expect(store.getState()).toMatchObject({ status: 'unauthenticated', data: null, error: null });
  });

  it('is no sign-out while the server cannot answer', async () => {
    backend.signIn();
    backend.outage = { status: 503 };
    const store = open();
    await pass(9_000);
    expect(store.getState()).toMatchObject({ status: 'loading', error: { kind: 'server', status: 503 } });
    backend.outage = undefined;
    await pass(31_000);
    expect(store.getState()).toMatchObject({ status: 'authenticated', error: null });
  });
});

describe('refresh', () => {
  it('comes at 75 % of the remaining life', async () => {
    const store = open(backend.signIn());
    await pass(45 * MINUTE - 1_000, MINUTE);
    expect(backend.times(REFRESH)).toBe(0);
    await pass(2_000);
    expect(backend.log).toEqual([REFRESH]);
    expect(Date.parse(store.getState().data!.session.expires_at)).toBeGreaterThan(Date.now() + 59 * MINUTE);
  });

  it.each([
    [0, 0.675],
    [0.9999, 0.825],
  ])('is spread by ±10 % (chance %d)', async (chance, part) => {
    withoutChance(chance);
    open(backend.signIn());
    await pass(part * HOUR - 2_000, MINUTE);
    expect(backend.times(REFRESH)).toBe(0);
    await pass(4_000);
    expect(backend.times(REFRESH)).toBe(1);
  });

  it('is not put off by looks at the session', async () => {
    open(backend.signIn(), { refetchInterval: 60 });
    await pass(46 * MINUTE, MINUTE);
    expect(backend.times(GET)).toBeGreaterThan(40);
    expect(backend.times(REFRESH)).toBe(1);
  });

  it('counts by the server clock', async () => {
    backend.skew = -3 * HOUR;
    const store = open(backend.signIn());
    await pass(44 * MINUTE, MINUTE);
    expect(statusOf(store)).toBe('authenticated');
    expect(backend.times(REFRESH)).toBe(0);
    await pass(2 * MINUTE, MINUTE);
    expect(backend.times(REFRESH)).toBe(1);
  });

  it('is left out when the session cannot live longer', async () => {
    const data = backend.signIn();
    data.session.absolute_expires_at = data.session.expires_at;
    const store = open(data);
    await pass(59 * MINUTE, MINUTE);
    expect(backend.log).toEqual([]);
    backend.signOut();
    await pass(2 * MINUTE, 10_000);
    expect(store.getState()).toMatchObject({ status: 'unauthenticated', error: { kind: 'expired' } });
  });

  it('is off with refreshAt 0', async () => {
    open(backend.signIn(), { refreshAt: 0 });
    await pass(59 * MINUTE, MINUTE);
    expect(backend.log).toEqual([]);
  });

  it('does not repeat itself when the server does not extend the session', async () => {
    const data = backend.signIn();
    backend.ttl = HOUR;
    const end = data.session.expires_at;
    open(data);
    await pass(44 * MINUTE, MINUTE);
    Object.defineProperty(backend.session!, 'expires_at', { get: () => end, set: () => undefined, enumerable: true });
    await pass(10 * MINUTE, MINUTE);
    expect(backend.times(REFRESH)).toBe(1);
  });

  it('of a life beyond 2^31 ms does not come at once', async () => {
    backend.ttl = 60 * 24 * HOUR;
    const data = backend.signIn();
    data.session.absolute_expires_at = '2030-01-01T00:00:00Z';
    setVisible(false);
    open(data);
    await pass(HOUR, 10 * MINUTE);
    expect(backend.log).toEqual([]);
  });

  it('keeps trying after a fault, and keeps the session', async () => {
    const store = open(backend.signIn());
    backend.outage = { status: 503 };
    await pass(46 * MINUTE, MINUTE / 2);
    expect(store.getState()).toMatchObject({ status: 'authenticated', isStale: true, error: { kind: 'server' } });
    backend.outage = undefined;
    await pass(2 * MINUTE);
    expect(store.getState()).toMatchObject({ status: 'authenticated', isStale: false, error: null });
    expect(Date.parse(store.getState().data!.session.expires_at)).toBeGreaterThan(Date.now() + 50 * MINUTE);
  });

  it('puts off the next attempt as Retry-After says', async () => {
    open(backend.signIn());
    await pass(44 * MINUTE, MINUTE);
    backend.outage = { status: 503, retryAfter: '300' };
    await pass(5 * MINUTE, 10_000);
    expect(backend.times(REFRESH)).toBe(1);
    await pass(2 * MINUTE, 10_000);
    expect(backend.times(REFRESH)).toBe(2);
  });

  it.each([0, 60])('does not wait for a look that the server has put off (polling: %d s)', async (refetchInterval) => {
    open(backend.signIn(), { refetchInterval });
    await pass(40 * MINUTE, MINUTE);
    backend.faults = [{ status: 503, retryAfter: '3000' }];
    window.dispatchEvent(new Event('online'));
    await pass(6 * MINUTE, 10_000);
    expect(backend.times(REFRESH)).toBe(1);
  });

  it('that is refused ends the session', async () => {
    const store = open(backend.signIn());
    backend.signOut();
    await store.refresh();
    await settle();
    expect(store.getState()).toMatchObject({ status: 'unauthenticated', error: { kind: 'revoked' } });
    expect(backend.log).toEqual([REFRESH, GET]);
  });

  it('asked for twice is sent once', async () => {
    const store = open(backend.signIn());
    backend.latency = 100;
    const both = Promise.all([store.refresh(), store.refresh()]);
    await pass(500);
    await both;
    expect(backend.log).toEqual([REFRESH]);
  });
});

describe('expiry', () => {
  it('drops the data when the life is over, and says so', async () => {
    const store = open(backend.signIn(), { refreshAt: 0 });
    await pass(HOUR - 1_000, MINUTE);
    expect(statusOf(store)).toBe('authenticated');
    backend.signOut();
    await pass(2_000);
    expect(store.getState()).toMatchObject({ status: 'unauthenticated', data: null, error: { kind: 'expired' } });
  });

  it('is taken back when the server knows better', async () => {
    const store = open(backend.signIn(), { refreshAt: 0 });
    backend.session!.expires_at = new Date(Date.now() + 2 * HOUR).toISOString();
    await pass(HOUR + 1_000, MINUTE);
    expect(store.getState()).toMatchObject({ status: 'authenticated', error: null });
  });

  it('comes while offline too, and stays the reason', async () => {
    const store = open(backend.signIn(), { refetchInterval: 30 });
    setOnline(false);
    backend.outage = 'network';
    await pass(MINUTE, 10_000);
    expect(store.getState()).toMatchObject({ status: 'authenticated', isStale: true, error: { kind: 'network' } });
    await pass(58 * MINUTE, MINUTE);
    expect(statusOf(store)).toBe('authenticated');
    await pass(2 * MINUTE, 10_000);
    expect(store.getState()).toMatchObject({ status: 'unauthenticated', data: null, error: { kind: 'expired' } });
  });
});

describe('a session ended elsewhere', () => {
  it('ends here at the next look', async () => {
    const store = open(backend.signIn());
    backend.signOut();
    await pass(6_000);
    setVisible(false);
    setVisible(true);
    await settle();
    expect(store.getState()).toMatchObject({ status: 'unauthenticated', data: null, error: { kind: 'revoked' } });
    expect(backend.log).toEqual([GET, GET]);
  });

  it('ends here at the next update, which fails with the reason', async () => {
    const store = open(backend.signIn());
    backend.signOut();
    await expect(store.update({ theme: 'dark' })).rejects.toMatchObject({ kind: 'revoked' });
    expect(statusOf(store)).toBe('unauthenticated');
    expect(backend.log).toEqual(['PATCH /api/session', GET]);
  });
});

describe('why a session was ended', () => {
  const refusal = { code: 'session_revoked', reason: 'password_changed' };

  it.each([
    ['a look', async (store: SessionStore) => { store.hydrate(null); await settle(); }],
    ['a refresh', (store: SessionStore) => store.refresh()],
    ['an update', (store: SessionStore) => store.update({}).catch(() => undefined)],
  ])('is what %s finds, in all tabs', async (_, find) => {
    const data = backend.signIn();
    const tabs = [open(data), open(data)];
    backend.refusal = refusal;
    backend.signOut();
    void find(tabs[0]!);
    await pass(500);
    for (const tab of tabs) {
      expect(tab.getState()).toMatchObject({
        status: 'unauthenticated',
        error: { kind: 'revoked', reason: 'password_changed', status: 401 },
      });
    }
  });

  it('is left out when the backend does not tell', async () => {
    const store = open(backend.signIn());
    backend.signOut();
    await expect(store.update({})).rejects.toMatchObject({ kind: 'revoked', reason: undefined });
  });
});

describe('a refusal that was about an older cookie', () => {
  /** The next request gets the refusal that another cookie would get, late. */
  function refuseOnce(method: 'get' | 'post' | 'patch' | 'delete', path = '/api/session', late = 0): void {
    server.use(
      http[method](
        path,
        async ({ request }) => {
          backend.log.push(`${request.method} ${path} 401`);
          if (late) await delay(late);
          return HttpResponse.json({ detail: 'no session', code: 'session_expired' }, { status: 401 });
        },
        { once: true },
      ),
    );
  }

  /** Every state that the store has been in since. */
  function watch(store: SessionStore): Set<string> {
    const seen = new Set<string>();
    store.subscribe(() => seen.add(statusOf(store)));
    return seen;
  }

  const lives = { status: 'authenticated', error: null, isStale: false };

  it('ends nothing when a look gets it', async () => {
    const store = open(backend.signIn());
    const seen = watch(store);
    refuseOnce('get', '/api/session', 300);
    store.hydrate(null);
    await pass(1_000);
    expect(backend.log).toEqual(['GET /api/session 401', GET]);
    expect(store.getState()).toMatchObject(lives);
    expect([...seen]).toEqual(['authenticated']);
  });

  it('ends nothing when the route handlers saw no cookie', async () => {
    const store = open(backend.signIn());
    server.use(http.get('/api/session', () => HttpResponse.json({ session: null }), { once: true }));
    store.hydrate(null);
    await pass(500);
    expect(backend.log).toEqual([GET]);
    expect(store.getState()).toMatchObject(lives);
  });

  it('ends nothing when a refresh gets it, which is made up for', async () => {
    const store = open(backend.signIn());
    const seen = watch(store);
    refuseOnce('post', '/api/session/refresh');
    await store.refresh();
    expect(backend.log).toEqual(['POST /api/session/refresh 401', GET]);
    expect(store.getState()).toMatchObject(lives);
    await pass(35_000, 500);
    expect(backend.log.slice(2)).toEqual([REFRESH]);
    expect([...seen]).toEqual(['authenticated']);
  });

  it.each([
    ['update', 'patch', '/api/session', (store: SessionStore) => store.update({ plan: 'team' }), 'PATCH /api/session'],
    ['switchTenant', 'post', '/api/session/tenant', (store: SessionStore) => store.switchTenant('b'), 'POST /api/session/tenant'],
    ['signOut', 'delete', '/api/session', (store: SessionStore) => store.signOut(), 'DELETE /api/session'],
  ] as const)('does not keep %s from being done', async (_, method, path, act, line) => {
    const store = open(backend.signIn());
    refuseOnce(method, path);
    await act(store);
    expect(backend.log).toEqual([`${line} 401`, GET, line]);
    expect(store.getState().error).toBe(null);
  });

  it('is confirmed once, however often it comes', async () => {
    const store = open(backend.signIn());
    backend.signOut();
    const refused = ['a', 'b', 'c'].map((plan) => expect(store.update({ plan })).rejects.toMatchObject({ kind: 'revoked' }));
    store.hydrate(null);
    await pass(1_000);
    await Promise.all(refused);
    expect(backend.times('PATCH /api/session')).toBe(3);
    expect(backend.times(GET)).toBe(2);
  });

  it('is confirmed by one of the tabs', async () => {
    const data = backend.signIn();
    const tabs = [open(data), open(data), open(data)];
    backend.signOut();
    backend.latency = 100;
    for (const tab of tabs) tab.hydrate(null);
    await pass(3_000, 50);
    expect(backend.times(GET)).toBe(tabs.length + 1);
    for (const tab of tabs) expect(tab.getState()).toMatchObject({ error: { kind: 'revoked' } });
  });

  it('waits for what gives the browser another cookie', async () => {
    const data = backend.signIn();
    const [store, other] = [open(data), open(data)];
    backend.latency = 3_000;
    const switched = other.switchTenant('umbrella');
    await pass(100, 20);
    backend.latency = 0;
    refuseOnce('get');
    const seen = watch(store);
    store.hydrate(null);
    await pass(1_000, 50);
    expect(backend.log).toEqual(['POST /api/session/tenant', 'GET /api/session 401']);
    await pass(5_000, 50);
    await switched;
    expect(store.getState()).toMatchObject({ ...lives, data: { session: { id: 'session-2' } } });
    expect([...seen]).toEqual(['authenticated']);
  });

  it('waits for a request of the application that has the turn, as a step-up', async () => {
    const store = open(backend.signIn());
    let stepUp: () => void = () => undefined;
    const answered = new Promise<void>((resolve) => (stepUp = resolve));
    void navigator.locks.request('session_manager /api/session', () => answered);
    // The old token is dead, the new one is on its way.
    backend.faults = [{ status: 401 }];
    store.hydrate(null);
    await pass(3_000);
    expect(backend.log).toEqual([GET]);
    expect(statusOf(store)).toBe('authenticated');
    stepUp();
    await pass(500);
    expect(backend.log).toEqual([GET, GET]);
    expect(store.getState()).toMatchObject(lives);
  });

  it.each([
    ['network', 'network'],
    [{ status: 503 }, 'server'],
  ] as const)('is not believed while nobody can confirm it: %j', async (outage, kind) => {
    const store = open(backend.signIn());
    refuseOnce('get', '/api/session', 100);
    backend.outage = outage;
    store.hydrate(null);
    await pass(10_000, 250);
    expect(store.getState()).toMatchObject({ status: 'authenticated', isStale: true, error: { kind } });
    backend.outage = undefined;
    await pass(40_000, 500);
    expect(store.getState()).toMatchObject(lives);
  });

  it('of a refresh is not believed while nobody can confirm it', async () => {
    const store = open(backend.signIn());
    refuseOnce('post', '/api/session/refresh');
    backend.outage = { status: 503 };
    void store.refresh();
    await pass(10_000, 250);
    expect(store.getState()).toMatchObject({ status: 'authenticated', isStale: true });
    backend.outage = undefined;
    await pass(40_000, 500);
    expect(store.getState()).toMatchObject(lives);
    expect(backend.log.at(-1)).toBe(REFRESH);
  });

  it('of an update is the fault that kept it from being confirmed', async () => {
    const store = open(backend.signIn());
    refuseOnce('patch');
    backend.outage = { status: 503, retryAfter: '60' };
    await expect(store.update({})).rejects.toMatchObject({ kind: 'server', status: 503 });
    expect(store.getState()).toMatchObject({ status: 'authenticated', isStale: true });
  });

  it('keeps no sign-out waiting for its confirmation', async () => {
    const store = open(backend.signIn());
    refuseOnce('get');
    backend.outage = { status: 503, retryAfter: '20' };
    store.hydrate(null);
    await pass(500, 50);
    backend.outage = undefined;
    const ended = store.signOut();
    await pass(2_000, 50);
    await ended;
    expect(backend.log).toEqual(['GET /api/session 401', GET, 'DELETE /api/session']);
    expect(store.getState()).toMatchObject({ status: 'unauthenticated', error: null });
  });

  it('is confirmed though a suspended tab has the lock', async () => {
    void navigator.locks.request('session_manager /api/session', () => new Promise(() => undefined)).catch(() => undefined);
    const store = open(backend.signIn());
    backend.signOut();
    store.hydrate(null);
    await pass(MINUTE, 500);
    expect(statusOf(store)).toBe('authenticated');
    await pass(4 * MINUTE, 1_000);
    expect(store.getState()).toMatchObject({ status: 'unauthenticated', error: { kind: 'revoked' } });
  });

  it('locks nobody out of the turn without navigator.locks', async () => {
    setLocks(undefined);
    const store = open(backend.signIn());
    backend.signOut();
    store.hydrate(null);
    const refreshed = store.refresh();
    await pass(3_000, 50);
    await refreshed;
    expect(store.getState()).toMatchObject({ status: 'unauthenticated', error: { kind: 'revoked' } });
  });

  it('is the verdict at once where no session is known', async () => {
    const store = open();
    await settle();
    expect(backend.log).toEqual([GET]);
    expect(statusOf(store)).toBe('unauthenticated');
  });
});

describe('a session that is bound to the device', () => {
  const UNPROVED = { status: 401, body: JSON.stringify({ detail: 'no proof', code: 'device_proof_required' }) };

  /** Open, with all states that anybody could see. */
  function watch(initial?: SessionData | null): [SessionStore, string[]] {
    const store = open(initial);
    const seen = [statusOf(store)];
    onTestFinished(
      store.subscribe(() => {
        if (seen.at(-1) !== statusOf(store)) seen.push(statusOf(store));
      }),
    );
    return [store, seen];
  }

  function bind(data: SessionData): SessionData {
    return { ...data, session: { ...data.session, device_bound: true } };
  }

  it('is told, in all tabs, and not before it is known', async () => {
    const data = backend.signIn();
    const [store] = watch(data);
    const [other] = watch(data);
    expect(store.getState().deviceBound).toBe(false);
    backend.session!.device_bound = true;
    window.dispatchEvent(new Event('online'));
    await settle();
    expect(store.getState().deviceBound).toBe(true);
    expect(other.getState().deviceBound).toBe(true);
    await store.signOut();
    expect(store.getState().deviceBound).toBe(false);
  });

  it('is asked for at once when the browser may still bind it, and only then', async () => {
    const data = backend.signIn();
    watch(bind(data));
    await settle();
    expect(backend.log).toEqual([]);
    watch({ ...data, session: { ...data.session, device_bound: false } });
    await settle();
    expect(backend.log).toEqual([GET]);
  });

  it('is asked for once more, soon, when the proof is missing', async () => {
    const [store, seen] = watch(bind(backend.signIn()));
    backend.faults = [UNPROVED];
    window.dispatchEvent(new Event('online'));
    await settle();
    expect(store.getState()).toMatchObject({ isStale: true, error: { kind: 'server', status: 401, code: 'device_proof_required' } });
    await pass(2_000);
    expect(backend.log).toEqual([GET, GET]);
    expect(store.getState()).toMatchObject({ isStale: false, error: null });
    expect(seen).toEqual(['authenticated']);
  });

  it('is kept as long as the proof is missing, and looked at as after any failure', async () => {
    const [store, seen] = watch(bind(backend.signIn()));
    backend.outage = UNPROVED;
    window.dispatchEvent(new Event('online'));
    await pass(20_000, 1_000);
    expect(backend.log).toEqual([GET, GET]);
    await pass(70_000, 1_000);
    expect(backend.times(GET)).toBe(6);
    expect(store.getState()).toMatchObject({ isStale: true, deviceBound: true });
    backend.outage = undefined;
    await pass(31_000, 1_000);
    expect(store.getState()).toMatchObject({ isStale: false, error: null });
    expect(seen).toEqual(['authenticated']);
  });

  it('stays to be known when a page without it has no proof yet', async () => {
    backend.signIn();
    backend.faults = [UNPROVED];
    const [store, seen] = watch();
    await pass(2_000);
    expect(store.getState().status).toBe('authenticated');
    expect(seen).toEqual(['loading', 'authenticated']);
  });

  it('is refreshed after all', async () => {
    const [store, seen] = watch(bind(backend.signIn()));
    backend.faults = [UNPROVED];
    const done = store.refresh();
    await passUntil(done, 500);
    expect(backend.log).toEqual([REFRESH, REFRESH]);
    expect(store.getState()).toMatchObject({ error: null, isStale: false });
    expect(seen).toEqual(['authenticated']);
  });

  it.each([
    ['update', (store: SessionStore) => store.update({ client: {} }), 'PATCH /api/session'],
    ['switchTenant', (store: SessionStore) => store.switchTenant('globex'), 'POST /api/session/tenant'],
    ['signOut', (store: SessionStore) => store.signOut(), 'DELETE /api/session'],
  ])('is asked again by %s, once the proof is there', async (_, act, line) => {
    const [store, seen] = watch(bind(backend.signIn()));
    backend.faults = [UNPROVED, UNPROVED];
    await passUntil<unknown>(act(store), 500);
    expect(backend.log.filter((entry) => entry === line).length).toBeGreaterThan(1);
    expect(seen.filter((status) => status === 'authenticated')).toHaveLength(1);
  });

  it('ends when it had to be bound', async () => {
    const [store] = watch(backend.signIn());
    backend.signOut();
    backend.refusal = { code: 'device_binding_required' };
    window.dispatchEvent(new Event('online'));
    await pass(2_000);
    expect(store.getState()).toMatchObject({ status: 'unauthenticated', error: { kind: 'revoked' } });
  });
});

describe('waking', () => {
  it('looks at once after a deep sleep', async () => {
    const store = open(backend.signIn());
    backend.signOut();
    await deepSleep(30 * MINUTE);
    expect(backend.log).toEqual([GET, GET]);
    expect(store.getState().error?.kind).toBe('revoked');
  });

  it('looks at once when the clock was put back', async () => {
    open(backend.signIn());
    await deepSleep(-30 * MINUTE);
    expect(backend.log).toEqual([GET]);
  });

  it('drops a session that ran out in the sleep even when the network is gone', async () => {
    const store = open(backend.signIn());
    backend.outage = 'network';
    await deepSleep(2 * HOUR);
    expect(store.getState()).toMatchObject({ status: 'unauthenticated', error: { kind: 'expired' } });
  });

  it('does not ask while it is awake', async () => {
    open(backend.signIn());
    await pass(30 * MINUTE, 10_000);
    expect(backend.log).toEqual([]);
  });

  it('by focus asks at most every 5 s', async () => {
    open(backend.signIn());
    for (let n = 0; n < 20; n++) {
      window.dispatchEvent(new Event('focus'));
      await pass(1_000);
    }
    expect(backend.times(GET)).toBeLessThanOrEqual(4);
    expect(backend.times(GET)).toBeGreaterThanOrEqual(3);
  });

  it('by focus can be switched off', async () => {
    open(backend.signIn(), { refetchOnWindowFocus: false });
    await pass(10_000);
    window.dispatchEvent(new Event('focus'));
    await settle();
    expect(backend.log).toEqual([]);
  });

  it('from the back/forward cache asks at once', async () => {
    const store = open(backend.signIn(), { refetchOnWindowFocus: false });
    backend.signOut();
    window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }));
    await settle();
    expect(statusOf(store)).toBe('unauthenticated');
  });

  it('by the network asks at once', async () => {
    const store = open(backend.signIn(), { refetchInterval: 10 });
    setOnline(false);
    backend.outage = 'network';
    await pass(11_000);
    expect(store.getState().error?.kind).toBe('network');
    backend.outage = undefined;
    setOnline(true);
    await settle();
    expect(store.getState()).toMatchObject({ status: 'authenticated', error: null, isStale: false });
  });

  it('is left alone for as long as Retry-After says', async () => {
    backend.signIn();
    backend.outage = { status: 503, retryAfter: '120' };
    open();
    await settle();
    for (let n = 0; n < 10; n++) {
      await pass(10_000);
      window.dispatchEvent(new Event('focus'));
    }
    expect(backend.times(GET)).toBe(1);
    await pass(30_000);
    expect(backend.times(GET)).toBe(2);
  });
});

describe('polling', () => {
  it('looks every refetchInterval seconds while the page is visible', async () => {
    open(backend.signIn(), { refetchInterval: 30 });
    await pass(5 * MINUTE, 5_000);
    expect(backend.times(GET)).toBe(10);
    setVisible(false);
    await pass(5 * MINUTE, 5_000);
    expect(backend.times(GET)).toBe(10);
  });

  it('can be switched on later', async () => {
    const store = open(backend.signIn());
    store.configure({ basePath: '/api/session', refetchInterval: 30, refetchOnWindowFocus: true, refreshAt: 0.75 });
    await pass(MINUTE + 1_000, 5_000);
    expect(backend.times(GET)).toBe(2);
  });

  it('tells nobody when nothing has changed', async () => {
    const store = open(backend.signIn(), { refetchInterval: 30 });
    const seen = new Set<unknown>();
    store.subscribe(() => seen.add(store.getState().data));
    backend.session!.last_seen_at = '2026-03-01T12:30:00Z';
    await pass(5 * MINUTE, 5_000);
    expect(seen.size).toBe(1);
  });
});

describe('several tabs', () => {
  it('send exactly one refresh', async () => {
    const data = backend.signIn();
    backend.latency = 300;
    const tabs = [open(data), open(data), open(data)];
    await pass(46 * MINUTE, MINUTE);
    expect(backend.times(REFRESH)).toBe(1);
    expect(backend.times(GET)).toBe(0);
    expect(new Set(tabs.map((tab) => tab.getState().data?.session.expires_at)).size).toBe(1);
    expect(Date.parse(tabs[2]!.getState().data!.session.expires_at)).toBeGreaterThan(Date.now() + 50 * MINUTE);
  });

  it.each([100, 400])('send exactly one refresh when news takes %d ms, as on a busy machine', async (late) => {
    vi.stubGlobal(
      'BroadcastChannel',
      class extends FakeChannel {
        override postMessage(message: unknown): void {
          setTimeout(() => {
            super.postMessage(message);
          }, late);
        }
      },
    );
    const data = backend.signIn();
    backend.latency = 300;
    const tabs = [open(data), open(data), open(data)];
    const done = Promise.all(tabs.map((tab) => tab.refresh()));
    await pass(5_000, 50);
    await done;
    expect(backend.log).toEqual([REFRESH]);
    expect(new Set(tabs.map((tab) => tab.getState().data?.session.expires_at)).size).toBe(1);
  });

  it('refresh each for itself without navigator.locks, and keep the session', async () => {
    setLocks(undefined);
    const data = backend.signIn();
    backend.latency = 300;
    const tabs = [open(data), open(data), open(data)];
    const done = Promise.all(tabs.map((tab) => tab.refresh()));
    await pass(5_000, 50);
    await done;
    expect(backend.log).toEqual([REFRESH, REFRESH, REFRESH]);
    expect(new Set(tabs.map((tab) => tab.getState().data?.session.expires_at)).size).toBe(1);
    for (const tab of tabs) expect(tab.getState()).toMatchObject({ status: 'authenticated', error: null });
  });

  it('refresh at different times without navigator.locks, so that one of them does it', async () => {
    setLocks(undefined);
    vi.mocked(Math.random).mockRestore();
    const data = backend.signIn();
    const tabs = [open(data), open(data), open(data)];
    await pass(55 * MINUTE, 2_000);
    expect(backend.times(REFRESH)).toBe(1);
    for (const tab of tabs) expect(tab.timeLeft()).toBeGreaterThan(40 * MINUTE);
  });

  it('look before they refresh when the news of another tab was lost', async () => {
    Reflect.deleteProperty(globalThis, 'BroadcastChannel');
    const data = backend.signIn();
    backend.latency = 300;
    const tabs = [open(data), open(data), open(data)];
    const done = Promise.all(tabs.map((tab) => tab.refresh()));
    await pass(5_000, 50);
    await done;
    expect(backend.log).toEqual([REFRESH, GET, GET]);
  });

  it('take over when the tab that refreshes fails', async () => {
    const data = backend.signIn();
    const tabs = [open(data), open(data)];
    backend.faults = [{ status: 400 }];
    const done = Promise.all(tabs.map((tab) => tab.refresh()));
    await pass(1_000, 50);
    await done;
    expect(backend.log).toEqual([REFRESH, GET, REFRESH]);
    expect(tabs[1]!.getState().error).toBe(null);
  });

  it('are all signed out by one', async () => {
    const data = backend.signIn();
    const [one, other] = [open(data), open(data)];
    await one.signOut();
    await settle();
    for (const tab of [one, other]) {
      expect(tab.getState()).toMatchObject({ status: 'unauthenticated', data: null, error: null });
    }
    expect(backend.log).toEqual(['DELETE /api/session']);
  });

  it('all learn that a session was revoked from the one that finds out', async () => {
    const data = backend.signIn();
    const [one, other] = [open(data), open(data)];
    backend.signOut();
    await one.refresh();
    await settle();
    expect(other.getState()).toMatchObject({ status: 'unauthenticated', error: { kind: 'revoked' } });
    expect(backend.log).toEqual([REFRESH, GET]);
  });

  it('all see a change, and a sign-in', async () => {
    const [one, other] = [open(null), open(null)];
    await one.createSession({ accessToken: 'token' });
    await settle();
    expect(statusOf(other)).toBe('authenticated');
    await other.update({ theme: 'dark' });
    await settle();
    expect(one.getState().data?.session.data).toMatchObject({ theme: 'dark' });
    expect(backend.times(GET)).toBe(0);
  });
});

describe('a session that has ended does not come back', () => {
  it('by an answer that was under way', async () => {
    const store = open(backend.signIn());
    backend.latency = 500;
    await pass(6_000);
    window.dispatchEvent(new Event('focus'));
    await pass(100, 20);
    backend.latency = 0;
    await store.signOut();
    await pass(1_000);
    expect(backend.log).toEqual([GET, 'DELETE /api/session']);
    expect(statusOf(store)).toBe('unauthenticated');
  });

  it('by a page that was rendered before', async () => {
    const data = backend.signIn();
    const store = open(data);
    await store.signOut();
    store.hydrate({ ...data, server_time: new Date(Date.now() + 1_000).toISOString() });
    await settle();
    expect(statusOf(store)).toBe('unauthenticated');
  });

  it('by another tab that has not heard of it', async () => {
    const data = backend.signIn();
    const store = open(data);
    await store.signOut();
    const late = new BroadcastChannel('session_manager /api/session');
    late.postMessage({ ...data, server_time: new Date(Date.now() + 1_000).toISOString() });
    await settle();
    late.close();
    expect(statusOf(store)).toBe('unauthenticated');
  });

  it.each(['this', 'another'])('by an update that is answered after a sign-out in %s tab', async (where) => {
    const data = backend.signIn();
    const [store, other] = [open(data), open(data)];
    const late = { ...backend.answer(), session: { ...data.session, version: 2 } };
    server.use(
      http.patch('/api/session', async () => {
        await delay(500);
        return HttpResponse.json(late);
      }),
    );
    const updated = store.update({ plan: 'team' });
    await pass(100, 20);
    await (where === 'this' ? store : other).signOut();
    await pass(1_000);
    expect((await updated).session.version).toBe(2);
    for (const tab of [store, other]) expect(tab.getState()).toMatchObject({ status: 'unauthenticated', data: null });
  });

  it('by an update that is answered after another session took its place', async () => {
    const data = backend.signIn();
    const [store, other] = [open(data), open(data)];
    const late = { ...backend.answer(), session: { ...data.session, version: 2 } };
    server.use(
      http.patch('/api/session', async () => {
        await delay(500);
        return HttpResponse.json(late);
      }),
    );
    const updated = store.update({ plan: 'team' });
    await pass(100, 20);
    await other.switchTenant('umbrella');
    await pass(1_000);
    await updated;
    for (const tab of [store, other]) expect(tab.getState().data?.session.id).toBe('session-2');
  });

  it('by a page that was rendered before, when there is another session', async () => {
    const first = backend.signIn();
    const store = open(first);
    await store.signOut();
    const created = store.createSession({ accessToken: 'x' });
    await pass(1_000);
    await created;
    store.hydrate({ ...first, server_time: new Date(Date.now() + 1_000).toISOString() });
    expect(store.getState().data?.session.id).toBe('session-2');
  });
});

describe('a session that has ended does not harm the next', () => {
  it.each([
    ['update', 'patch', '/api/session'],
    ['switchTenant', 'post', '/api/session/tenant'],
  ] as const)('by a late refusal of %s', async (action, method, path) => {
    const first = backend.signIn();
    const store = open(first);
    server.use(
      http[method](path, async () => {
        await delay(500);
        return HttpResponse.json({ detail: 'no session', code: 'session_expired' }, { status: 401 });
      }),
    );
    const refused = expect(action === 'update' ? store.update({}) : store.switchTenant('umbrella')).rejects.toMatchObject({
      kind: 'server',
      status: 401,
    });
    await pass(100, 20);
    store.hydrate(backend.signIn());
    await pass(1_000);
    await refused;
    expect(store.getState()).toMatchObject({ status: 'authenticated', error: null, data: { session: { id: 'session-2' } } });
  });

  it('by an update that is repeated', async () => {
    const store = open(backend.signIn());
    backend.faults = [{ status: 503 }];
    const failed = expect(store.update({ plan: 'team' })).rejects.toMatchObject({ status: 503 });
    await pass(100, 20);
    store.hydrate(backend.signIn());
    await pass(10_000);
    await failed;
    expect(backend.log).toEqual(['PATCH /api/session']);
    expect(backend.session?.data).toMatchObject({ plan: 'free' });
  });

  it('by the news of another tab', async () => {
    const first = backend.signIn();
    const other = open(first);
    const store = open(backend.signIn());
    server.use(http.get('/api/session', () => HttpResponse.json({ session: null })));
    other.hydrate(null);
    await pass(1_000);
    expect(statusOf(other)).toBe('unauthenticated');
    expect(store.getState().data?.session.id).toBe('session-2');
  });

  it('by a look that was under way at the sign-in', async () => {
    backend.latency = 500;
    const store = open();
    await pass(100, 20);
    backend.latency = 0;
    await store.createSession({ accessToken: 'x' });
    await pass(1_000);
    expect(backend.log).toEqual([GET, 'POST /api/session']);
    expect(store.getState()).toMatchObject({ status: 'authenticated', error: null });
  });
});

describe('an answer that is older', () => {
  /** The next look gets the answer of now, later. */
  function slowLook(): void {
    const old = backend.answer();
    server.use(
      http.get(
        '/api/session',
        async () => {
          await delay(3_000);
          return HttpResponse.json(old);
        },
        { once: true },
      ),
    );
    window.dispatchEvent(new Event('online'));
  }

  it('does not take a refresh back, however slow the look was', async () => {
    const store = open(backend.signIn());
    await pass(30 * MINUTE, MINUTE);
    slowLook();
    await pass(100, 20);
    await store.refresh();
    const { expires_at } = store.getState().data!.session;
    expect(Date.parse(expires_at)).toBeGreaterThan(Date.now() + 59 * MINUTE);
    await pass(5_000);
    expect(store.getState().data?.session.expires_at).toBe(expires_at);
    expect(Math.abs(store.timeLeft() - (Date.parse(expires_at) - Date.now()))).toBeLessThan(100);
  });

  it('does not hold off a refresh by a server whose clock is behind', async () => {
    const store = open(backend.signIn());
    await pass(30 * MINUTE, MINUTE);
    window.dispatchEvent(new Event('online'));
    await settle();
    backend.skew = -2_000;
    await store.refresh();
    expect(Date.parse(store.getState().data!.session.expires_at)).toBeGreaterThan(Date.now() + 59 * MINUTE);
  });
});

describe('what the server rendered later', () => {
  it('is taken over when it is newer', async () => {
    const store = open(backend.signIn());
    await pass(1_000);
    backend.session!.data.plan = 'team';
    backend.session!.version++;
    store.hydrate(backend.answer());
    expect(store.getState().data?.session.data.plan).toBe('team');
  });

  it('is dropped when it is older', async () => {
    const old = backend.signIn();
    const store = open(old);
    await pass(1_000);
    await store.update({ plan: 'team' });
    store.hydrate(old);
    expect(store.getState().data?.session.data.plan).toBe('team');
  });

  it('without a session is a reason to look', async () => {
    const store = open(backend.signIn());
    store.hydrate(null);
    await settle();
    expect(backend.log).toEqual([GET]);
    expect(statusOf(store)).toBe('authenticated');
  });
});

describe('createSession', () => {
  it('sends the access token and the profile', async () => {
    const store = open(null);
    const data = await store.createSession({ accessToken: 'a.b.c', user: { name: 'Ada' } });
    expect(data.session.id).toBe('session-1');
    expect(JSON.parse(backend.bodies[0] as string)).toEqual({ accessToken: 'a.b.c', user: { name: 'Ada' } });
    expect(statusOf(store)).toBe('authenticated');
  });

  it('is not repeated, and leaves things as they are when it fails', async () => {
    const store = open(null);
    for (const fault of ['network', { status: 503 }, { status: 401 }, { status: 409 }] as const) {
      backend.faults = [fault];
      await expect(store.createSession({ accessToken: 'x' })).rejects.toBeInstanceOf(Error);
    }
    expect(backend.log).toHaveLength(4);
    expect(store.getState()).toMatchObject({ status: 'unauthenticated', error: null });
  });

  it('puts another session in the place of the first', async () => {
    const first = backend.signIn();
    const store = open(first);
    await store.createSession({ accessToken: 'x' });
    expect(store.getState().data?.session.id).toBe('session-2');
    store.hydrate({ ...first, server_time: new Date(Date.now() + 1_000).toISOString() });
    expect(store.getState().data?.session.id).toBe('session-2');
  });
});

it('a sign-in that is refused leaves the session that there is, in all tabs', async () => {
  const data = backend.signIn();
  const tabs = [open(data), open(data)];
  backend.faults = [{ status: 401 }];
  await expect(tabs[0]!.createSession({ accessToken: 'old' })).rejects.toMatchObject({ kind: 'server', status: 401 });
  await settle();
  for (const tab of tabs) expect(tab.getState()).toMatchObject({ status: 'authenticated', error: null, data });
});

describe('update', () => {
  it('names the version that it expects', async () => {
    const store = open(backend.signIn());
    await store.update({ theme: 'dark' }, { ifVersion: 1 });
    expect(backend.headers[0]?.get('if-match')).toBe('"1"');
    await expect(store.update({ theme: 'light' }, { ifVersion: 1 })).rejects.toMatchObject({
      kind: 'server',
      status: 412,
      code: 'version_conflict',
    });
    expect(store.getState()).toMatchObject({ status: 'authenticated', error: null });
    expect(store.getState().data?.session.data).toMatchObject({ theme: 'dark' });
  });

  it('is not undone by an answer that is older', async () => {
    const store = open(backend.signIn());
    await pass(6_000);
    backend.latency = 500;
    window.dispatchEvent(new Event('focus'));
    await pass(100, 20);
    backend.latency = 0;
    await store.update({ plan: 'team' });
    await pass(1_000);
    expect(store.getState().data?.session).toMatchObject({ version: 2, data: { plan: 'team' } });
  });
});

describe('signOut', () => {
  it.each([
    ['local', 'DELETE /api/session', 'unauthenticated'],
    ['others', 'DELETE /api/session?scope=others', 'authenticated'],
    ['global', 'DELETE /api/session?scope=global', 'unauthenticated'],
  ] as const)('of scope %s', async (scope, request, status) => {
    const store = open(backend.signIn());
    await store.signOut({ scope });
    expect(backend.log).toEqual([request]);
    expect(statusOf(store)).toBe(status);
  });

  it('takes over no session from an answer that has none', async () => {
    const store = open(backend.signIn());
    server.use(http.delete('/api/session', () => HttpResponse.json({ invalidated: 2 })));
    await store.signOut({ scope: 'others' });
    expect(store.getState()).toMatchObject({ status: 'authenticated', error: null, data: { session: { id: 'session-1' } } });
  });

  it('that does not reach the server fails, and the session is still there', async () => {
    const store = open(backend.signIn());
    setOnline(false);
    backend.outage = 'network';
    await expect(store.signOut()).rejects.toMatchObject({ kind: 'network' });
    expect(statusOf(store)).toBe('authenticated');
  });
});

it('switchTenant goes on in another tenant, with a new session', async () => {
  const store = open(backend.signIn());
  await store.switchTenant('umbrella');
  expect(store.getState().data?.session).toMatchObject({ id: 'session-2', tenant_id: 'umbrella' });
});

describe.each([
  ['with', true],
  ['without', false],
])('%s navigator.locks, a sign-out', (_, hasLocks) => {
  beforeEach(() => {
    if (hasLocks) return;
    setLocks(undefined);
    vi.mocked(Math.random).mockRestore();
  });

  // Without locks, the requests of one tab alone take turns.
  const places = hasLocks ? ['this', 'another'] : ['this'];
  it.each(
    [
      ['createSession', 'POST /api/session'],
      ['switchTenant', 'POST /api/session/tenant'],
      ['refresh', REFRESH],
    ].flatMap(([action, line]) => places.map((where) => [action!, where, line!] as const)),
  )('waits for %s in %s tab, and ends what it began', async (action, where, line) => {
    const data = backend.signIn();
    const [store, other] = [open(data), open(data)];
    backend.latency = 5_000;
    const begun =
      action === 'createSession'
        ? store.createSession({ accessToken: 'x' })
        : action === 'switchTenant'
          ? store.switchTenant('umbrella')
          : store.refresh();
    await pass(1_000, 50);
    expect(backend.log).toEqual([line]);
    backend.latency = 0;
    const ended = (where === 'this' ? store : other).signOut();
    await pass(2_000, 50);
    expect(backend.log).toEqual([line]);
    await pass(8_000, 50);
    await Promise.all([begun, ended]);
    expect(backend.log).toEqual([line, 'DELETE /api/session']);
    expect(backend.session).toBe(null);
    for (const tab of [store, other]) expect(tab.getState()).toMatchObject({ status: 'unauthenticated', data: null });
  });
});

describe.each([
  ['with', true],
  ['without', false],
])('%s navigator.locks, in an outage', (_, hasLocks) => {
  beforeEach(() => {
    if (hasLocks) return;
    setLocks(undefined);
    vi.mocked(Math.random).mockRestore();
  });

  const wishes = [
    ['signOut', 'DELETE /api/session', (store: SessionStore) => store.signOut()],
    ['createSession', 'POST /api/session', (store: SessionStore) => store.createSession({ accessToken: 'x' })],
    ['switchTenant', 'POST /api/session/tenant', (store: SessionStore) => store.switchTenant('umbrella')],
  ] as const;
  const places = ['this', 'another'] as const;

  it.each(wishes.flatMap((wish) => places.map((where) => [...wish, where] as const)))(
    '%s (%s) does not wait for the retries of a refresh',
    async (_name, line, act, where) => {
      const data = backend.signIn();
      const [store, other] = [open(data), open(data)];
      backend.outage = { status: 503, retryAfter: '20' };
      const refreshed = store.refresh();
      await pass(500, 50);
      expect(backend.log).toEqual([REFRESH]);
      backend.outage = undefined;
      const done = act(where === 'this' ? store : other);
      await pass(2_000, 50);
      expect(backend.log).toEqual([REFRESH, line]);
      await Promise.all([refreshed, done]);
    },
  );

  it('a sign-out gives way to a sign-in as soon as its attempt has failed', async () => {
    const data = backend.signIn();
    const [store, other] = [open(data), open(data)];
    backend.outage = { status: 503 };
    const failed = expect(store.signOut()).rejects.toMatchObject({ status: 503 });
    await pass(500, 50);
    backend.outage = undefined;
    const created = other.createSession({ accessToken: 'x' });
    await pass(2_000, 50);
    await Promise.all([failed, created]);
    await pass(60_000);
    expect(backend.log).toEqual(['DELETE /api/session', 'POST /api/session']);
    for (const tab of [store, other]) expect(tab.getState().data?.session.id).toBe('session-2');
  });
});

describe('in an outage', () => {
  it('a sign-out does not wait for the tabs that want to refresh too, and none of them asks', async () => {
    const data = backend.signIn();
    const tabs = [open(data), open(data), open(data), open(data)];
    backend.outage = { status: 503 };
    const refreshed = tabs.map((tab) => tab.refresh());
    await pass(500, 50);
    backend.outage = undefined;
    await passUntil(Promise.all([...refreshed, tabs[3]!.signOut()]), 50);
    expect(backend.log).toEqual([REFRESH, 'DELETE /api/session']);
    for (const tab of tabs) expect(tab.getState()).toMatchObject({ status: 'unauthenticated', error: null });
  });

  it('the refresh that gave way is made up for, once, when the sign-out fails', async () => {
    const data = backend.signIn();
    const tabs = [open(data), open(data), open(data)];
    backend.outage = { status: 503 };
    const refreshed = tabs.map((tab) => tab.refresh());
    await pass(500, 50);
    // Its four attempts take as long as chance has it.
    await passUntil(expect(tabs[2]!.signOut()).rejects.toMatchObject({ status: 503 }), 50);
    expect(backend.times('DELETE /api/session')).toBe(4);
    backend.outage = undefined;
    backend.log = [];
    await pass(35_000, 250);
    await Promise.all(refreshed);
    expect(backend.times(REFRESH)).toBe(1);
    for (const tab of tabs) expect(tab.getState()).toMatchObject({ status: 'authenticated', isStale: false });
  });
});

describe('a tab that is still loading hears that another session has ended', () => {
  async function hear(id: string): Promise<SessionStore> {
    backend.latency = 1_000;
    const store = open();
    await pass(200, 50);
    const channel = new BroadcastChannel('session_manager /api/session');
    channel.postMessage({ session: null, id, kind: 'revoked' });
    await settle();
    channel.close();
    return store;
  }

  it('and finds its own', async () => {
    backend.signIn();
    const data = backend.signIn();
    const store = await hear('session-1');
    await pass(3_000, 50);
    expect(store.getState()).toMatchObject({ status: 'authenticated', error: null });
    expect(store.getState().data?.session.id).toBe(data.session.id);
  });

  it('and takes no answer from before', async () => {
    const data = backend.signIn();
    const store = await hear(data.session.id);
    backend.signOut();
    await pass(3_000, 50);
    expect(store.getState()).toMatchObject({ status: 'unauthenticated', data: null });
  });
});

describe('a tab that was suspended with the lock in its hands', () => {
  beforeEach(() => {
    void navigator.locks.request('session_manager /api/session', () => new Promise(() => undefined)).catch(() => undefined);
  });

  it('does not hold a sign-out up for long', async () => {
    const data = backend.signIn();
    const [store, other] = [open(data), open(data)];
    const ended = store.signOut();
    await pass(10_000, 500);
    expect(backend.log).toEqual([]);
    await pass(15_000, 500);
    expect(backend.log).toEqual(['DELETE /api/session']);
    await ended;
    expect(statusOf(other)).toBe('unauthenticated');
    await other.createSession({ accessToken: 'x' });
    expect(statusOf(store)).toBe('authenticated');
  });

  it('does not cost the others their session', async () => {
    const data = backend.signIn();
    vi.mocked(Math.random).mockRestore();
    const tabs = [open(data), open(data), open(data)];
    await pass(59 * MINUTE, 5_000);
    expect(backend.times(REFRESH)).toBe(1);
    for (const tab of tabs) expect(tab.timeLeft()).toBeGreaterThan(30 * MINUTE);
  });
});

it('a sign-out is not lost with the store that waits for its turn, without navigator.locks', async () => {
  setLocks(undefined);
  const data = backend.signIn();
  const store = open(data);
  backend.latency = 3_000;
  const refreshed = store.refresh();
  await pass(500, 50);
  const ended = store.signOut();
  await pass(200, 50);
  store.close();
  await pass(10_000, 50);
  await Promise.all([refreshed, ended]);
  expect(backend.log).toEqual([REFRESH, 'DELETE /api/session']);
});

describe('onChange', () => {
  /** A tab, and how often it was told. */
  const watched = (initial?: SessionData | null) => {
    const onChange = vi.fn();
    return [open(initial, { onChange }), onChange] as const;
  };

  it.each([
    ['an update', (store: SessionStore) => store.update({ client: { theme: 'dark' } })],
    ['a switch of tenants', (store: SessionStore) => store.switchTenant('umbrella')],
    ['a sign-out', (store: SessionStore) => store.signOut()],
    ['another sign-in', (store: SessionStore) => store.createSession({ accessToken: 't' })],
  ])('tells once of %s, in all tabs', async (_, act) => {
    const data = backend.signIn();
    const [[store, here], [, there]] = [watched(data), watched(data)];
    await act(store);
    await pass(500);
    expect(here).toHaveBeenCalledOnce();
    expect(there).toHaveBeenCalledOnce();
  });

  it('tells of a sign-in', async () => {
    const [store, onChange] = watched(null);
    await store.createSession({ accessToken: 't' });
    await settle();
    expect(onChange).toHaveBeenCalledOnce();
  });

  it('tells of what was found: other data, another user, a revocation, the end of life', async () => {
    const [store, onChange] = watched(backend.signIn());
    const look = async () => {
      await pass(6_000, 2_000);
      window.dispatchEvent(new Event('focus'));
      await pass(500);
    };
    backend.session!.version++;
    backend.session!.data.plan = 'team';
    await look();
    expect(onChange).toHaveBeenCalledTimes(1);
    backend.user = { id: 'auth0|ada', name: 'Countess Lovelace' };
    await look();
    expect(onChange).toHaveBeenCalledTimes(2);
    backend.signOut();
    await look();
    expect(onChange).toHaveBeenCalledTimes(3);

    backend.signIn();
    await store.createSession({ accessToken: 't' });
    backend.outage = 'network';
    await pass(HOUR + 5 * MINUTE, 5 * MINUTE);
    expect(onChange).toHaveBeenCalledTimes(5);
  });

  it('waits for the network, without which a router would leave the page', async () => {
    const [store, onChange] = watched(backend.signIn());
    setOnline(false);
    backend.outage = 'network';
    await pass(HOUR + 5 * MINUTE, 5 * MINUTE);
    expect(statusOf(store)).toBe('unauthenticated');
    expect(onChange).not.toHaveBeenCalled();
    backend.outage = undefined;
    backend.signOut();
    setOnline(true);
    await pass(1_000);
    expect(onChange).toHaveBeenCalledOnce();
  });

  it('tells after the caller, who may go to another page, has gone on', async () => {
    const [store, onChange] = watched(backend.signIn());
    const order: string[] = [];
    onChange.mockImplementation(() => order.push('onChange'));
    await store.update({ client: { theme: 'dark' } });
    order.push('caller');
    await settle();
    expect(order).toEqual(['caller', 'onChange']);
  });

  it('tells nothing of the first answer, of times, of failures, or of what the page was rendered with', async () => {
    backend.signIn();
    const [loading, first] = watched();
    const [store, onChange] = watched(backend.answer());
    await settle();
    expect(statusOf(loading)).toBe('authenticated');
    await store.refresh();
    backend.faults = ['network'];
    store.hydrate(null);
    await pass(5_000);
    backend.session!.version++;
    backend.session!.data.plan = 'team';
    store.hydrate(backend.answer());
    await pass(500);
    expect(store.getState().data?.session.data.plan).toBe('team');
    expect(onChange).not.toHaveBeenCalled();
    expect(first).not.toHaveBeenCalled();

    await store.signOut();
    await settle();
    expect(onChange).toHaveBeenCalledOnce();
  });
});

it('timeLeft counts by the server clock', async () => {
  backend.skew = -3 * HOUR;
  const store = open(backend.signIn());
  await pass(10 * MINUTE, MINUTE);
  expect(store.timeLeft()).toBe(50 * MINUTE);
  await store.signOut();
  expect(store.timeLeft()).toBe(0);
});

it('a store that was stopped does nothing more', async () => {
  const store = open(backend.signIn(), { refetchInterval: 10 });
  store.close();
  await pass(2 * HOUR, MINUTE);
  window.dispatchEvent(new Event('focus'));
  await settle();
  expect(backend.log).toEqual([]);
});
