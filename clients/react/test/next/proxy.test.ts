import { NextRequest } from 'next/server.js';
import { describe, expect, it } from 'vitest';
import { sessionMiddleware, sessionProxy } from '../../src/next/index.js';

const proxy = sessionProxy({ protect: ['/account', '/invoices/'] });

function open(path: string, { cookie = '', method = 'GET' } = {}) {
  const response = proxy(new NextRequest('https://app.test' + path, { method, headers: { cookie } }));
  return { status: response.status, to: response.headers.get('location'), headers: response.headers };
}

describe('sessionProxy', () => {
  it.each([
    ['/account', '/account'],
    ['/account/devices?sort=ip&x=%26', '/account/devices?sort=ip&x=%26'],
    ['/account?_rsc=abc', '/account'],
    ['/%61ccount', '/%61ccount'],
    ['/invoices/7', '/invoices/7'],
  ])('sends %s to the sign-in page', (path, returnTo) => {
    const { status, to, headers } = open(path);
    expect(status).toBe(307);
    const url = new URL(to!);
    expect(url.origin + url.pathname).toBe('https://app.test/login');
    expect(url.searchParams.get('returnTo')).toBe(returnTo);
    expect(headers.get('cache-control')).toBe('no-store');
  });

  it.each(['/', '/accounts', '/login', '/%E0%A4%A', '/about?x=/account'])('lets %s pass', (path) => {
    expect(open(path).to).toBe(null);
  });

  it.each(['session_token=x', '__Host-session_token=x', 'a=b; session_token=x'])('lets those with %s pass', (cookie) => {
    expect(open('/account', { cookie }).to).toBe(null);
  });

  it.each(['session_token=', 'other=x', 'xsession_token=x'])('does not take %s for a session', (cookie) => {
    expect(open('/account', { cookie }).status).toBe(307);
  });

  it('is there under its name for Next.js 15', () => {
    expect(sessionMiddleware).toBe(sessionProxy);
  });

  it('does not pass on what was posted', () => {
    expect(open('/account', { method: 'POST' }).status).toBe(303);
  });
});
