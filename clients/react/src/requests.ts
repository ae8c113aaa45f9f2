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

import { UNPROVED, type SessionError } from './error.js';
import type { Schedule } from './schedule.js';
import { isDoubtful, type Answer, type News, type State } from './state.js';
import type { Tabs } from './tabs.js';
import { fetchWithRetries, raceAbort, sleep } from './transport.js';
import type { Session, SessionData, SignOutScope, User } from './types.js';

export interface CreateSessionInput {
  /** The identity provider's access token, which the backend verifies. */
  accessToken: string;
  /** The profile to keep with the session; who the user is comes from the token. */
  user?: Partial<User>;
  /** Whether the user stays signed in when the browser is closed; by default as long as the session lives. */
  remember?: boolean;
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
export const mayBeOutdated = (known: Session | null, method: string, path: string, status: number): boolean =>
  status === 401 && !!known && !(method === 'POST' && !path);

export type Requests = ReturnType<typeof createRequests>;

export const createRequests = (
  state: State,
  schedule: Schedule,
  tabs: Tabs,
  options: { readonly basePath: string },
) => {
  const running: Partial<Record<'revalidate' | 'confirm' | 'refresh', Promise<void> | undefined>> = {};
  let pending = 0;

  const session = () => state.getState().session;

  const once = (name: keyof typeof running, start: () => Promise<void>): Promise<void> =>
    (running[name] ??= start().finally(() => {
      running[name] = undefined;
      schedule.reset();
    }));

  /** Ask the route handlers; the answer, if it is still of interest. */
  const query = async (method: string, path: string, signal?: AbortSignal): Promise<Answer | undefined> => {
    const isCurrent = state.watch();
    const onFailure = (error: SessionError) => {
      if (isCurrent()) state.fail(error);
    };
    state.set({ isRefetching: ++pending > 0 });
    schedule.checked();
    try {
      const answer = await fetchWithRetries<Answer>(options.basePath + path, { method }, onFailure, undefined, signal);
      return isCurrent() ? answer : undefined;
    } catch (e) {
      const error = e as SessionError;
      if (isCurrent()) {
        if (error.status === 401 && error.code !== UNPROVED) return { session: null, error };
        state.fail(error);
        schedule.retry(error.retryAfter);
      }
      return undefined;
    } finally {
      state.set({ isRefetching: --pending > 0 });
      schedule.reset();
    }
  };

  const fetchSession = async (signal?: AbortSignal): Promise<void> => {
    const answer = await query('GET', '', signal);
    if (!answer) return;
    if (answer.session) state.accept(answer);
    else if (isDoubtful(session(), !!signal)) await confirm();
    else state.verdict(answer.error);
  };

  /**
   * There may be no session any more.
   *
   * @param signal of the turn that the caller has
   */
  const confirm = (signal?: AbortSignal): Promise<void> =>
    signal
      ? fetchSession(signal)
      : once('confirm', () =>
          tabs.inTurn(async (_, signal) => {
            // What was told to give way is made up for.
            if (signal.aborted) schedule.retry();
            else if (session()) await fetchSession(signal);
          }),
        );

  const revalidate = () => once('revalidate', fetchSession);

  const refresh = (): Promise<void> => {
    const before = session()?.expires_at;
    if (!before) return revalidate();
    const isDone = () => session()?.expires_at !== before;
    return once('refresh', () =>
      tabs.inTurn(async (waited, signal) => {
        const isOver = () => isDone() || signal.aborted;
        // On a busy machine the turn may come sooner than the news of what the tab before did with it.
        if (waited && !isOver()) await raceAbort(signal, tabs.nextNews(), sleep(NEWS));
        if (waited && !isOver()) await raceAbort(signal, fetchSession(signal));
        // What gave way is still due, and waits for another turn.
        if (isOver()) return;
        schedule.deferRefresh(Infinity);
        const answer = await query('POST', '/refresh', signal);
        if (answer?.session) state.accept(answer);
        else {
          if (answer) await fetchSession(signal);
          if (!isDone()) schedule.deferRefresh();
        }
      }),
    );
  };

  /** @param signal of the turn that the caller has */
  const mutate = async <T = SessionData>(
    method: string,
    path: string,
    body?: unknown,
    signal?: AbortSignal,
    headers?: Record<string, string> | false,
  ): Promise<T> => {
    const isCurrent = state.watch();
    const send = () =>
      fetchWithRetries<Answer | undefined>(
        options.basePath + path,
        { method, headers: { 'Content-Type': 'application/json', ...headers }, body: JSON.stringify(body ?? {}) },
        undefined,
        // A login whose answer was lost would leave a second session behind; a change is not for the next user.
        () => method !== 'POST' && isCurrent(),
        signal,
      );
    let answer: Answer | undefined;
    try {
      answer = await send();
    } catch (error) {
      if (!isCurrent() || !mayBeOutdated(session(), method, path, (error as SessionError).status)) throw error;
      await confirm(signal);
      const shown = state.getState();
      // A session that lives was refused for an older cookie.
      if (!isCurrent() || shown.isStale) throw shown.error ?? error;
      answer = await send();
    }
    // A change may be answered when its session has ended; what POST begins is new.
    if (answer?.session && (method === 'POST' || isCurrent() || answer.session.id === session()?.id)) {
      state.accept(answer);
    }
    return answer as T;
  };

  const actions: SessionActions = {
    createSession: (input) => tabs.inTurn(() => mutate('POST', '', input), true),
    update: (patch, { ifVersion } = {}) =>
      mutate('PATCH', '', patch, undefined, ifVersion !== undefined && { 'If-Match': `"${ifVersion}"` }),
    refresh,
    switchTenant: (tenantId) =>
      tabs.inTurn((_, signal) => mutate('POST', '/tenant', { tenant_id: tenantId }, signal), true),
    signOut: ({ scope = 'local' } = {}) =>
      tabs.inTurn(async (_, signal) => {
        await mutate<unknown>('DELETE', scope === 'local' ? '' : '?scope=' + scope, undefined, signal);
        if (scope !== 'others') state.end();
      }, true),
    timeLeft: () => (session() ? Math.max(state.lifeLeft(), 0) : 0),
  };

  return {
    actions,
    revalidate,
    hear: (news: News) => {
      // The answer that is dropped is asked for again.
      if (state.hear(news) === 'doubtful') void running.revalidate?.then(revalidate);
      schedule.reset();
    },
  };
};
