import { headers } from 'next/headers.js';
import { cache } from 'react';
import type { SessionData } from '../types.js';
import { callBackend, readAnswer, sessionCookie, SessionUnavailableError, type BackendRequest } from './backend.js';
import { readConfig, type SessionServerOptions } from './config.js';

/**
 * Call the backend on behalf of the browser that made the request: from server
 * components, server actions and route handlers.
 *
 * @param path below the backend's address, beginning with a slash
 * @throws SessionUnavailableError when there is no answer in time
 */
export async function fetchBackend(
  path: string,
  request: BackendRequest = {},
  options?: SessionServerOptions,
): Promise<Response> {
  return callBackend(await headers(), path, request, readConfig(options));
}

/**
 * The session of the current request, or null.  The backend is asked once per
 * request, however often this is called, and not at all without a cookie.
 *
 * @throws SessionUnavailableError when the backend does not tell whether the
 *   session lives: do not send anybody to the sign-in page then
 */
export const getServerSession = cache(async (options?: SessionServerOptions): Promise<SessionData | null> => {
  const incoming = await headers();
  const config = readConfig(options);
  if (!sessionCookie(incoming.get('cookie'), config.cookieNames)) return null;
  const response = await callBackend(incoming, '/api/sessions/current/', {}, config);
  if (response.status === 401) return null;
  if (!response.ok) {
    throw new SessionUnavailableError(
      `The backend answered ${response.status}.`,
      Number(response.headers.get('Retry-After')) || undefined,
    );
  }
  return (await readAnswer(response)) as SessionData;
});
