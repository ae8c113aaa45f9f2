import { http, HttpResponse } from 'msw';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { SessionError } from '../src/index.js';
import { fetchWithRetries, retryAfter } from '../src/transport.js';
import { Backend, server, type Fault } from './support/backend.js';
import { setOnline } from './support/browser.js';
import { pass, settle, withoutChance } from './support/time.js';

const get = () => fetchWithRetries('/api/session', { method: 'GET' });
const GET = 'GET /api/session';

let backend: Backend;

beforeEach(() => {
  withoutChance();
  backend = new Backend();
  backend.install();
  backend.signIn();
});

async function failure(promise: Promise<unknown>): Promise<SessionError> {
  const caught = promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  await pass(90_000);
  const error = await caught;
  expect(error).toBeInstanceOf(SessionError);
  return error as SessionError;
}

describe('a lasting fault', () => {
  const table: [Fault, string, number][] = [
    ['network', 'network', 4],
    [{ status: 500 }, 'server', 4],
    [{ status: 502, body: '<html>Bad Gateway</html>' }, 'server', 4],
    [{ status: 503 }, 'server', 4],
    [{ status: 503, retryAfter: '7' }, 'server', 4],
    [{ status: 503, retryAfter: '3600' }, 'server', 1],
    [{ status: 504 }, 'server', 4],
    [{ status: 429, retryAfter: '3' }, 'server', 4],
    [{ status: 408 }, 'server', 4],
    [{ status: 400 }, 'server', 1],
    [{ status: 401 }, 'server', 1],
    [{ status: 403 }, 'server', 1],
    [{ status: 404 }, 'server', 1],
    [{ status: 409 }, 'server', 1],
    [{ status: 412 }, 'server', 1],
    [{ status: 413 }, 'server', 1],
    [{ status: 200, body: 'not JSON' }, 'server', 1],
  ];
  it.each(table)('%j is of kind %s after %i attempts', async (fault, kind, attempts) => {
    backend.outage = fault;
    const error = await failure(get());
    expect(error.kind).toBe(kind);
    expect(error.status).toBe(fault === 'network' ? 0 : fault.status);
    expect(backend.times(GET)).toBe(attempts);
  });
});

it('gets over three faults in a row', async () => {
  backend.faults = ['network', { status: 503 }, { status: 500, body: 'x' }];
  const answer = get();
  await pass(10_000);
  expect(await answer).toMatchObject({ session: { id: 'session-1' } });
  expect(backend.times(GET)).toBe(4);
});

it('waits 1, 2 and 4 s between attempts', async () => {
  backend.outage = { status: 503 };
  const at: number[] = [];
  const start = Date.now();
  const caught = fetchWithRetries('/api/session', { method: 'GET' }, () => at.push(Date.now() - start)).catch(() => {
    at.push(Date.now() - start);
  });
  await pass(8_000, 50);
  await caught;
  expect(at).toHaveLength(4);
  expect(at[1]! - at[0]!).toBeCloseTo(1_000, -2);
  expect(at[2]! - at[1]!).toBeCloseTo(2_000, -2);
  expect(at[3]! - at[2]!).toBeCloseTo(4_000, -2);
});

it('obeys Retry-After', async () => {
  backend.faults = [{ status: 503, retryAfter: '9' }];
  const answer = get();
  await pass(8_900);
  expect(backend.times(GET)).toBe(1);
  await pass(200);
  expect(backend.times(GET)).toBe(2);
  await answer;
});

it('reads Retry-After as seconds or as a date', () => {
  expect(retryAfter('3')).toBe(3_000);
  expect(retryAfter(new Date(Date.now() + 60_000).toUTCString())).toBe(60_000);
  for (const value of [null, '', '0', '-5', 'soon', new Date(Date.now() - 60_000).toUTCString()]) {
    expect(retryAfter(value)).toBe(0);
  }
});

it('does not try again while the browser is offline', async () => {
  setOnline(false);
  backend.outage = 'network';
  const error = await failure(get());
  expect(error.kind).toBe('network');
  expect(backend.times(GET)).toBe(1);
});

it('gives up an attempt after 10 s', async () => {
  server.use(http.get('/api/session', () => new Promise<Response>(() => undefined), { once: true }));
  const onRetry = vi.fn();
  const answer = fetchWithRetries('/api/session', { method: 'GET' }, onRetry);
  await pass(9_900);
  expect(onRetry).not.toHaveBeenCalled();
  await pass(200);
  expect(onRetry).toHaveBeenCalledOnce();
  expect((onRetry.mock.calls[0] as [SessionError])[0].kind).toBe('network');
  await pass(1_500);
  expect(await answer).toBeDefined();
});

it('has no body for 204', async () => {
  server.use(http.get('/api/session', () => new HttpResponse(null, { status: 204 })));
  const answer = get();
  await settle();
  expect(await answer).toBeUndefined();
});

it('passes on what the server says', async () => {
  backend.outage = { status: 409, body: JSON.stringify({ detail: 'Too many sessions.', code: 'session_limit_reached' }) };
  const error = await failure(get());
  expect(error).toMatchObject({ message: 'Too many sessions.', code: 'session_limit_reached', name: 'SessionError' });
});
