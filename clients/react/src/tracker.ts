import type { SessionState } from './state.js';
import type { SessionStore } from './store.js';

export type Tracker = readonly [
  getSnapshot: () => SessionState,
  getServerSnapshot: () => SessionState,
  /** The snapshot as an object that records which members are read. */
  view: (snapshot: SessionState) => SessionState,
];

/**
 * Snapshots for one component.  A snapshot is replaced by another object, which
 * makes React render, only when a member that the component has read changes;
 * other members are kept up to date in place.
 */
export function createTracker(store: SessionStore): Tracker {
  const read = new Set<keyof SessionState>();
  let last: SessionState | undefined;

  const snapshot = (state: SessionState): SessionState => {
    const known = last;
    const same = known && [...read].every((key) => known[key] === state[key]);
    return (last = same ? Object.assign(known, state) : { ...state });
  };

  return [
    () => snapshot(store.getState()),
    () => snapshot(store.getServerState()),
    (state) => {
      const view = {} as SessionState;
      for (const key of Object.keys(state) as (keyof SessionState)[]) {
        Object.defineProperty(view, key, {
          enumerable: true,
          get: () => {
            read.add(key);
            return state[key];
          },
        });
      }
      return view;
    },
  ];
}
