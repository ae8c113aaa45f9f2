import { headers } from 'next/headers.js';
import { cache } from 'react';
import type { SessionData } from '../types.js';
import { registrationOf } from './device.js';
import { callBackend, readAnswer, sessionCookie, SessionUnavailableError, type BackendRequest } from './backend.js';
import { readConfig, type SessionServerOptions } from './config.js';
import { isOwn } from './origin.js';

/** Another site has made the browser send the request: a CSRF. */
export class ForeignRequestError extends Error {
  override name = 'ForeignRequestError';
}

/**
 * Call the backend on behalf of the browser that made the request: from server
 * components, server actions and route handlers.  What may change something is
 * refused if the request has an Origin, as all but GETs have, of another site.
 *
 * @param path below the backend's address, beginning with a slash
 * @throws SessionUnavailableError when there is no answer in time;
 *   ForeignRequestError, before the backend is asked
 */
export async function fetchBackend(
  path: string,
  request: BackendRequest = {},
  options?: SessionServerOptions,
): Promise<Response> {
  const incoming = await headers();
  const config = readConfig(options);
  if ((request.method ?? 'GET') !== 'GET' && incoming.has('origin') && !isOwn(incoming, config)) {
    throw new ForeignRequestError('The request does not come from a page of this site.');
  }
  return callBackend(incoming, path, request, config);
}

const DEVICE_PROOF_REQUIRED = 'device_proof_required';

/**
 * The session lives, if its device proves itself: what the browser does before
 * it sends a request, unless a link on another site has made it send that.
 */
export class DeviceUnprovedError extends SessionUnavailableError {
  override name = 'DeviceUnprovedError';
  /** What an `error.tsx` gets of it. */
  readonly digest = DEVICE_PROOF_REQUIRED;
}

/**
 * The session of the current request, or null.  The backend is asked once per
 * request, however often this is called, and not at all without a cookie.
 *
 * @throws SessionUnavailableError when the backend does not tell whether the
 *   session lives: do not send anybody to the sign-in page then;
 *   DeviceUnprovedError when the page has to be loaded again
 */
export const getServerSession = cache(async (options?: SessionServerOptions): Promise<SessionData | null> => {
  const incoming = await headers();
  const config = readConfig(options);
  if (!sessionCookie(incoming.get('cookie'), config.cookieNames)) return null;
  const response = await callBackend(incoming, '/api/sessions/current/', {}, config);
  if (response.status === 401) {
    const { code } = (await response.json().catch(() => ({}))) as { code?: unknown };
    if (code === DEVICE_PROOF_REQUIRED) throw new DeviceUnprovedError('The browser has not proved its device yet.', 0);
    // Of a proxy between here and the backend, which knows nothing of sessions.
    if (code === undefined) throw new SessionUnavailableError('The answer 401 is not the backend\'s.');
    return null;
  }
  if (!response.ok) {
    throw new SessionUnavailableError(
      `The backend answered ${response.status}.`,
      Number(response.headers.get('Retry-After')) || undefined,
    );
  }
  const answer = (await readAnswer(response)) as SessionData;
  // No page can have the header, so that the browser has to ask.
  if (!answer.session.device_bound && !registrationOf(response.headers, config)) delete answer.session.device_bound;
  return answer;
});
