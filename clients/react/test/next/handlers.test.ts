import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { createServerSession, sessionHandlers, type SessionServerOptions } from '../../src/next/index.js';
import { Django } from './django.js';

const django = new Django();
const TOKEN = 'sm1_' + 'a'.repeat(64);
const COOKIE = `session_token=${TOKEN}`;
const SESSION = { session: { id: 's' }, user: { id: 'u' }, server_time: '2026-03-01T12:00:00Z' };
const ID = '0192f0c4-0000-7000-8000-00000000abcd';

beforeAll(() => django.listen());
afterAll(() => django.close());
beforeEach(() => {
  django.seen = [];
  django.answers(200, SESSION);
});

interface Call extends SessionServerOptions {
  headers?: Record<string, string>;
  body?: unknown;
}

/** Send what a page of https://app.test would send, unless told otherwise. */
async function call(method: string, path = '', { headers, body, ...options }: Call = {}): Promise<Response> {
  const handlers = sessionHandlers({ backendUrl: django.url, ...options });
  const segments = path.split('?')[0]!.split('/').filter(Boolean);
  const request = new Request(`http://internal:3000/api/session${path}`, {
    method,
    headers: {
      host: 'app.test',
      'sec-fetch-site': 'same-origin',
      cookie: COOKIE,
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    body: body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body),
  });
  const params = Promise.resolve(segments.length ? { path: segments } : {});
  return handlers[method as 'GET'](request, { params });
}

describe('routes', () => {
  it.each([
    ['GET', '', undefined, 'GET', '/api/sessions/current/', ''],
    ['POST', '', { accessToken: 'a.b.c', user: { name: 'Ada' } }, 'POST', '/api/sessions/create/', '{"user":{"name":"Ada"}}'],
    ['PATCH', '', { theme: 'dark' }, 'PATCH', '/api/sessions/current/', '{"theme":"dark"}'],
    ['DELETE', '', undefined, 'DELETE', '/api/sessions/current/', ''],
    ['DELETE', '?scope=local', undefined, 'DELETE', '/api/sessions/current/', ''],
    ['DELETE', '?scope=others', undefined, 'POST', '/api/sessions/invalidate-all/', '{"except_current":true}'],
    ['DELETE', '?scope=global', undefined, 'POST', '/api/sessions/invalidate-all/', '{"except_current":false}'],
    ['POST', '/refresh', {}, 'POST', '/api/sessions/refresh/', ''],
    ['POST', '/tenant', { tenant_id: 'acme' }, 'POST', '/api/sessions/tenant/', '{"tenant_id":"acme"}'],
    ['POST', '', { accessToken: 'a.b.c', remember: false }, 'POST', '/api/sessions/create/', '{"remember":false}'],
    ['DELETE', '/impersonation', undefined, 'DELETE', '/api/sessions/impersonation/', ''],
    ['GET', '/devices', undefined, 'GET', '/api/sessions/', ''],
    ['GET', `/devices?after=${ID}`, undefined, 'GET', `/api/sessions/?after=${ID}`, ''],
    ['DELETE', `/devices/${ID}`, undefined, 'DELETE', `/api/sessions/${ID}/`, ''],
  ])('%s /api/session%s', async (method, path, body, sentMethod, sentPath, sentBody) => {
    const response = await call(method, path, { body });
    expect(response.status).toBe(200);
    expect(django.seen).toMatchObject([{ method: sentMethod, path: sentPath, body: sentBody }]);
  });

  it.each([
    ['GET', '/refresh', 404],
    ['GET', '/impersonation', 404],
    ['POST', '/unknown', 404],
    ['GET', '/devices/x', 404],
    ['DELETE', '/devices/..%2Fcreate', 404],
    ['DELETE', '/devices/1', 404],
    ['DELETE', `/devices/${ID}/x`, 404],
    ['DELETE', '?scope=universe', 400],
    ['GET', '/devices?after=1%26limit=2', 400],
  ])('%s /api/session%s is refused here', async (method, path, status) => {
    const response = await call(method, path);
    expect(response.status).toBe(status);
    expect(django.seen).toEqual([]);
  });
});

