/**
 * The session as this tab knows it: one state, the requests that change it,
 * and the timers that keep it true.  Knows nothing of React.
 *
 * Invariants:
 * - `status` is `loading` until the first verdict and never again.
 * - Only a verdict of the server, or the end of the session's life, makes it
 *   `unauthenticated`; a request that failed does not.
 * - A refusal may be about an older cookie than the browser holds when it arrives.
 *   It becomes a verdict on a session that is known when a look at it, in turn,
 *   is refused as well.
 * - A session that was seen to end, or to be replaced by another, does not come
 *   back: answers to requests that were sent before are dropped, and so is what
 *   other tabs or a cached page still say about it.
 * - What gives the browser another cookie, or takes it away, is done by one tab
 *   at a time: nobody is signed out while a sign-in is under way.
 * - Times are compared by the server's clock.
 */

import { SessionError } from './error.js';
import { aborted, fetchWithRetries, sleep } from './transport.js';
import { openTabs, type Tabs, type Work } from './tabs.js';
import type { Session, SessionData, SessionStatus, SignOutScope, User } from './types.js';

export interface SessionState {
  data: SessionData | null;
  /** That of `data`. */
  session: Session | null;
  status: SessionStatus;
  /** Why there is no session, or why what there is could not be confirmed. */
  error: SessionError | null;
  /** A request is under way in the background. */
  isRefetching: boolean;
  /** The last attempt to confirm `data` failed. */
  isStale: boolean;
}

export interface StoreOptions {
  /** Where the route handlers are. */
  basePath: string;
  /** Seconds between looks at the session while the page is visible, 0 for none. */
  refetchInterval: number;
  /** Look at the session when the page comes back into view. */
  refetchOnWindowFocus: boolean;
  /** The part of the remaining life after which the session is refreshed, 0 for never. */
  refreshAt: number;
}

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

export interface SessionStore extends SessionActions {
  getState(): SessionState;
  getServerState(): SessionState;
  subscribe: (listener: () => void) => () => void;
  configure(options: StoreOptions): void;
  /** Take over what the server rendered later on. */
  hydrate(session: SessionData | null | undefined): void;
  /** Start timers and listeners; returns the function that stops them. */
  start(): () => void;
}

/** Why a session ended; undefined when it was signed out here. */
type EndKind = 'expired' | 'revoked' | undefined;

/** What tabs tell each other. */
type News = SessionData | { session: null; id: string; kind: EndKind; reason: string | undefined };

/** What the server says of the session; that there is none, perhaps with why. */
type Answer = SessionData | { session: null; error?: SessionError };

const MAX_TIMEOUT = 2 ** 31 - 1;
/** Timers that are this late have slept. */
const SLEPT = 5_000;
/** How often a visible page looks whether it has slept. */
const HEARTBEAT = 10_000;
/** Do not look again when the last look is younger than this. */
const FRESH = 5_000;
/** The pause after the retries of a request have failed too. */
const PAUSE = 30_000;
/** How long a tab that has waited for its turn waits for what the tab before it has to tell. */
const NEWS = 500;
const JITTER = 0.1;

const TEXT = {
  expired: 'The session has expired.',
  revoked: 'The session was ended elsewhere.',
};

/** As text, without what changes at every request. */
const essence = (...parts: unknown[]): string =>
  JSON.stringify(parts, (key, value: unknown) => (key === 'last_seen_at' ? null : value));

const isVisible = (): boolean => document.visibilityState !== 'hidden';

