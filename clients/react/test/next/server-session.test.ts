import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  DeviceUnprovedError,
  fetchBackend,
  ForeignRequestError,
  getServerSession,
  SessionUnavailableError,
} from '../../src/next/index.js';
import { Django } from './django.js';

const incoming = vi.hoisted(() => ({ headers: new Headers() }));
vi.mock('next/headers.js', () => ({ headers: () => Promise.resolve(incoming.headers) }));

const django = new Django();
const SESSION = { session: { id: 's' }, user: { id: 'u' }, server_time: '2026-03-01T12:00:00Z' };

beforeAll(() => django.listen());
afterAll(() => django.close());
beforeEach(() => {
  django.seen = [];
  django.answers(200, SESSION);
  vi.stubEnv('SESSION_BACKEND_URL', django.url);
  incoming.headers = new Headers({ cookie: 'session_token=x', 'user-agent': 'Firefox', 'x-forwarded-for': '6.6.6.6' });
});

describe('getServerSession', () => {
  it('is the session', async () => {
    expect(await getServerSession()).toEqual(SESSION);
    expect(django.seen).toMatchObject([
      { method: 'GET', path: '/api/sessions/current/', headers: { cookie: 'session_token=x', 'user-agent': 'Firefox' } },
    ]);
    expect(django.seen[0]!.headers['x-forwarded-for']).toBeUndefined();
  });

  it('is null without a cookie, and asks nobody', async () => {
    incoming.headers = new Headers();
    expect(await getServerSession()).toBe(null);
    expect(django.seen).toEqual([]);
  });

  it('takes no cookie for another one: browsers know no white space but spaces and tabs', async () => {
    incoming.headers = new Headers({ cookie: '\u00a0__Host-session_token=planted; \t __Host-session_token=x' });
    await getServerSession();
    expect(django.seen).toMatchObject([{ headers: { cookie: '__Host-session_token=x' } }]);
  });

  it('is null when the session has ended', async () => {
    django.answers(401, { code: 'session_expired' });
    expect(await getServerSession()).toBe(null);
  });

  it('throws when another than the backend asks for a login', async () => {
    django.answers(401, '<html>Sign in to the proxy</html>');
    await expect(getServerSession()).rejects.toBeInstanceOf(SessionUnavailableError);
  });

  it('throws when the device has not proved itself: that is no sign-out, and the page may know', async () => {
    django.answers(401, { code: 'device_proof_required' });
    const error = await getServerSession().catch((e: unknown) => e);
    expect(error).toBeInstanceOf(DeviceUnprovedError);
    expect(error).toBeInstanceOf(SessionUnavailableError);
    expect(error).toMatchObject({ digest: 'device_proof_required' });
  });

  it.each([
    [true, {}, true],
    [false, {}, undefined],
    [false, { 'Secure-Session-Registration': '(ES256);path="/a";challenge="b"' }, false],
  ])('says whether the browser has to ask for the binding: %j %j', async (device_bound, headers, expected) => {
    django.answers(200, { ...SESSION, session: { id: 's', device_bound } }, headers);
    expect((await getServerSession())?.session.device_bound).toBe(expected);
  });

  it('is asked for with the proof of the device', async () => {
    // By a link on another site browsers come without a proof, as Django has to know.
    const link = { 'sec-fetch-site': 'cross-site' };
    incoming.headers = new Headers({ cookie: 'session_proof=y; session_token=x', 'secure-session-skipped': 'unreachable', ...link });
    await getServerSession();
    await fetchBackend('/api/invoices/');
    for (const { headers } of django.seen) {
      expect(headers).toMatchObject({ cookie: 'session_token=x; session_proof=y', 'secure-session-skipped': 'unreachable', ...link });
    }
    expect(django.seen).toHaveLength(2);
  });

  it.each([500, 503, 403, 404, 301])('throws when the backend answers %i: that is no sign-out', async (status) => {
    django.answers(status, {}, { 'Retry-After': '9' });
    const error = await getServerSession().catch((e: unknown) => e);
    expect(error).toBeInstanceOf(SessionUnavailableError);
    expect((error as SessionUnavailableError).retryAfter).toBe(9);
  });

  it('throws when the backend is away', async () => {
    await expect(getServerSession({ backendUrl: 'http://127.0.0.1:1' })).rejects.toBeInstanceOf(SessionUnavailableError);
  });
});

describe('fetchBackend', () => {
  it('asks as the browser', async () => {
    const response = await fetchBackend('/api/invoices/', { method: 'POST', body: '{}' });
    expect(await response.json()).toEqual(SESSION);
    expect(django.seen).toMatchObject([
      { method: 'POST', path: '/api/invoices/', headers: { 'content-type': 'application/json' } },
    ]);
  });

  it.each([
    [{}, true],
    [{ 'sec-fetch-site': 'same-origin', origin: 'https://app.test' }, true],
    [{ origin: 'https://app.test' }, true],
    [{ 'sec-fetch-site': 'cross-site', origin: 'https://partner.test' }, true],
    [{ 'sec-fetch-site': 'same-site', origin: 'https://evil.app.test' }, false],
    [{ 'sec-fetch-site': 'cross-site', origin: 'null' }, false],
    [{ origin: 'https://evil.test' }, false],
  ])('changes nothing for another site: %j %j', async (headers, asked) => {
    incoming.headers = new Headers({ host: 'app.test', cookie: 'session_token=x', ...headers });
    const options = { allowedOrigins: ['https://partner.test'] };
    const outcome = await fetchBackend('/api/invoices/', { method: 'POST', body: '{}' }, options).catch((e: unknown) => e);
    expect(outcome instanceof ForeignRequestError).toBe(!asked);
    expect(django.seen).toHaveLength(asked ? 1 : 0);
    await fetchBackend('/api/invoices/', {}, options);
    expect(django.seen).toHaveLength(asked ? 2 : 1);
  });

  it.each(['//evil.example/', 'https://evil.example/', 'api/', '/../../x/../..//evil.example/', '@evil.example/', '.evil.example/'])(
    'goes nowhere else: %s',
    async (path) => {
      const outcome = await fetchBackend(path).then(
        () => 'asked',
        () => 'refused',
      );
      if (outcome === 'asked') expect(django.seen[0]!.headers.host).toBe(new URL(django.url).host);
      else expect(django.seen).toEqual([]);
    },
  );
});