describe('what the browser gets', () => {
  it('is not cached anywhere', async () => {
    for (const response of [await call('GET'), await call('GET', '', { headers: { cookie: '' } }), await call('GET', '/x')]) {
      expect(response.headers.get('cache-control')).toBe('private, no-store');
      expect(response.headers.get('vary')).toBe('Cookie');
      expect(response.headers.get('x-content-type-options')).toBe('nosniff');
    }
  });

  it('is every Set-Cookie, and few other headers', async () => {
    django.answers(200, SESSION, {
      'Set-Cookie': ['session_token=new; Path=/; HttpOnly; SameSite=Lax', 'csrftoken=x; Path=/'],
      ETag: '"3"',
      'X-Powered-By': 'django',
      'Access-Control-Allow-Origin': '*',
      'Cache-Control': 'public, max-age=600',
      'Content-Security-Policy': 'none',
    });
    const response = await call('POST', '/refresh');
    expect(response.headers.getSetCookie()).toEqual([
      'session_token=new; Path=/; HttpOnly; SameSite=Lax',
      'csrftoken=x; Path=/',
    ]);
    const names = [...new Set([...response.headers.keys()])].sort();
    expect(names).toEqual([
      'cache-control',
      'content-type',
      'cross-origin-resource-policy',
      'etag',
      'set-cookie',
      'vary',
      'x-content-type-options',
    ]);
    expect(response.headers.get('cache-control')).toBe('private, no-store');
  });

  it('is no page of the backend', async () => {
    django.answers(500, '<html>Traceback: SECRET_KEY</html>', { 'Content-Type': 'text/html' });
    const response = await call('GET');
    expect(response.status).toBe(500);
    expect(await response.text()).toBe('{"detail":"The backend cannot answer.","code":"backend_error"}');

    django.answers(200, '<script>alert(1)</script>', { 'Content-Type': 'text/html' });
    expect((await call('GET')).status).toBe(502);
  });

  it('is no redirect of the backend', async () => {
    django.answers(301, {}, { Location: 'https://evil.example/' });
    const response = await call('GET');
    expect(response.status).toBe(502);
    expect(response.headers.get('location')).toBe(null);
    expect(django.seen).toHaveLength(1);
  });

  it('is the verdict, and why', async () => {
    const body = { detail: 'ended', code: 'session_revoked', reason: 'password_changed' };
    django.answers(401, body, { 'WWW-Authenticate': 'Session realm="api"' });
    const response = await call('GET');
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toBe('Session realm="api"');
    expect(await response.json()).toEqual(body);
  });

  describe('is no cookie taken away', () => {
    const cleared = [
      'session_token=; Max-Age=0; Path=/',
      'session_token=""; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/',
      '__Host-session_token=x; max-age=-1; Path=/; Secure',
      'session_token=deleted; Path=/; expires=Thu, 01 Jan 1970 00:00:00 GMT',
    ];
    const others = ['csrftoken=; Max-Age=0', 'session_token=new; Path=/; Max-Age=3600', 'session_token_x=; Max-Age=0'];

    it.each([
      ['GET', '', 401],
      ['GET', '', 200],
      ['PATCH', '', 401],
      ['POST', '/refresh', 401],
      ['POST', '/tenant', 401],
      ['POST', '', 401],
      ['GET', '/devices', 401],
      ['DELETE', '', 401],
      ['DELETE', '?scope=global', 503],
      ['DELETE', `/devices/${ID}`, 401],
    ])('by the answer to %s /api/session%s, %i', async (method, path, status) => {
      django.answers(status, SESSION, { 'Set-Cookie': [...cleared, ...others] });
      const body = { accessToken: 'a.b.c' };
      const response = await call(method, path, method === 'GET' || method === 'DELETE' ? {} : { body });
      expect(response.status).toBe(status);
      expect(response.headers.getSetCookie()).toEqual(others);
    });

    it.each(['', '?scope=local', '?scope=global', `/devices/${ID}`])('but by a sign-out: DELETE /api/session%s', async (path) => {
      django.answers(204, undefined, { 'Set-Cookie': cleared });
      expect((await call('DELETE', path)).headers.getSetCookie()).toEqual(cleared);
    });
  });

  it('is 204 without a body', async () => {
    django.answers(204);
    const response = await call('DELETE');
    expect(response.status).toBe(204);
    expect(await response.text()).toBe('');
  });

  it('is no session, without a question to the backend, when there is no cookie', async () => {
    for (const cookie of ['', 'theme=dark', 'session_token=', 'xsession_token=a', 'my_session_token=a']) {
      const response = await call('GET', '', { headers: { cookie } });
      expect(await response.json()).toEqual({ session: null });
    }
    expect(django.seen).toEqual([]);
  });
});

