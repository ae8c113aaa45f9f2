/** One request to the route handlers: its time limit and its retries. */

import { SessionError, UNPROVED } from './error.js';

const TIMEOUT = 10_000;
const RETRIES = 3;
const FIRST_DELAY = 1_000;
/** A server that asks for a longer pause is asked again later, not now. */
const LONGEST_DELAY = 20_000;

export const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/** Until one of them has settled, or somebody aborts. */
export const raceAbort = (signal: AbortSignal | undefined, ...others: Promise<unknown>[]): Promise<unknown> =>
  Promise.race([
    ...others,
    new Promise((resolve) => {
      signal?.addEventListener('abort', resolve);
    }),
  ]);

/** Retry-After, seconds or a date, as milliseconds from now. */
export const retryAfter = (value: string | null): number => {
  return Math.max(Number(value) * 1000 || Date.parse(value ?? '') - Date.now() || 0, 0);
};

const attempt = async (url: string, init: RequestInit): Promise<unknown> => {
  try {
    const response = await fetch(url, {
      cache: 'no-store',
      redirect: 'error',
      signal: AbortSignal.timeout(TIMEOUT),
      ...init,
    });
    // A proxy's page in place of an answer is a fault of the server.
    const body = (await response.json().catch(() => undefined)) as Record<string, string> | undefined;
    if (response.ok && (body ?? response.status === 204)) return body;
    throw new SessionError(
      'server',
      body?.['detail'] ?? `The server answered ${response.status}.`,
      response.status,
      body?.['code'],
      retryAfter(response.headers.get('Retry-After')),
      body?.['reason'],
    );
  } catch (error) {
    throw error instanceof SessionError ? error : new SessionError('network', 'The server cannot be reached.');
  }
};

/**
 * Send a request and return the body of the answer, undefined when it has none.
 *
 * Without an answer, and on 408, 429 and 5xx, up to three more attempts are
 * made, after 1, 2 and 4 s give or take a quarter, or what Retry-After says; one
 * when the device had to prove itself first.
 * No attempt is wasted while the browser knows that it is offline.
 *
 * @param onRetry called with the error of an attempt that will be repeated
 * @param mayRetry asked before the pause and after it
 * @param signal ends the pause when it is aborted, and the request unless an
 *   attempt is under way
 * @throws SessionError of kind `network` or `server`
 */
export const fetchWithRetries = async <T>(
  url: string,
  init: RequestInit,
  onRetry?: (error: SessionError) => void,
  mayRetry: () => boolean = () => true,
  signal?: AbortSignal,
): Promise<T> => {
  const goesOn = () => mayRetry() && !signal?.aborted;
  for (let n = 0; ; n++) {
    try {
      return (await attempt(url, init)) as T;
    } catch (e) {
      const error = e as SessionError;
      const { status, code } = error;
      const again = code === UNPROVED ? !n : !status || status >= 500 || status === 408 || status === 429;
      if (!again || n >= RETRIES || !goesOn() || error.retryAfter > LONGEST_DELAY || !navigator.onLine) throw error;
      onRetry?.(error);
      const pause = Math.max(error.retryAfter, FIRST_DELAY * 2 ** n * (0.75 + Math.random() / 2));
      await raceAbort(signal, sleep(pause));
      if (!goesOn()) throw error;
    }
  }
};
