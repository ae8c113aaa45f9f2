/**
 * When this tab asks about the session of its own accord: what is due by the
 * clock, and what is due when the page comes back into view.
 *
 * One timer fires at the nearest of all times.  A timer that fires much later
 * than it should has slept with the machine, or the clock was changed: what is
 * known may be wrong by then, and is looked at first.
 */

import type { State } from './state.js';

export interface ScheduleOptions {
  /** Seconds between two requests for the session while the page is visible, 0 for none. */
  refetchInterval: number;
  /** Request the session when the page comes back into view. */
  refetchOnWindowFocus: boolean;
  /** The fraction of the remaining lifetime after which the session is refreshed, 0 for never. */
  refreshAt: number;
}

const MAX_TIMEOUT = 2 ** 31 - 1;
/** What is under way stays due until it is done, and is not looked at more often than this. */
const MIN_TIMEOUT = 250;
/** Timers that are this late have slept. */
const SLEPT = 5_000;
/** How often a visible page looks whether it has slept. */
const HEARTBEAT = 10_000;
/** Do not look again when the last look is younger than this. */
const FRESH = 5_000;
/** The pause after the retries of a request have failed too. */
const PAUSE = 30_000;

const isVisible = (): boolean => !document.hidden;

export type Schedule = ReturnType<typeof createSchedule>;

export const createSchedule = ({ getState, lifeLeft, end }: State, options: ScheduleOptions) => {
  /** Present from start to stop. */
  let duties: readonly [revalidate: () => unknown, refresh: () => unknown] | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  /** The end of life that `refreshBelow` was chosen for. */
  let planned: string | undefined;
  /** The session is refreshed when no more of its life than this is left, in milliseconds. */
  let refreshBelow = -Infinity;
  /** By the local clock: the last look. */
  let checkedAt = 0;
  /** By the local clock: the server has asked for a pause until then. */
  let notBefore = 0;
  /** By the local clock: when a look that has failed is repeated. */
  let retryDue = Infinity;

  /** Choose when to refresh, once for each end of life. */
  const plan = (): void => {
    const { session } = getState();
    const life = [session?.id, session?.expires_at].join();
    if (life === planned) return;
    planned = life;
    retryDue = Infinity;
    // Give or take 10 %, so that tabs do not refresh at the same time.
    const part = options.refreshAt * (0.9 + Math.random() / 5);
    const isExtendable = session?.expires_at !== session?.absolute_expires_at;
    refreshBelow = part && isExtendable ? lifeLeft() * (1 - Math.min(part, 0.99)) : -Infinity;
  };

  /** When to look at the session, as far as that is up to this tab. */
  const lookDue = () => Math.max(Math.min(retryDue, checkedAt + (options.refetchInterval * 1000 || Infinity)), notBefore);

  /** Set the timer by what is known now. */
  const reset = (): void => {
    if (!duties) return;
    clearTimeout(timer);
    plan();
    const local = Date.now();
    const times = [lifeLeft(), lifeLeft() - refreshBelow, MAX_TIMEOUT];
    if (isVisible()) times.push(HEARTBEAT, lookDue() - local);
    const delay = Math.max(Math.min(...times), MIN_TIMEOUT);
    timer = setTimeout(() => {
      const now = Date.now();
      perform(Math.abs(now - local - delay) > SLEPT || now >= lookDue());
    }, delay);
  };

  /** Do what is due. */
  const perform = (isLookDue: boolean): void => {
    const isOver = lifeLeft() <= 0;
    if (isOver) end('expired', undefined, true);
    if (isVisible() && (isLookDue || isOver)) {
      if (Date.now() >= notBefore) duties?.[0]();
    } else if (lifeLeft() <= refreshBelow) duties?.[1]();
    reset();
  };

  /** The page came into view, or the network came back. */
  const wake = (event: Event): void => {
    const age = Date.now() - checkedAt;
    // A page that comes back from the back/forward cache has missed what other tabs have said.
    const isUrgent = event.type === 'online' || (event as PageTransitionEvent).persisted;
    perform(isUrgent || (options.refetchOnWindowFocus && (age < 0 || age > FRESH)));
  };

  return {
    reset,
    /** The server is being asked, or the session is known to be alive. */
    checked() {
      checkedAt = Date.now();
      retryDue = Infinity;
      reset();
    },
    /** Look again after a pause, which the server may have asked for. */
    retry(retryAfter = 0) {
      const local = Date.now();
      retryDue = local + PAUSE;
      notBefore = Math.max(notBefore, local + retryAfter);
    },
    /** Refresh after a pause: that of a failure, or for ever when the refresh of this life is being sent. */
    deferRefresh(pause = PAUSE) {
      refreshBelow = lifeLeft() - Math.max(notBefore - Date.now(), pause);
      retryDue = Infinity;
    },
    /** Begin to do what is due; returns the function that ends it. */
    start(...work: NonNullable<typeof duties>) {
      const listening = new AbortController();
      for (const type of ['visibilitychange', 'focus', 'pageshow', 'online']) {
        window.addEventListener(type, wake, listening);
      }
      duties = work;
      checkedAt = Date.now();
      reset();
      return () => {
        listening.abort();
        clearTimeout(timer);
        duties = undefined;
      };
    },
  };
};