describe('a backend that does not answer', () => {
  it('is 503 after the time limit, and the cookie is kept', async () => {
    django.reply = () => undefined;
    const limit = vi.spyOn(AbortSignal, 'timeout');
    onTestFinished(() => {
      limit.mockRestore();
    });
    // (the answer would never come)
    const response = await call('GET', '', { timeout: 200 });
    expect(limit.mock.calls).toEqual([[200]]);
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after')).toBe('2');
    expect(response.headers.getSetCookie()).toEqual([]);
    expect(await response.json()).toMatchObject({ code: 'backend_unavailable' });
  });

  it('is 503 when it hangs up, or is not there', async () => {
    django.reply = (response) => response.destroy();
    expect((await call('GET')).status).toBe(503);
    expect((await call('GET', '', { backendUrl: 'http://127.0.0.1:1' })).status).toBe(503);
  });

  it('is 503 when it stops in the middle of an answer', async () => {
    django.reply = (response) => {
      response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': '100' });
      response.write('{"session":');
      setTimeout(() => response.destroy(), 20);
    };
    expect((await call('GET')).status).toBe(503);
  });

  it('passes its own 503 and Retry-After on', async () => {
    django.answers(503, { detail: 'later', code: 'unavailable' }, { 'Retry-After': '7' });
    const response = await call('GET');
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after')).toBe('7');
  });
});

