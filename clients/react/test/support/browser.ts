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

type Work = (lock: { name: string } | null) => Promise<unknown>;

/** Exclusive locks, granted in the order of the requests. */
export class FakeLocks {
  private queues = new Map<string, Promise<unknown>>();

  async request(name: string, ...rest: [Work] | [{ ifAvailable?: boolean }, Work]): Promise<unknown> {
    const work = rest.at(-1) as Work;
    const { ifAvailable } = rest.length === 2 ? rest[0] : { ifAvailable: false };
    const held = this.queues.get(name);
    if (held && ifAvailable) return work(null);
    const turn = (held ?? Promise.resolve()).catch(() => undefined).then(() => work({ name }));
    this.queues.set(name, turn);
    try {
      return await turn;
    } finally {
      if (this.queues.get(name) === turn) this.queues.delete(name);
    }
  }
}

export function setLocks(locks: FakeLocks | undefined): void {
  Object.defineProperty(navigator, 'locks', { configurable: true, value: locks });
}

export function setVisible(visible: boolean): void {
  Object.defineProperty(document, 'visibilityState', { configurable: true, value: visible ? 'visible' : 'hidden' });
  document.dispatchEvent(new Event('visibilitychange'));
}

export function setOnline(online: boolean): void {
  Object.defineProperty(navigator, 'onLine', { configurable: true, value: online });
  window.dispatchEvent(new Event(online ? 'online' : 'offline'));
}

export function resetBrowser(): void {
  channels.clear();
  vi.stubGlobal('BroadcastChannel', FakeChannel);
  setLocks(new FakeLocks());
  Object.defineProperty(document, 'visibilityState', { configurable: true, value: 'visible' });
  Object.defineProperty(navigator, 'onLine', { configurable: true, value: true });
}
