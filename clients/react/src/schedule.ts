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
  /** Seconds between looks at the session while the page is visible, 0 for none. */
  refetchInterval: number;
  /** Look at the session when the page comes back into view. */
  refetchOnWindowFocus: boolean;
  /** The part of the remaining life after which the session is refreshed, 0 for never. */
  refreshAt: number;
}

export type Duty = 'revalidate' | 'refresh';

export interface Duties extends Record<Duty, () => Promise<void>> {
  /** What is under way, once at a time. */
  readonly running: Partial<Record<Duty | 'confirm', Promise<void> | undefined>>;
}

const MAX_TIMEOUT = 2 ** 31 - 1;
/** Timers that are this late have slept. */
const SLEPT = 5_000;
/** How often a visible page looks whether it has slept. */
const HEARTBEAT = 10_000;
/** Do not look again when the last look is younger than this. */
const FRESH = 5_000;
/** The pause after the retries of a request have failed too. */
const PAUSE = 30_000;
const JITTER = 0.1;

const isVisible = (): boolean => document.visibilityState !== 'hidden';

export type Schedule = ReturnType<typeof createSchedule>;

export function createSchedule({ getState, lifeLeft, end }: State, options: ScheduleOptions) {
  let duties: Duties | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  /** The end of life that `refreshBelow` was chosen for. */
  let planned: string | undefined;
  /** The session is refreshed when no more of its life than this is left, in milliseconds. */
  let refreshBelow = -Infinity;
  /** By the local clock: the last look, and when the next may and must be. */
  let checkedAt = 0;
  let notBefore = 0;
  let retryDue = Infinity;

  /** Choose when to refresh, once for each end of life. */
  function plan(): void {
    const { session } = getState();
    const life = [session?.id, session?.expires_at].join();
    if (life === planned) return;
    planned = life;
    retryDue = Infinity;
    const part = options.refreshAt * (1 - JITTER + Math.random() * 2 * JITTER);
    refreshBelow =
      part && session?.expires_at !== session?.absolute_expires_at ? lifeLeft() * (1 - Math.min(part, 0.99)) : -Infinity;
  }

  /** When to look at the session, as far as that is up to this tab. */
  const lookDue = () => Math.min(retryDue, checkedAt + (options.refetchInterval * 1000 || Infinity));

  /** Set the timer by what is known now. */
  function reset(): void {
    if (!duties) return;
    clearTimeout(timer);
    plan();
    const local = Date.now();
    const { running } = duties;
    const times = [lifeLeft(), running.refresh ? Infinity : lifeLeft() - refreshBelow, MAX_TIMEOUT];
    if (isVisible()) times.push(HEARTBEAT, running.revalidate ? Infinity : Math.max(lookDue(), notBefore) - local);
    const delay = Math.max(Math.min(...times), 0);
    timer = setTimeout(() => {
      const late = Date.now() - local - delay;
      perform(isVisible() && (Math.abs(late) > SLEPT || Date.now() >= lookDue()), true);
    }, delay);
  }

  /** Do what is due. */
  function perform(isLookDue: boolean, isTimer?: boolean): void {
    const isOver = lifeLeft() <= 0;
    if (isOver) end('expired', undefined, false);
    if (isLookDue || (isOver && isVisible())) {
      if (Date.now() >= notBefore) void duties?.revalidate();
    } else if (isTimer && lifeLeft() <= refreshBelow) void duties?.refresh();
    reset();
  }

  /** The page came into view, or the network came back. */
  function wake(event: Event): void {
    const age = Date.now() - checkedAt;
    // A page that comes back from the back/forward cache has missed what other tabs have said.
    const isUrgent = event.type === 'online' || (event as PageTransitionEvent).persisted;
    if (isVisible()) perform(isUrgent || (options.refetchOnWindowFocus && (age < 0 || age > FRESH)));
  }

  return {
    reset,
    /** The session is being looked at, or has been. */
    checked() {
      checkedAt = Date.now();
      retryDue = Infinity;
      reset();
    },
    /** Look again after a pause. */
    retry(retryAfter?: number) {
      const local = Date.now();
      retryDue = local + PAUSE;
      if (retryAfter !== undefined) notBefore = local + retryAfter;
    },
    /** The refresh of this life is being sent; or it has come to nothing, and is sent again after a pause. */
    deferRefresh(pause = PAUSE) {
      refreshBelow = lifeLeft() - Math.max(notBefore - Date.now(), pause);
      retryDue = Infinity;
    },
    /** Begin to do what is due; returns the function that ends it. */
    start(work: Duties) {
      const listening = new AbortController();
      document.addEventListener('visibilitychange', wake, listening);
      for (const type of ['focus', 'pageshow', 'online']) window.addEventListener(type, wake, listening);
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
}