describe('what reaches the backend', () => {
  it('is nothing of the browser but the cookie of the session and the user agent', async () => {
    await call('POST', '/refresh', {
      headers: {
        cookie: `a=1; ${COOKIE}; csrftoken=evil; sessionid=other`,
        'user-agent': 'Firefox',
        'x-forwarded-for': '6.6.6.6',
        'x-real-ip': '6.6.6.6',
        forwarded: 'for=6.6.6.6',
        'x-forwarded-host': 'evil.example',
        'x-forwarded-proto': 'https',
        authorization: 'Bearer stolen',
        'x-middleware-subrequest': 'middleware',
        'remote-user': 'admin',
      },
    });
    const { headers } = django.seen[0]!;
    expect(headers.cookie).toMatch(/^session_token=sm1_a{64}; csrftoken=[0-9a-f]{32}$/);
    expect(headers['user-agent']).toBe('Firefox');
    expect(headers['x-csrftoken']).toBe(headers.cookie!.split('csrftoken=')[1]);
    expect(headers.host).toBe(new URL(django.url).host);
    for (const name of ['x-forwarded-for', 'x-real-ip', 'forwarded', 'x-forwarded-host', 'x-forwarded-proto', 'authorization', 'x-middleware-subrequest', 'remote-user', 'origin']) {
      expect(headers[name], name).toBeUndefined();
    }
  });

  it.each([
    [0, '203.0.113.7', undefined],
    [1, '203.0.113.7', '203.0.113.7'],
    [1, '6.6.6.6, 203.0.113.7', '203.0.113.7'],
    [2, '6.6.6.6, 203.0.113.7, 10.0.0.1', '203.0.113.7'],
    [1, '2001:db8::1', '2001:db8::1'],
    [3, '203.0.113.7', undefined],
    [1, 'evil"><script>', undefined],
    [1, '', undefined],
  ])('with %i trusted proxies and %j is the address %s', async (trustedProxies, header, address) => {
    await call('GET', '', { trustedProxies, headers: { 'x-forwarded-for': header } });
    expect(django.seen[0]!.headers['x-forwarded-for']).toBe(address);
  });

  it('is the __Host- cookie rather than one that a neighbour may have set', async () => {
    await call('GET', '', { headers: { cookie: `session_token=planted; __Host-session_token=${TOKEN}` } });
    expect(django.seen[0]!.headers.cookie).toBe(`__Host-session_token=${TOKEN}`);
  });

  it('is the cookie of who acts as somebody else, where it may be needed', async () => {
    const actor = `__Host-session_token_actor=${TOKEN}`;
    const headers = { cookie: `session_token_actor=planted; ${actor}; ${COOKIE}` };
    await call('GET', '', { headers });
    await call('DELETE', '/impersonation', { headers });
    expect(django.seen[0]!.headers.cookie).toBe(COOKIE);
    expect(django.seen[1]!.headers.cookie).toMatch(new RegExp(`^${COOKIE}; ${actor}; csrftoken=`));
  });

  it('is the cookie of the name that was chosen', async () => {
    await call('GET', '', { cookieName: 'sid', headers: { cookie: `${COOKIE}; sid=x` } });
    expect(django.seen[0]!.headers.cookie).toBe('sid=x');
  });

  it('comes on a connection of its own, which cannot have been closed meanwhile', async () => {
    const before = django.connections;
    for (let n = 0; n < 5; n++) expect((await call('POST', '/refresh')).status).toBe(200);
    expect(django.connections - before).toBe(5);
    expect(django.seen[0]!.headers.connection).toBe('close');
  });

  it('is If-Match', async () => {
    await call('PATCH', '', { body: {}, headers: { 'if-match': '"4"' } });
    expect(django.seen[0]!.headers['if-match']).toBe('"4"');
  });

  it('is the access token as a bearer token', async () => {
    django.answers(201, SESSION, { 'Set-Cookie': `${COOKIE}; HttpOnly` });
    const response = await call('POST', '', { body: { accessToken: 'a.b-c_d' } });
    expect(response.status).toBe(201);
    expect(django.seen[0]!.headers.authorization).toBe('Bearer a.b-c_d');
    expect(await response.text()).not.toContain(TOKEN);
  });
});

describe('bodies', () => {
  it.each([
    ['a string', '"x"', 400],
    ['a list', '[]', 400],
    ['null', 'null', 400],
    ['no JSON', '{', 400],
    ['nothing', '', 400],
    ['too much', JSON.stringify({ x: 'y'.repeat(131_072) }), 413],
  ])('%s is refused', async (_, body, status) => {
    expect((await call('PATCH', '', { body })).status).toBe(status);
    expect(django.seen).toEqual([]);
  });

  it.each(['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', 'text/plain; application/json'])(
    'of type %s are refused',
    async (type) => {
      expect((await call('PATCH', '', { body: {}, headers: { 'content-type': type } })).status).toBe(415);
      expect(django.seen).toEqual([]);
    },
  );

  it.each([undefined, 7, '', 'a b', 'a\nb', { $ne: '' }])('with the access token %j are refused', async (accessToken) => {
    expect((await call('POST', '', { body: { accessToken } })).status).toBe(400);
    expect(django.seen).toEqual([]);
  });
});