export function createSessionStore(options: StoreOptions, initial?: SessionData | null): SessionStore {
  let state: SessionState = {
    data: initial ?? null,
    session: initial?.session ?? null,
    status: initial ? 'authenticated' : initial === null ? 'unauthenticated' : 'loading',
    error: null,
    isRefetching: false,
    isStale: false,
  };
  const serverState = state;
  const listeners = new Set<() => void>();

  let tabs: Tabs<News> | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  /** When the timer should fire, by the local clock. */
  let due = 0;
  /** The server's clock minus the local one. */
  let offset = 0;
  /** Server time of the newest answer taken over. */
  let asOf = 0;
  /** Answers to requests of an earlier generation are dropped. */
  let generation = 0;
  let endedId: string | undefined;
  let onNextNews: (() => void) | undefined;
  /** Which end of life `refreshDue` belongs to. */
  let planned: string | undefined;
  /** By the server's clock. */
  let refreshDue = Infinity;
  /** By the local clock: the last look, and when the next may and must be. */
  let checkedAt = 0;
  let notBefore = 0;
  let retryDue = Infinity;
  let pending = 0;
  let fetching: Promise<void> | undefined;
  let confirming: Promise<void> | undefined;
  let refreshing: Promise<void> | undefined;

  const now = () => Date.now() + offset;
  const expires = () => (state.data ? Date.parse(state.data.session.expires_at) : Infinity);

  function set(patch: Partial<SessionState>): void {
    const next = { ...state, ...patch };
    next.session = next.data?.session ?? null;
    if ((Object.keys(next) as (keyof SessionState)[]).every((key) => Object.is(next[key], state[key]))) return;
    state = next;
    listeners.forEach((listener) => {
      listener();
    });
  }

  /** Take over an answer, of the server or of another tab. */
  function accept(answer: SessionData, tell = true): void {
    const known = state.data?.session;
    const { id, version, expires_at } = answer.session;
    const time = Date.parse(answer.server_time);
    // A slow answer, or one of a standby that lags, knows less than we do.  That it is older is not enough: what
    // has been extended may come from a server whose clock is behind.
    const isOlder =
      known?.id === id &&
      (known.version > version || (known.version === version && time < asOf && Date.parse(expires_at) <= expires()));
    const isSame = known && essence(known) === essence(answer.session);
    const changed = !isOlder && !(isSame && essence(state.data?.user) === essence(answer.user));
    checkedAt = Date.now();
    if (!isOlder || time > asOf) {
      asOf = time;
      offset = asOf - checkedAt;
    }
    if (known?.id !== id) {
      generation++;
      endedId = known?.id ?? endedId;
    }
    // What has not changed keeps its identity.
    const data = isSame ? { ...answer, session: known } : answer;
    set({ data: changed ? data : state.data, status: 'authenticated', error: null, isStale: false });
    plan();
    if (tell && changed) tabs?.post(answer);
  }

  /** Choose when to refresh, once for each end of life. */
  function plan(): void {
    const session = state.data?.session;
    const end = session && session.id + session.expires_at;
    if (end === planned) return;
    planned = end;
    const part = options.refreshAt * (1 - JITTER + Math.random() * 2 * JITTER);
    refreshDue =
      session && part && session.expires_at !== session.absolute_expires_at
        ? now() + (expires() - now()) * Math.min(part, 0.99)
        : Infinity;
  }

  /** There is no session (any more). */
  function end(kind?: EndKind, reason?: string, tell = true): void {
    generation++;
    endedId = state.data?.session.id ?? endedId;
    retryDue = Infinity;
    if (tell && state.data) tabs?.post({ session: null, id: state.data.session.id, kind, reason });
    set({
      data: null,
      status: 'unauthenticated',
      error: kind ? new SessionError(kind, TEXT[kind], 401, undefined, 0, reason) : null,
      isStale: false,
    });
    plan();
  }

  /** The server knows no session for our cookie. */
  function verdict(error?: SessionError): void {
    const wasEnded = error?.code === 'session_revoked' || now() < expires();
    if (state.data) end(wasEnded ? 'revoked' : 'expired', error?.reason);
    else if (state.error?.status !== 401) end();
  }

  /** A request of our own failed, and may be repeated. */
  function failed(error: SessionError): void {
    if (state.status === 'unauthenticated') return;
    const { kind, status } = error;
    const known = state.error?.kind === kind && state.error.status === status;
    set({ error: known ? state.error : error, isStale: !!state.data });
  }

  /** Ask the route handlers, and answer whether it is still of interest. */
  async function ask(method: string, path = '', signal?: AbortSignal): Promise<Answer | undefined> {
    const asked = generation;
    const isCurrent = () => asked === generation;
    set({ isRefetching: ++pending > 0 });
    checkedAt = Date.now();
    retryDue = Infinity;
    try {
      const onRetry = (error: SessionError) => {
        if (isCurrent()) failed(error);
      };
      const answer = (await fetchWithRetries(options.basePath + path, { method }, onRetry, undefined, signal)) as Answer;
      return isCurrent() ? answer : undefined;
    } catch (e) {
      const error = e as SessionError;
      if (isCurrent()) {
        if (error.status === 401) return { session: null, error };
        failed(error);
        notBefore = Date.now() + error.retryAfter;
        retryDue = Date.now() + Math.max(PAUSE, error.retryAfter);
      }
      return undefined;
    } finally {
      set({ isRefetching: --pending > 0 });
      schedule();
    }
  }

  /** Look at the session, in turn: the browser holds the newest cookie, and what is said of it is a verdict. */
  async function lookInTurn(signal: AbortSignal): Promise<void> {
    const answer = await ask('GET', '', signal);
    if (answer?.session) accept(answer);
    else if (answer) verdict(answer.error);
  }

  /** There may be no session any more; with a signal the caller has the turn. */
  async function confirm(signal?: AbortSignal): Promise<void> {
    if (signal) return lookInTurn(signal);
    return (confirming ??= inTurn(async (_, signal) => {
      // What was told to give way is made up for.
      if (signal.aborted) retryDue = Date.now() + PAUSE;
      else if (state.data) await lookInTurn(signal);
    }, false).finally(() => {
      confirming = undefined;
      schedule();
    }));
  }

  /** Look at the session, once at a time. */
  function look(): Promise<void> {
    return (fetching ??= ask('GET')
      .then((answer) => {
        if (answer?.session) accept(answer);
        else if (answer && state.data) return confirm();
        else if (answer) verdict();
        return undefined;
      })
      .finally(() => {
        fetching = undefined;
        schedule();
      }));
  }

  async function refreshInTurn(waited: boolean, signal: AbortSignal, before: string): Promise<void> {
    const isDone = () => state.data?.session.expires_at !== before;
    const isOver = () => isDone() || signal.aborted;
    // On a busy machine the turn may come sooner than the news of what the tab before did with it.
    if (waited && !isOver()) await Promise.race([nextNews(), sleep(NEWS), aborted(signal)]);
    if (waited && !isOver()) await Promise.race([lookInTurn(signal), aborted(signal)]);
    // What gave way is still due, and waits for another turn.
    if (isOver()) return;
    refreshDue = Infinity;
    const answer = await ask('POST', '/refresh', signal);
    if (answer?.session) accept(answer);
    else if (answer) await lookInTurn(signal);
    if (!answer?.session && !isDone()) {
      refreshDue = Math.max(retryDue < Infinity ? retryDue : 0, Date.now() + PAUSE) + offset;
      retryDue = Infinity;
    }
  }

  function refresh(): Promise<void> {
    const before = state.data?.session.expires_at;
    if (!tabs || !before) return look();
    return (refreshing ??= tabs
      .inTurn((waited, signal) => refreshInTurn(waited, signal, before))
      .finally(() => {
        refreshing = undefined;
        schedule();
      }));
  }

  /**
   * A request that the application asked for: its failure is the caller's.
   *
   * @param signal of the turn that the caller has
   */
  async function act(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
    signal?: AbortSignal,
  ): Promise<unknown> {
    const asked = generation;
    const isCurrent = () => asked === generation;
    for (let isFirst = true; ; isFirst = false) {
      try {
        return await fetchWithRetries(
          options.basePath + path,
          { method, headers: { 'Content-Type': 'application/json', ...headers }, body: JSON.stringify(body ?? {}) },
          undefined,
          // A login whose answer was lost would leave a second session behind; a change is not for the next user.
          () => method !== 'POST' && isCurrent(),
          signal,
        );
      } catch (e) {
        const error = e as SessionError;
        // What is refused at a sign-in is the access token.
        const isSignIn = method === 'POST' && !path;
        if (error.status !== 401 || isSignIn || !isFirst || !isCurrent() || !state.data) throw error;
        await confirm(signal);
        // A session that lives was refused for an older cookie.
        if (!isCurrent() || state.isStale) throw state.error ?? error;
      }
    }
  }

  async function actAndAccept(...args: Parameters<typeof act>): Promise<SessionData> {
    const asked = generation;
    const answer = (await act(...args)) as SessionData;
    // A change may be answered when its session has ended; what POST begins is new.
    if (args[0] === 'POST' || asked === generation || answer.session.id === state.data?.session.id) accept(answer);
    schedule();
    return answer;
  }

  /** What the user wants does not wait for retries. */
  const inTurn = <T>(work: Work<T>, isUrgent = true): Promise<T> =>
    tabs ? tabs.inTurn(work, isUrgent) : work(false, new AbortController().signal);

  const nextNews = () =>
    new Promise<void>((resolve) => {
      onNextNews = resolve;
    });

  function onNews(news: News): void {
    if (news.session) hydrate(news);
    else if (state.data?.session.id === news.id) end(news.kind, news.reason, false);
    else if (!state.data) {
      endedId = news.id;
      // What is being answered may be about that one, or about one that came after it.
      if (fetching) {
        generation++;
        void fetching.then(look);
      }
    }
    onNextNews?.();
    schedule();
  }

  function hydrate(session: SessionData | null | undefined): void {
    if (session) {
      if (session.session.id !== endedId && Date.parse(session.server_time) >= asOf) accept(session, false);
    } else if (session === null && state.data) void look();
  }

  /** Do what is due. */
  function tick(): void {
    const local = Date.now();
    const slept = Math.abs(local - due) > SLEPT;
    const expired = now() >= expires();
    if (expired) end('expired', undefined, false);
    const interval = options.refetchInterval * 1000;
    if (isVisible() && (slept || expired || local >= retryDue || (interval && local >= checkedAt + interval))) {
      if (local >= notBefore) void look();
    } else if (now() >= refreshDue) void refresh();
    schedule();
  }

  function schedule(): void {
    if (!tabs) return;
    clearTimeout(timer);
    const local = Date.now();
    const at = [expires() - offset, refreshing ? Infinity : refreshDue - offset];
    if (isVisible()) {
      at.push(local + HEARTBEAT);
      if (!fetching) {
        at.push(Math.max(retryDue, notBefore));
        if (options.refetchInterval) at.push(Math.max(checkedAt + options.refetchInterval * 1000, notBefore));
      }
    }
    const delay = Math.min(Math.max(Math.min(...at) - local, 0), MAX_TIMEOUT);
    due = local + delay;
    timer = setTimeout(tick, delay);
  }

  /** The page came into view, or the network came back. */
  function wake(event: Event): void {
    if (!isVisible()) return;
    const local = Date.now();
    // A page that comes back from the back/forward cache has missed what other tabs have said.
    const urgent = event.type === 'online' || (event as PageTransitionEvent).persisted;
    if (
      (urgent || options.refetchOnWindowFocus || now() >= expires()) &&
      (urgent || local - checkedAt > FRESH || local < checkedAt) &&
      local >= notBefore
    ) {
      if (now() >= expires()) end('expired', undefined, false);
      void look();
    }
    schedule();
  }

  return {
    getState: () => state,
    getServerState: () => serverState,
    subscribe(listener) {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
    configure(next) {
      options = next;
      schedule();
    },
    hydrate,
    start() {
      const stops: (() => void)[] = [];
      const listen = (target: EventTarget, type: string) => {
        target.addEventListener(type, wake);
        stops.push(() => {
          target.removeEventListener(type, wake);
        });
      };
      tabs = openTabs<News>('session_manager ' + options.basePath, onNews);
      listen(document, 'visibilitychange');
      listen(window, 'focus');
      listen(window, 'pageshow');
      listen(window, 'online');
      checkedAt = Date.now();
      if (state.data && !planned) accept(state.data, false);
      if (state.status === 'loading') void look();
      schedule();
      return () => {
        stops.forEach((stop) => {
          stop();
        });
        clearTimeout(timer);
        tabs?.close();
        tabs = undefined;
      };
    },
    refresh,
    timeLeft: () => (state.data ? Math.max(expires() - now(), 0) : 0),
    createSession: (input) => inTurn(() => actAndAccept('POST', '', input)),
    update: (patch, { ifVersion } = {}) =>
      actAndAccept('PATCH', '', patch, ifVersion === undefined ? undefined : { 'If-Match': `"${ifVersion}"` }),
    switchTenant: (tenantId) =>
      inTurn((_, signal) => actAndAccept('POST', '/tenant', { tenant_id: tenantId }, undefined, signal)),
    signOut: ({ scope = 'local' } = {}) =>
      inTurn(async (_, signal) => {
        await act('DELETE', scope === 'local' ? '' : '?scope=' + scope, undefined, undefined, signal);
        if (scope !== 'others') end();
      }),
  };
}
