/**
 * What the tabs of one origin tell each other, and how one of them is chosen
 * to do what needs doing once.
 *
 * A tab is chosen by navigator.locks.  Where that is missing (it needs a secure
 * context) the tabs draw numbers over the channel: the lowest wins, and whoever
 * is at work answers every number with one that beats it.  Those who lose draw
 * again when there is news, or later: a tab that is gone answers no more.
 */

import { sleep } from './request.js';

/** How long a tab waits for lower numbers, and how long until it draws again. */
const DRAW = 100;
const REDRAW = 1_000;
/** How long the turn is kept after the work, so that its result has reached the other tabs. */
const LINGER = 50;

export interface Tabs<Message> {
  post(message: Message): void;
  /**
   * Run `work` in one tab at a time.
   *
   * @param work gets true when another tab had the turn before it, and should
   *   first look whether there is anything left to do
   */
  inTurn<T>(work: (waited: boolean) => Promise<T>): Promise<T>;
  close(): void;
}

interface Draw {
  draw: number;
}

export function openTabs<Message extends object>(name: string, onMessage: (message: Message) => void): Tabs<Message> {
  const channel = typeof BroadcastChannel === 'undefined' ? undefined : new BroadcastChannel(name);
  /** The number drawn; -1 while at work. */
  let mine: number | undefined;
  let lost = false;
  let onNews: (() => void) | undefined;
  /** Settled when this tab has done what it had to do before. */
  let before: Promise<unknown> = Promise.resolve();

  if (channel) {
    channel.onmessage = ({ data }: MessageEvent<Message | Draw>) => {
      if (!('draw' in data)) {
        onMessage(data);
        onNews?.();
      } else if (mine !== undefined) {
        if (data.draw < mine) lost = true;
        else channel.postMessage({ draw: mine });
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
        channel?.postMessage({ draw: mine });
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

  function locked<T>(locks: LockManager, work: (waited: boolean) => Promise<T>): Promise<T> {
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
      locks
        .request(name, { ifAvailable: true }, async (lock: Lock | null) => {
          if (lock) await run(false);
          return lock !== null;
        })
        .then(async (had) => {
          if (!(await had)) await locks.request(name, () => run(true));
        })
        .catch(reject);
    });
  }

  return {
    post: (message) => channel?.postMessage(message),
    inTurn: (work) => {
      const locks = navigator.locks as LockManager | undefined;
      if (locks) return locked(locks, work);
      const result = before.then(() => drawn(work));
      before = result.catch(() => undefined);
      return result;
    },
    close: () => channel?.close(),
  };
}
