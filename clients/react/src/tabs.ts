/**
 * What the tabs of one origin tell each other, and how one of them is chosen
 * to do what needs doing once.
 *
 * A tab is chosen by navigator.locks.  Where that is missing (it needs a secure
 * context) the tabs draw numbers over the channel: the lowest wins, and whoever
 * is at work answers every number with one that beats it.  Those who lose draw
 * again when there is news, or later: a tab that is gone answers no more.
 *
 * What is urgent tells all others, in all tabs, to give way: an attempt that
 * is under way is not repeated, and what only waits for its turn is dropped.
 * A tab that was suspended hears nothing and keeps its lock, so that one is
 * stolen after a while.
 */

import { sleep } from './transport.js';

/** How long a tab waits for lower numbers, and how long until it draws again. */
const DRAW = 100;
const REDRAW = 1_000;
/** How long the turn is kept after the work, so that its result has reached the other tabs. */
const LINGER = 50;
/** How long, at least, a lock is waited for: longer than a tab that is awake keeps what is urgent, or a refresh, waiting. */
const URGENT = 12_000;
const PATIENCE = 120_000;

/** @param signal aborted when something urgent waits: try nothing again */
export type Work<T> = (waited: boolean, signal: AbortSignal) => Promise<T>;

export interface Tabs<Message> {
  post(message: Message): void;
  /**
   * Run `work` in one tab at a time.
   *
   * @param work gets true when another tab had the turn before it, and should
   *   first look whether there is anything left to do
   * @param isUrgent what has the turn or waits for it is told to give way
   */
  inTurn<T>(work: Work<T>, isUrgent?: boolean): Promise<T>;
  close(): void;
}

type Sign = { draw: number } | { hurry: true };

export function openTabs<Message extends object>(name: string, onMessage: (message: Message) => void): Tabs<Message> {
  let channel = typeof BroadcastChannel === 'undefined' ? undefined : new BroadcastChannel(name);
  /** The turns that this tab has or waits for. */
  const turns = new Set<AbortController>();
  /** The number drawn; -1 while at work. */
  let mine: number | undefined;
  let lost = false;
  let onNews: (() => void) | undefined;
  /** Settled when this tab has done what it had to do before. */
  let before: Promise<unknown> = Promise.resolve();

  const post = (message: Message | Sign) => channel?.postMessage(message);

  function hurry(): void {
    turns.forEach((turn) => {
      turn.abort();
    });
  }

  if (channel) {
    channel.onmessage = ({ data }: MessageEvent<Message | Sign>) => {
      if ('hurry' in data) hurry();
      else if (!('draw' in data)) {
        onMessage(data);
        onNews?.();
      } else if (mine !== undefined) {
        if (data.draw < mine) lost = true;
        else post({ draw: mine });
      }
    };
  }

  // (read through a function, as it changes while drawn() sleeps)
  const hasLost = () => lost;

  async function drawn<T>(work: (waited: boolean) => Promise<T>): Promise<T> {
    let waited = false;
    try {
      for (;;) {
        mine = Math.random();
        lost = false;
        post({ draw: mine });
        await sleep(DRAW);
        if (!hasLost()) break;
        waited = true;
        mine = undefined;
        await Promise.race([
          new Promise<void>((resolve) => {
            onNews = resolve;
          }),
          sleep(REDRAW),
        ]);
      }
      mine = -1;
      return await work(waited);
    } finally {
      mine = onNews = undefined;
    }
  }

  function locked<T>(locks: LockManager, work: (waited: boolean) => Promise<T>, isUrgent = false): Promise<T> {
    return new Promise((resolve, reject) => {
      // The caller goes on when the work is done; the lock is kept a little longer.
      const run = async (waited: boolean) => {
        const result = work(waited);
        resolve(result);
        await result.then(
          () => sleep(LINGER),
          () => undefined,
        );
      };
      const runIfFree = async () =>
        await locks.request(name, { ifAvailable: true }, async (lock: Lock | null) => {
          if (lock) await run(false);
          return lock !== null;
        });
      const queue = async () => {
        const limit = new AbortController();
        const giveUp = () => {
          limit.abort();
        };
        // Not all at the same time: the first to give up may need the lock for a while.
        const timer = setTimeout(giveUp, (isUrgent ? URGENT : PATIENCE) * (1 + Math.random()));
        try {
          await locks.request(name, { signal: limit.signal }, () => {
            clearTimeout(timer);
            return run(true);
          });
        } catch (error) {
          if (!limit.signal.aborted) throw error;
          await locks.request(name, { steal: true }, () => run(true));
        }
      };
      const start = async () => {
        // What is urgent queues at once: whoever has not been told to give way comes after it.
        if (isUrgent || !(await runIfFree())) await queue();
      };
      start().catch(reject);
    });
  }

  return {
    post,
    async inTurn(work, isUrgent) {
      if (isUrgent) {
        hurry();
        post({ hurry: true });
      }
      const turn = new AbortController();
      turns.add(turn);
      const run = (waited: boolean) => work(waited, turn.signal);
      const locks = navigator.locks as LockManager | undefined;
      try {
        if (locks) return await locked(locks, run, isUrgent);
        const result = before.then(() => drawn(run));
        before = result.catch(() => undefined);
        return await result;
      } finally {
        turns.delete(turn);
      }
    },
    close() {
      channel?.close();
      channel = undefined;
    },
  };
}
