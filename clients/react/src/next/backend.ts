/**
 * Requests to Django on behalf of a browser.  The headers are made here: of
 * the browser's headers, only the session cookie (with that of an actor, in
 * unsafe requests), the proof of its device, why there is none, the user agent
 * and (behind trusted proxies) the address are passed on.
 */

import type { SessionServerConfig } from './config.js';

/** Why the browser has not had its device prove itself. */
const SKIPPED = 'Secure-Session-Skipped';

export class SessionUnavailableError extends Error {
  override name = 'SessionUnavailableError';

  /** @param retryAfter seconds that the backend asked to wait */
  constructor(
    message: string,
    readonly retryAfter = 2,
  ) {
    super(message);
  }
}

export interface BackendRequest {
  method?: string | undefined;
  /** JSON, as text. */
  body?: string | undefined;
  headers?: Record<string, string> | undefined;
}

/** The part of the Cookie header that names the session, or undefined. */
export function sessionCookie(header: string | null, names: string[]): string | undefined {
  // Spaces and tabs alone, as browsers do: with any other white space before it a name has no prefix for them.
  const pairs = (header ?? '').split(';').map((pair) => pair.replace(/^[ \t]+|[ \t]+$/g, ''));
  for (const name of names) {
    const found = pairs.find((pair) => pair.startsWith(name + '='));
    if (found && found.length > name.length + 1) return found;
  }
  return undefined;
}

/** The address that the outermost trusted proxy saw, or undefined. */
export function clientAddress(header: string | null, trustedProxies: number): string | undefined {
  if (trustedProxies === 0) return undefined;
  const address = (header ?? '').split(',').at(-trustedProxies)?.trim();
  return address && /^[0-9a-fA-F.:]+$/.test(address) ? address : undefined;
}

/** Django's CSRF token is a secret sent twice; here both halves come from the server. */
function csrfToken(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/**
 * @param incoming headers of the browser's request
 * @param path below the backend's address, beginning with a slash
 * @throws SessionUnavailableError when there is no answer in time
 */
export async function callBackend(
  incoming: Headers,
  path: string,
  { method = 'GET', body, headers }: BackendRequest,
  config: SessionServerConfig,
): Promise<Response> {
  const url = new URL('.' + path, config.backend);
  if (!path.startsWith('/') || !url.href.startsWith(config.backend.href)) {
    throw new TypeError(`not a path of the backend: ${path}`);
  }

  // The backend may close a kept connection (gunicorn does so after 2 s) just when the next request is sent on it,
  // and a sign-in cannot be repeated without knowing what became of the first attempt.
  const outgoing = new Headers({ Accept: 'application/json', Connection: 'close', ...headers });
  const sent = incoming.get('cookie');
  const cookies = [sessionCookie(sent, config.cookieNames), sessionCookie(sent, config.deviceCookieNames)];
  const skipped = incoming.get(SKIPPED);
  if (skipped) outgoing.set(SKIPPED, skipped);
  // By a link on another site a browser comes without a proof, which then is no sign of a thief.
  const site = incoming.get('sec-fetch-site');
  if (site && method === 'GET') outgoing.set('Sec-Fetch-Site', site);
  const userAgent = incoming.get('user-agent');
  if (userAgent) outgoing.set('User-Agent', userAgent);
  const address = clientAddress(incoming.get('x-forwarded-for'), config.trustedProxies);
  if (address) outgoing.set('X-Forwarded-For', address);
  if (method !== 'GET') {
    // Where the browser's request comes from is checked by whoever calls this.
    const token = csrfToken();
    // Who acts as somebody else has their own session beside it, to return to or to sign out of.
    cookies.push(sessionCookie(sent, config.cookieNames.map((name) => name + '_actor')));
    cookies.push('csrftoken=' + token);
    outgoing.set('X-CSRFToken', token);
    outgoing.set('Referer', config.backend.href);
    outgoing.set('Sec-Fetch-Site', 'same-origin');
  }
  const cookie = cookies.filter(Boolean).join('; ');
  if (cookie) outgoing.set('Cookie', cookie);
  if (body !== undefined) outgoing.set('Content-Type', 'application/json');

  try {
    return await fetch(url, {
      method,
      headers: outgoing,
      body: body ?? null,
      cache: 'no-store',
      redirect: 'manual',
      signal: AbortSignal.timeout(config.timeout),
    });
  } catch {
    throw new SessionUnavailableError('The backend does not answer.');
  }
}

/**
 * The JSON of an answer.
 *
 * @throws SessionUnavailableError when the answer stops in the middle, or is something else
 */
export async function readAnswer(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch {
    throw new SessionUnavailableError('The backend gave an answer that cannot be read.');
  }
}
