/**
 * What this tab knows of the session, and what may overwrite it.
 *
 * Invariants:
 * - `status` is `loading` until the server has first answered, and never again.
 * - Only a verdict of the server, or the end of the session's life, makes it
 *   `unauthenticated`; a request that failed does not.
 * - A session that was seen to end, or to be replaced by another, does not come
 *   back: answers to requests that were sent before are dropped, and so is what
 *   other tabs or a cached page still say about it.
 * - Times are compared by the server's clock.
 *
 * The decisions are pure functions; createState() keeps what they decide on.
 */

import { SessionError } from './error.js';
import type { Session, SessionData, SessionStatus } from './types.js';

export interface SessionState {
  data: SessionData | null;
  /** `data.session`. */
  session: Session | null;
  status: SessionStatus;
  /** Why there is no session, or why the session could not be confirmed. */
  error: SessionError | null;
  /** `data.session.device_bound`: a stolen cookie is of no use elsewhere. */
  deviceBound: boolean;
  /** A request is under way in the background. */
  isRefetching: boolean;
  /** The last attempt to confirm `data` failed. */
  isStale: boolean;
}

/** What tabs tell each other. */
export type News = SessionData | { session: null; id: string; kind?: EndKind; reason?: string | undefined };

/** Why a session ended; undefined when it was signed out here. */
export type EndKind = 'expired' | 'revoked' | undefined;

/** What the server answers: the session; or that there is none, and possibly why. */
export type Answer = SessionData | { session: null; error?: SessionError };

const TEXT = {
  expired: 'The session has expired.',
  revoked: 'The session was ended elsewhere.',
};

/** As text, without what changes at every request. */
export const essence = (part: unknown): string =>
  JSON.stringify([part], (key, value: unknown) => (key === 'last_seen_at' ? null : value));

/** When a session ends, by the server's clock. */
const expiresAt = (session: Session | null): number => (session ? Date.parse(session.expires_at) : Infinity);

/**
 * A slow answer, or one of a standby that lags, may know less than we do.  That
 * it is older is not enough: what has been extended may come from a server
 * whose clock is behind.
 *
 * @param asOf server time of the newest answer taken over
 */
export const isOutdated = (known: Session | null, asOf: number, { session, server_time }: SessionData): boolean =>
  known?.id === session.id &&
  (known.version > session.version ||
    (known.version === session.version &&
      Date.parse(server_time) < asOf &&
      expiresAt(session) <= expiresAt(known)));

/** What is known after an answer that is not outdated: what has not changed keeps its identity. */
export const merge = (known: SessionData | null, answer: SessionData): SessionData => {
  if (!known || essence(known.session) !== essence(answer.session)) return answer;
  return essence(known.user) === essence(answer.user) ? known : { ...answer, session: known.session };
};

/**
 * What the news of another tab, or of a page that the server rendered, means
 * for this tab: the session is alive; it has ended; or a session has ended
 * while this tab knows none, so that the answer it waits for is doubtful: it may
 * be about that session, or about one that came after it.
 */
export const meaningOfNews = (
  known: Session | null,
  endedId: string | undefined,
  asOf: number,
  news: News,
): 'alive' | 'ended' | 'doubtful' | undefined => {
  if (news.session) return news.session.id === endedId || Date.parse(news.server_time) < asOf ? undefined : 'alive';
  if (!known) return 'doubtful';
  return known.id === news.id ? 'ended' : undefined;
};

/**
 * Whether an answer without a session is no verdict on the one that is known:
 * it may be about an older cookie than the browser holds when it arrives.
 *
 * @param isInTurn nothing can have replaced the cookie meanwhile
 */
export const isDoubtful = (known: Session | null, isInTurn: boolean): boolean => !!known && !isInTurn;

export type State = ReturnType<typeof createState>;

/**
 * @param isSignedOut the page knows that there is no session
 * @param tell passes news on to the other tabs
 * @param onAlive called when a session is known to be alive
 */
export const createState = (isSignedOut: boolean, tell: (news: News) => void, onAlive: () => void) => {
  let state: SessionState = {
    data: null,
    session: null,
    status: isSignedOut ? 'unauthenticated' : 'loading',
    error: null,
    deviceBound: false,
    isRefetching: false,
    isStale: false,
  };
  const listeners = new Set<() => void>();
  /** The server's clock minus the local one. */
  let offset = 0;
  /** Server time of the newest answer taken over. */
  let asOf = 0;
  /** Answers to requests of an earlier generation are dropped. */
  let generation = 0;
  let endedId: string | undefined;

  const set = (change: Partial<SessionState>): void => {
    const next = { ...state, ...change };
    next.session = next.data?.session ?? null;
    next.deviceBound = !!next.session?.device_bound;
    if ((Object.keys(next) as (keyof SessionState)[]).every((key) => next[key] === state[key])) return;
    state = next;
    listeners.forEach((listener) => {
      listener();
    });
  };

  /** Milliseconds until the session ends. */
  const lifeLeft = (): number => expiresAt(state.session) - offset - Date.now();

  /**
   * Take over an answer of the server.
   *
   * @param isKnown the other tabs have it already
   */
  const accept = (answer: SessionData, isKnown?: boolean): void => {
    const { data, session } = state;
    const time = Date.parse(answer.server_time);
    const isOld = isOutdated(session, asOf, answer);
    const next = isOld ? data : merge(data, answer);
    if (!isOld || time > asOf) {
      asOf = time;
      offset = time - Date.now();
    }
    if (session?.id !== answer.session.id) {
      generation++;
      endedId = session?.id ?? endedId;
    }
    set({ data: next, status: 'authenticated', error: null, isStale: false });
    onAlive();
    if (!isKnown && next !== data) tell(answer);
  };

  /** There is no session (any more). */
  const end = (kind?: EndKind, reason?: string, isKnown?: boolean): void => {
    const { session } = state;
    generation++;
    endedId = session?.id ?? endedId;
    set({
      data: null,
      status: 'unauthenticated',
      error: kind ? new SessionError(kind, TEXT[kind], 401, undefined, 0, reason) : null,
      isStale: false,
    });
    if (!isKnown && session) tell({ session: null, id: session.id, kind, reason });
  };

  return {
    getState: () => state,
    subscribe(listener: () => void) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    set,
    lifeLeft,
    accept,
    end,
    /** Tells later whether an answer to what is asked now is still of interest. */
    watch() {
      const asked = generation;
      return () => asked === generation;
    },
    /** The server knows no session for the browser's newest cookie. */
    verdict(error?: SessionError) {
      const kind = error?.code === 'session_revoked' || lifeLeft() > 0 ? 'revoked' : 'expired';
      if (state.session) end(kind, error?.reason);
      // Why there is none stays known.
      else if (state.error?.status !== 401) end();
    },
    /** A request of our own failed, and may be repeated. */
    fail(failure: SessionError) {
      const { status, error, session } = state;
      const isSame = error?.kind === failure.kind && error.status === failure.status;
      if (status !== 'unauthenticated') set({ error: isSame ? error : failure, isStale: !!session });
    },
    /** Another tab, or a page that the server rendered, says how things are. */
    hear(news: News) {
      const meaning = meaningOfNews(state.session, endedId, asOf, news);
      if (news.session) {
        if (meaning) accept(news, true);
      } else if (meaning === 'ended') end(news.kind, news.reason, true);
      else if (meaning) {
        endedId = news.id;
        if (state.isRefetching) generation++;
      }
      return meaning;
    },
  };
};
