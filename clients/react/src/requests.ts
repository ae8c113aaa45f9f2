/**
 * What is asked of the server: by this tab of its own accord (how the session
 * is, and more time for it), and by the application.
 *
 * Invariants:
 * - A refusal may be about an older cookie than the browser holds when it
 *   arrives.  It becomes a verdict on a session that is known when a look at
 *   it, in turn, is refused as well.
 * - What gives the browser another cookie, or takes it away, is done by one tab
 *   at a time: nobody is signed out while a sign-in is under way.
 */

import type { SessionError } from './error.js';
import type { Duties, Schedule } from './schedule.js';
import { meaningOfAnswer, type Answer, type News, type State } from './state.js';
import type { Tabs } from './tabs.js';
import { fetchWithRetries, raceAbort, sleep } from './transport.js';
import type { Session, SessionData, SignOutScope, User } from './types.js';

export interface CreateSessionInput {
  /** The identity provider's access token, which the backend verifies. */
  accessToken: string;
  /** The profile to keep with the session; who the user is comes from the token. */
  user?: Partial<User>;
}

export interface SessionActions {
  /** Sign in with an identity provider's access token. */
  createSession: (input: CreateSessionInput) => Promise<SessionData>;
  /**
   * Change the browser's part of the session data, `client`, by JSON Merge Patch; null removes a member.
   * With `ifVersion` only that version is changed, else status 412.
   */
  update: (patch: Record<string, unknown>, options?: { ifVersion?: number }) => Promise<SessionData>;
  /** Extend the session now, once for all tabs. */
  refresh: () => Promise<void>;
  /** End this session, all others of the user, or all. */
  signOut: (options?: { scope?: SignOutScope }) => Promise<void>;
  /** Act for another tenant; the session's token is replaced. */
  switchTenant: (tenantId: string) => Promise<SessionData>;
  /** Milliseconds until the session ends unless it is refreshed, by the server's clock; 0 without one. */
  timeLeft: () => number;
}

/** How long a tab that has waited for its turn waits for what the tab before it has to tell. */
const NEWS = 500;

/**
 * Whether a refusal may be about an older cookie: it is confirmed, and what was
 * asked is sent once more if the session lives.  What is refused at a sign-in
 * is the access token.
 */
export const mayBeOutdated = (known: Session | null, method: string, path: string, { status }: Pick<SessionError, 'status'>): boolean =>
  status === 401 && !!known && !(method === 'POST' && !path);

export type Requests = ReturnType<typeof createRequests>;

