/**
 * What jsdom lacks: BroadcastChannel and navigator.locks that work within one
 * process, so that several stores stand for several tabs, and switches for
 * visibility and the network.
 */

import { vi } from 'vitest';

type Listener = (event: { data: unknown }) => void;

const channels = new Set<FakeChannel>();

export class FakeChannel {
  onmessage: Listener | null = null;

  constructor(readonly name: string) {
    channels.add(this);
  }

  postMessage(message: unknown): void {
    if (!channels.has(this)) throw new DOMException('closed', 'InvalidStateError');
    const data: unknown = structuredClone(message);
    for (const other of channels) {
      if (other !== this && other.name === this.name) {
        queueMicrotask(() => {
          if (channels.has(other)) other.onmessage?.({ data: structuredClone(data) });
        });
      }
    }
  }

  close(): void {
    channels.delete(this);
  }
}

type Work = (lock: { name: string } | null) => unknown;

interface Options {
  ifAvailable?: boolean;
  signal?: AbortSignal;
  steal?: boolean;
}

/** Exclusive locks, granted in the order of the requests; one can be stolen. */
export class FakeLocks {
  private held = new Map<string, () => void>();
  private queues = new Map<string, (() => void)[]>();

  request(name: string, ...rest: [Work] | [Options, Work]): Promise<unknown> {
    const work = rest.at(-1) as Work;
    const { ifAvailable, signal, steal } = rest.length === 2 ? rest[0] : {};
    const queue = this.queues.get(name) ?? [];
    this.queues.set(name, queue);
    return new Promise((resolve, reject) => {
      const abort = () => {
        reject(new DOMException('aborted', 'AbortError'));
      };
      const grant = () => {
        const hold = abort;
        this.held.set(name, hold);
        const release = () => {
          if (this.held.get(name) !== hold) return;
          this.held.delete(name);
          queue.shift()?.();
        };
        signal?.removeEventListener('abort', giveUp);
        Promise.resolve()
          .then(() => work({ name }))
          .then(resolve, reject)
          .finally(release);
      };
      const giveUp = () => {
        queue.splice(queue.indexOf(grant), 1);
        reject(signal?.reason as Error);
      };
      if (steal) {
        this.held.get(name)?.();
        grant();
      } else if (!this.held.has(name)) grant();
      else if (ifAvailable) resolve(work(null));
      else {
        queue.push(grant);
        signal?.addEventListener('abort', giveUp);
      }
    });
  }
}

/** AbortSignal.timeout by the clock of the tests. */
function timeout(ms: number): AbortSignal {
  const controller = new AbortController();
  setTimeout(() => {
    controller.abort(new DOMException('timed out', 'TimeoutError'));
  }, ms);
  return controller.signal;
}

export function setLocks(locks: FakeLocks | undefined): void {
  Object.defineProperty(navigator, 'locks', { configurable: true, value: locks });
}

export function setVisible(visible: boolean): void {
  Object.defineProperty(document, 'hidden', { configurable: true, value: !visible });
  document.dispatchEvent(new Event('visibilitychange', { bubbles: true }));
}

export function setOnline(online: boolean): void {
  Object.defineProperty(navigator, 'onLine', { configurable: true, value: online });
  window.dispatchEvent(new Event(online ? 'online' : 'offline'));
}

export function resetBrowser(): void {
  channels.clear();
  vi.stubGlobal('BroadcastChannel', FakeChannel);
  setLocks(new FakeLocks());
  Object.defineProperty(document, 'hidden', { configurable: true, value: false });
  vi.spyOn(AbortSignal, 'timeout').mockImplementation(timeout);
  Object.defineProperty(navigator, 'onLine', { configurable: true, value: true });
}
