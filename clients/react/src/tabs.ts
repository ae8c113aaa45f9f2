/**
 * What the tabs of one origin tell each other, and how they take turns at what
 * one of them may do at a time.
 *
 * Turns are taken by navigator.locks.  Browsers have it in a secure context
 * alone, as they keep Secure cookies there alone; without it, the requests of
 * each tab take turns, and those of other tabs do not wait for them.
 *
 * What is urgent tells all others, in all tabs, to give way: an attempt that
 * is under way is not repeated, and what only waits for its turn is dropped.
 * A tab that was suspended hears nothing and keeps its lock, so that one is
 * stolen after a while.
 */

import type { News } from './state.js';
import { sleep } from './transport.js';

/** How long the turn is kept after the work, so that its result has reached the other tabs. */
const LINGER = 50;
/**
 * How long, at least, a lock is waited for: longer than a tab that is awake keeps
 * an urgent request, or a refresh, waiting.
 */
const URGENT = 12_000;
const PATIENCE = 120_000;

/**
 * @param waited another tab may have had the turn before: look first whether
 *   there is anything left to do
 * @param signal aborted when something urgent waits: try nothing again
 */
export type Work<T> = (waited: boolean, signal: AbortSignal) => Promise<T>;

export const createTabs = (name: string) => {
  /** Present from open to close: outside of that nothing is heard, and nothing said. */
  let channel: BroadcastChannel | undefined;
  let onNextNews: (() => void) | undefined;
  /** The turns that this tab has or waits for. */
  const turns = new Set<AbortController>();
  /** Without navigator.locks: settled when this tab has done what it had to do before. */
  let previous: Promise<unknown> = Promise.resolve();

  const post = (message: News | { hurry: true }) => channel?.postMessage(message);

  const giveWay = (): void => {
    for (const turn of turns) turn.abort();
  };

  const withLock = <T>(locks: LockManager, work: (waited: boolean) => Promise<T>, isUrgent?: boolean): Promise<T> =>
    new Promise((resolve, reject) => {
      // The caller goes on when the work is done; the lock is kept a little longer.
      const run = async (waited: boolean) => {
        const result = work(waited);
        resolve(result);
        await result;
        await sleep(LINGER);
        return true;
      };
      const start = async () => {
        // What is urgent queues at once: whoever has not been told to give way comes after it.
        const runIfFree = (lock: Lock | null) => lock && run(false);
        if (!isUrgent && (await locks.request(name, { ifAvailable: true }, runIfFree))) return;
        // Not all at the same time: the first to give up may need the lock for a while.
        const signal = AbortSignal.timeout((isUrgent ? URGENT : PATIENCE) * (1 + Math.random()));
        try {
          await locks.request(name, { signal }, () => run(true));
        } catch (error) {
          // The work may fail as well, when the time is long over.
          if (error !== signal.reason) throw error;
          await locks.request(name, { steal: true }, () => run(true));
        }
      };
      start().catch(reject);
    });

  return {
    /** Begin to hear what other tabs say; returns the function that ends it. */
    open(onNews: (news: News) => void) {
      if ('BroadcastChannel' in window) {
        channel = new BroadcastChannel(name);
        channel.onmessage = ({ data }: MessageEvent<News | { hurry: true }>) => {
          if ('hurry' in data) giveWay();
          else {
            onNews(data);
            onNextNews?.();
          }
        };
      }
      return () => {
        channel?.close();
        channel = undefined;
      };
    },
    post,
    /** Until another tab has said something, and it has been taken in. */
    nextNews: () =>
      new Promise<void>((resolve) => {
        onNextNews = resolve;
      }),
    /**
     * Run `work` in one tab at a time.
     *
     * @param isUrgent what has the turn or waits for it is told to give way
     */
    inTurn<T>(work: Work<T>, isUrgent?: boolean): Promise<T> {
      if (isUrgent) {
        giveWay();
        post({ hurry: true });
      }
      const turn = new AbortController();
      turns.add(turn);
      const run = (waited: boolean) => work(waited, turn.signal);
      const locks = navigator.locks as LockManager | undefined;
      const result = locks ? withLock(locks, run, isUrgent) : previous.then(() => run(false));
      previous = result.catch(() => undefined);
      return result.finally(() => turns.delete(turn));
    },
  };
};

export type Tabs = ReturnType<typeof createTabs>;