export function createRequests(state: State, schedule: Schedule, tabs: Tabs, options: { readonly basePath: string }) {
  const running: Duties['running'] = {};
  let pending = 0;

  const session = () => state.getState().session;

  const once = (name: keyof Duties['running'], start: () => Promise<void>): Promise<void> =>
    (running[name] ??= start().finally(() => {
      running[name] = undefined;
      schedule.reset();
    }));

  /** Ask the route handlers; the answer, if it is still of interest. */
  async function query(method: string, path = '', signal?: AbortSignal): Promise<Answer | undefined> {
    const isCurrent = state.watch();
    const onFailure = (error: SessionError) => {
      if (isCurrent()) state.fail(error);
    };
    state.set({ isRefetching: ++pending > 0 });
    schedule.checked();
    try {
      const answer = (await fetchWithRetries(options.basePath + path, { method }, onFailure, undefined, signal)) as Answer;
      return isCurrent() ? answer : undefined;
    } catch (e) {
      const error = e as SessionError;
      if (!isCurrent()) return undefined;
      if (error.status === 401) return { session: null, error };
      onFailure(error);
      schedule.retry(error.retryAfter);
      return undefined;
    } finally {
      state.set({ isRefetching: --pending > 0 });
      schedule.reset();
    }
  }

  async function look(signal?: AbortSignal): Promise<void> {
    const answer = await query('GET', '', signal);
    if (!answer) return;
    const meaning = meaningOfAnswer(session(), answer, !!signal);
    if (answer.session) state.accept(answer);
    else if (meaning === 'doubtful') await confirm();
    else state.verdict(answer.error);
  }

  /**
   * There may be no session any more.
   *
   * @param signal of the turn that the caller has
   */
  const confirm = (signal?: AbortSignal): Promise<void> =>
    signal
      ? look(signal)
      : once('confirm', () =>
          tabs.inTurn(async (_, signal) => {
            // What was told to give way is made up for.
            if (signal.aborted) schedule.retry();
            else if (session()) await look(signal);
          }),
        );

  async function refreshInTurn(before: string, waited: boolean, signal: AbortSignal): Promise<void> {
    const isDone = () => session()?.expires_at !== before;
    const isOver = () => isDone() || signal.aborted;
    // On a busy machine the turn may come sooner than the news of what the tab before did with it.
    if (waited && !isOver()) await raceAbort(signal, tabs.nextNews(), sleep(NEWS));
    if (waited && !isOver()) await raceAbort(signal, look(signal));
    // What gave way is still due, and waits for another turn.
    if (isOver()) return;
    schedule.deferRefresh(Infinity);
    const answer = await query('POST', '/refresh', signal);
    if (answer?.session) {
      state.accept(answer);
      return;
    }
    if (answer) await look(signal);
    if (!isDone()) schedule.deferRefresh();
  }

  const revalidate = () => once('revalidate', look);

  function refresh(): Promise<void> {
    const before = session()?.expires_at;
    return before
      ? once('refresh', () => tabs.inTurn((waited, signal) => refreshInTurn(before, waited, signal)))
      : revalidate();
  }

  /** @param signal of the turn that the caller has */
  async function mutate(
    method: string,
    path: string,
    body?: unknown,
    signal?: AbortSignal,
    headers?: Record<string, string>,
  ): Promise<unknown> {
    const isCurrent = state.watch();
    const send = () =>
      fetchWithRetries(
        options.basePath + path,
        { method, headers: { 'Content-Type': 'application/json', ...headers }, body: JSON.stringify(body ?? {}) },
        undefined,
        // A login whose answer was lost would leave a second session behind; a change is not for the next user.
        () => method !== 'POST' && isCurrent(),
        signal,
      );
    try {
      return await send();
    } catch (error) {
      if (!isCurrent() || !mayBeOutdated(session(), method, path, error as SessionError)) throw error;
      await confirm(signal);
      const { isStale, error: shown } = state.getState();
      // A session that lives was refused for an older cookie.
      if (!isCurrent() || isStale) throw shown ?? error;
      return send();
    }
  }

  async function mutateSession(...args: Parameters<typeof mutate>): Promise<SessionData> {
    const isCurrent = state.watch();
    const answer = (await mutate(...args)) as SessionData;
    // A change may be answered when its session has ended; what POST begins is new.
    if (args[0] === 'POST' || isCurrent() || answer.session.id === session()?.id) state.accept(answer);
    return answer;
  }

  /** Another tab, or a page that the server rendered, says how things are. */
  function hear(news: News): void {
    const meaning = state.hear(news);
    // The answer that is dropped is asked for again.
    if (meaning === 'doubtful') void running.revalidate?.then(revalidate);
    schedule.reset();
  }

  const actions: SessionActions = {
    createSession: (input) => tabs.inTurn(() => mutateSession('POST', '', input), true),
    update: (patch, { ifVersion } = {}) =>
      mutateSession('PATCH', '', patch, undefined, ifVersion === undefined ? undefined : { 'If-Match': `"${ifVersion}"` }),
    refresh,
    switchTenant: (tenantId) =>
      tabs.inTurn((_, signal) => mutateSession('POST', '/tenant', { tenant_id: tenantId }, signal), true),
    signOut: ({ scope = 'local' } = {}) =>
      tabs.inTurn(async (_, signal) => {
        await mutate('DELETE', scope === 'local' ? '' : '?scope=' + scope, undefined, signal);
        if (scope !== 'others') state.end();
      }, true),
    timeLeft: () => (session() ? Math.max(state.lifeLeft(), 0) : 0),
  };

  return {
    actions,
    running,
    revalidate,
    refresh,
    hear,
  };
}
