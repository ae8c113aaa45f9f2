import { vi } from 'vitest';

/** Let everything run that does not wait for a timer. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) {
    await vi.advanceTimersByTimeAsync(0);
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
}

/** Let time pass in steps, with the work of each step done before the next. */
export async function pass(ms: number, step = Math.max(ms / 20, 25)): Promise<void> {
  await settle();
  for (let left = ms; left > 0; left -= step) {
    await vi.advanceTimersByTimeAsync(Math.min(step, left));
    await settle();
  }
}

/** Let time pass in steps until something has settled, and return or throw what came of it. */
export async function passUntil<T>(settled: Promise<T>, step: number): Promise<T> {
  const progress = { isSettled: false };
  const mark = () => {
    progress.isSettled = true;
  };
  settled.then(mark, mark);
  for (let n = 0; !progress.isSettled && n < 1_000; n++) await pass(step, step);
  return settled;
}

/** The machine sleeps: the clock goes on, timers fire late. */
export async function deepSleep(ms: number): Promise<void> {
  vi.setSystemTime(Date.now() + ms);
  await pass(15_000);
}

/**
 * Times depend on chance; make it the middle of its range, or another part.
 * No two numbers are the same, as MSW tells requests apart by them.
 */
export function withoutChance(part = 0.5): void {
  let count = 0;
  vi.spyOn(Math, 'random').mockImplementation(() => part + ++count * 1e-9);
}