describe('requests that another site made the browser send', () => {
  const own = 'https://app.test';
  it.each([
    ['same-origin', own, {}, true],
    ['same-origin', undefined, {}, true],
    ['same-site', 'https://sub.app.test', {}, false],
    ['cross-site', 'https://evil.example', {}, false],
    ['cross-site', own, {}, false],
    ['none', undefined, {}, false],
    [undefined, own, {}, true],
    [undefined, 'https://evil.example', {}, false],
    [undefined, 'https://app.test.evil.example', {}, false],
    [undefined, 'https://app.test:444', {}, false],
    [undefined, 'null', {}, false],
    [undefined, undefined, {}, false],
    ['cross-site', 'https://admin.test', { allowedOrigins: ['https://admin.test'] }, true],
    [undefined, 'https://outer.test', { trustedProxies: 1 }, true],
    [undefined, 'https://outer.test', {}, false],
  ])('Sec-Fetch-Site %s, Origin %s, %j: taken %s', async (site, origin, options, taken) => {
    const headers: Record<string, string> = { 'x-forwarded-host': 'outer.test' };
    for (const [method, path, body] of [['POST', '/refresh'], ['DELETE', ''], ['PATCH', '', {}], ['POST', '', { accessToken: 'a' }]] as const) {
      django.seen = [];
      const handlers = sessionHandlers({ backendUrl: django.url, ...options });
      const request = new Request('http://internal/api/session' + path, {
        method,
        headers: {
          host: 'app.test',
          cookie: COOKIE,
          'content-type': 'application/json',
          ...headers,
          ...(site && { 'sec-fetch-site': site }),
          ...(origin && { origin }),
        },
        body: body ? JSON.stringify(body) : null,
      });
      const params = Promise.resolve(path ? { path: [path.slice(1)] } : {});
      const response = await handlers[method](request, { params });
      expect(response.status).toBe(taken ? 200 : 403);
      expect(django.seen).toHaveLength(taken ? 1 : 0);
    }
  });

  it('may read nothing: no CORS header is sent', async () => {
    const response = await call('GET', '', { headers: { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' } });
    expect(response.headers.get('access-control-allow-origin')).toBe(null);
    expect(response.headers.get('cross-origin-resource-policy')).toBe('same-origin');
  });
});

describe('the device that a session is bound to', () => {
  const BINDING = '0192f0c4-0000-7000-8000-00000000beef';
  const REGISTRATION = '(ES256 RS256);path="/api/sessions/device/register/";challenge="sc1_x"';
  const INSTRUCTIONS = {
    session_identifier: BINDING,
    refresh_url: '/api/sessions/device/refresh/',
    scope: { origin: 'http://backend:8000', include_site: false, scope_specification: [] },
    credentials: [{ type: 'cookie', name: 'session_proof', attributes: 'Path=/; HttpOnly' }],
  };
  const CHALLENGE = `"sc1_y";id="${BINDING}"`;

  it.each(['register', 'refresh'])('asks Django to %s it', async (name) => {
    django.answers(200, INSTRUCTIONS, {
      'Set-Cookie': ['session_proof=sp1_x; Path=/; HttpOnly; Max-Age=300', 'session_token=new; Path=/'],
      'Secure-Session-Challenge': CHALLENGE,
    });
    const response = await call('POST', `/device/${name}`, {
      headers: {
        // What Chromium sends: nothing of a page's, and no body.
        origin: 'https://app.test',
        'sec-fetch-mode': 'no-cors',
        'secure-session-response': 'eyJ.eyJ.x',
        'sec-secure-session-id': BINDING,
        cookie: `${COOKIE}; session_proof=sp1_old; other=x`,
      },
    });
    expect(django.seen).toMatchObject([
      {
        method: 'POST',
        path: `/api/sessions/device/${name}/`,
        headers: {
          'secure-session-response': 'eyJ.eyJ.x',
          'sec-secure-session-id': BINDING,
          cookie: expect.stringMatching(`^${COOKIE}; session_proof=sp1_old; csrftoken=[0-9a-f]+$`) as unknown,
        },
      },
    ]);
    expect(response.status).toBe(200);
    expect(response.headers.get('secure-session-challenge')).toBe(CHALLENGE);
    expect(response.headers.getSetCookie()).toHaveLength(2);
    expect(await response.json()).toEqual({
      ...INSTRUCTIONS,
      refresh_url: '/api/session/device/refresh',
      scope: { ...INSTRUCTIONS.scope, origin: 'https://app.test' },
    });
  });

  it('is asked nothing from a page', async () => {
    for (const [method, path] of [['GET', '/device/refresh'], ['POST', '/device'], ['POST', '/device/x'], ['POST', '/device/refresh/x']] as const) {
      expect((await call(method, path)).status).toBe(404);
    }
    expect(django.seen).toEqual([]);
  });

  it('may answer without saying where the request comes from: it signs what it sends', async () => {
    const request = new Request('http://internal/api/session/device/refresh', { method: 'POST' });
    const params = Promise.resolve({ path: ['device', 'refresh'] });
    const response = await sessionHandlers({ backendUrl: django.url }).POST(request, { params });
    expect(response.status).toBe(200);
  });

  it('gets the challenge', async () => {
    django.answers(403, { detail: 'sign', code: 'device_challenge' }, { 'Secure-Session-Challenge': CHALLENGE });
    const response = await call('POST', '/device/refresh');
    expect(response.status).toBe(403);
    expect(response.headers.get('secure-session-challenge')).toBe(CHALLENGE);
  });

  it('gets the end of the binding as it is, and keeps the session cookie', async () => {
    const end = { session_identifier: BINDING, continue: false };
    django.answers(200, end, { 'Set-Cookie': ['session_proof=; Max-Age=0; Path=/', 'session_token=; Max-Age=0; Path=/'] });
    const response = await call('POST', '/device/refresh');
    expect(await response.json()).toEqual(end);
    expect(response.headers.getSetCookie()).toEqual(['session_proof=; Max-Age=0; Path=/']);
  });

  it.each([
    [429, 503],
    [500, 500],
    [503, 503],
  ])('keeps its binding when Django answers %i', async (status, passed) => {
    django.answers(status, { detail: 'later' }, { 'Retry-After': '7' });
    const response = await call('POST', '/device/refresh');
    expect(response.status).toBe(passed);
    expect(response.headers.get('retry-after')).toBe('7');
  });

  it('keeps its binding when Django is away', async () => {
    const response = await call('POST', '/device/refresh', { backendUrl: 'http://127.0.0.1:1' });
    expect(response.status).toBe(503);
  });

  it.each([
    [{}, '/api/session'],
    [{ basePath: '/app/auth/' }, '/app/auth'],
  ])('is asked to bind the session, by any answer: %j', async (options, base) => {
    django.answers(200, SESSION, { 'Secure-Session-Registration': REGISTRATION });
    const wanted = `(ES256 RS256);path="${base}/device/register";challenge="sc1_x"`;
    for (const [method, path] of [['GET', ''], ['POST', '/refresh']] as const) {
      const response = await call(method, path, options);
      expect(response.headers.get('secure-session-registration')).toBe(wanted);
    }
    const request = new Request('http://internal/auth/callback');
    const response = await createServerSession(request, { accessToken: 'a.b.c' }, { backendUrl: django.url, ...options });
    expect(response.headers.get('secure-session-registration')).toBe(wanted);
  });

  it.each([
    ['(ES256);path="/a";challenge="b"', '(ES256);path="/x";challenge="b"'],
    ['(ES256) ; path="/a"', '(ES256) ; path="/x"'],
    ['(ES256);challenge="; path=\\"/a\\"";path="/a"', '(ES256);challenge="; path=\\"/a\\"";path="/x"'],
    ['(ES256);xpath="/a";path2="/b";path="/c"', '(ES256);xpath="/a";path2="/b";path="/x"'],
    ['(ES256);path="/a", (RS256);path="/b"', '(ES256);path="/x", (RS256);path="/x"'],
    ['(ES256);path=token;challenge="path"', '(ES256);path=token;challenge="path"'],
    ['(ES256);path="/a', null],
    ['(ES256);challenge="a\\b";path="/a"', null],
  ])('is asked in a header that is read, not searched: %s', async (given, passed) => {
    django.answers(200, SESSION, { 'Secure-Session-Registration': given });
    const response = await call('GET', '', { basePath: '/y' });
    expect(response.headers.get('secure-session-registration')).toBe(passed?.replaceAll('/x', '/y/device/register') ?? null);
  });

  it('says why it has not proved itself, and proves itself by its cookie, wherever the session cookie goes', async () => {
    const skipped = `quota_exceeded;session_identifier="${BINDING}"`;
    for (const [name, options] of [
      ['session_proof', {}],
      ['__Host-session_proof', {}],
      ['proof', { deviceCookieName: 'proof' }],
    ] as const) {
      django.seen = [];
      const cookie = `${name}=sp1_x; ${COOKIE}`;
      await call('GET', '', { ...options, headers: { cookie, 'secure-session-skipped': skipped } });
      expect(django.seen[0]!.headers).toMatchObject({ cookie: `${COOKIE}; ${name}=sp1_x`, 'secure-session-skipped': skipped });
    }
  });
});

describe('createServerSession', () => {
  const request = new Request('http://internal/auth/callback', { headers: { cookie: COOKIE, 'user-agent': 'Firefox' } });

  it('gives the cookies of the new session', async () => {
    django.answers(201, SESSION, { 'Set-Cookie': 'session_token=new; HttpOnly' });
    const response = await createServerSession(request, { accessToken: 'a.b.c' }, { backendUrl: django.url });
    expect(response.status).toBe(201);
    expect(response.headers.getSetCookie()).toEqual(['session_token=new; HttpOnly']);
    expect(django.seen[0]).toMatchObject({
      path: '/api/sessions/create/',
      headers: { authorization: 'Bearer a.b.c', 'user-agent': 'Firefox' },
    });
  });

  it('is 503 when the backend is away', async () => {
    const response = await createServerSession(request, { accessToken: 'a' }, { backendUrl: 'http://127.0.0.1:1' });
    expect(response.status).toBe(503);
  });
});

describe('without SESSION_TRUSTED_PROXIES', () => {
  const SAID = Symbol.for('session_manager: no client addresses');
  const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);

  beforeEach(() => {
    (globalThis as Record<symbol, unknown>)[SAID] = false;
    warn.mockClear();
    vi.stubEnv('NODE_ENV', 'production');
    vi.stubEnv('NEXT_PHASE', undefined);
    vi.stubEnv('SESSION_TRUSTED_PROXIES', undefined);
    onTestFinished(() => void vi.unstubAllEnvs());
  });

  it('says so once, as soon as the routes are loaded', async () => {
    sessionHandlers({ backendUrl: django.url });
    expect(warn).toHaveBeenCalledTimes(1);
    expect(warn.mock.calls[0]![0]).toMatch(/SESSION_TRUSTED_PROXIES is not set.*TRUSTED_PROXIES to 1 in Django/);
    await call('GET');
    await call('GET');
    expect(warn).toHaveBeenCalledTimes(1);
  });

  it('says so where no route is loaded', async () => {
    await createServerSession(new Request('https://app.test/'), { accessToken: 'a' }, { backendUrl: django.url });
    expect(warn).toHaveBeenCalledTimes(1);
  });

  it.each([
    ['it is set', { SESSION_TRUSTED_PROXIES: '1' }, {}],
    ['it is 0', { SESSION_TRUSTED_PROXIES: '0' }, {}],
    ['the option is given', {}, { trustedProxies: 0 }],
    ['it is being built', { NEXT_PHASE: 'phase-production-build' }, {}],
    ['it is no production', { NODE_ENV: 'development' }, {}],
  ])('says nothing where %s', async (_, env, options) => {
    for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
    await call('GET', '', options);
    expect(warn).not.toHaveBeenCalled();
  });
});

describe('options', () => {
  it.each([undefined, '', 'ftp://x', 'localhost:8000'])('backendUrl %j is refused', async (backendUrl) => {
    await expect(call('GET', '', { backendUrl })).rejects.toThrow('SESSION_BACKEND_URL');
  });

  it('trustedProxies must be a number', async () => {
    await expect(call('GET', '', { trustedProxies: NaN })).rejects.toThrow('trustedProxies');
  });

  it.each([0, -1, NaN])('timeout %d is refused', async (timeout) => {
    await expect(call('GET', '', { timeout })).rejects.toThrow('timeout');
  });

  it('backendUrl may have a path', async () => {
    await call('GET', '', { backendUrl: django.url + '/django/' });
    expect(django.seen[0]!.path).toBe('/django/api/sessions/current/');
  });
});
