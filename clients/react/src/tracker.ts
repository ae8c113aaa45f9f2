import type { SessionState, SessionStore } from './store.js';

export interface Tracker {
  getSnapshot: () => SessionState;
  getServerSnapshot: () => SessionState;
  /** The snapshot as an object that notes which members are read. */
  view(snapshot: SessionState): SessionState;
}

/**
 * Snapshots for one component.  A snapshot is replaced by another object, which
 * makes React render, only when a member that the component has read changes;
 * other members are kept up to date in place.
 */
export function createTracker(store: SessionStore): Tracker {
  const read = new Set<keyof SessionState>();
  let last: SessionState | undefined;

  function snapshot(state: SessionState): SessionState {
    const known = last;
    const same = known && [...read].every((key) => Object.is(known[key], state[key]));
    return (last = same ? Object.assign(known, state) : { ...state });
  }

  return {
    getSnapshot: () => snapshot(store.getState()),
    getServerSnapshot: () => snapshot(store.getServerState()),
    view: (state) =>
      Object.defineProperties(
        {},
        Object.fromEntries(
          (Object.keys(state) as (keyof SessionState)[]).map((key) => [
            key,
            {
              enumerable: true,
              get: () => {
                read.add(key);
                return state[key];
              },
            },
          ]),
        ),
      ) as SessionState,
  };
}
