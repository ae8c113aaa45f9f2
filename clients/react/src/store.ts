/** The session of one tab, for React to subscribe to.  Knows nothing of React. */

import { createRequests, type SessionActions } from './requests.js';
import { createSchedule, type ScheduleOptions } from './schedule.js';
import { createState, essence, type SessionState } from './state.js';
import { createTabs } from './tabs.js';
import type { SessionData } from './types.js';

export interface StoreOptions extends ScheduleOptions {
  /** Where the route handlers are. */
  basePath: string;
  /** The page that signs users in. */
  loginUrl?: string;
  /**
   * Called when the session is another one than before, with other data, or gone, whoever has done
   * it; not when only its times have changed.  The place to render server components again.
   */
  onChange?: (() => void) | undefined;
}

export interface SessionStore {
  readonly actions: SessionActions;
  readonly options: StoreOptions;
  getState(): SessionState;
  getServerState(): SessionState;
  subscribe: (listener: () => void) => () => void;
  configure(options: StoreOptions): void;
  /** Take over what the server rendered later on. */
  hydrate(session: SessionData | null | undefined): void;
  /** Start timers and listeners; returns the function that stops them. */
  start(): () => void;
}

export function createSessionStore(options: StoreOptions, initial?: SessionData | null): SessionStore {
  const tabs = createTabs('session_manager ' + options.basePath);
  const state = createState(initial === null, tabs.post, () => {
    schedule.checked();
  });
  const schedule = createSchedule(state, options);
  if (initial) state.accept(initial, true);
  const serverState = state.getState();
  const { actions, hear, revalidate } = createRequests(state, schedule, tabs, options);
  /** What a page may show of the session; false before the server has answered. */
  const content = () => {
    const { data, session, status } = state.getState();
    return status !== 'loading' && essence([session && { ...session, expires_at: 0 }, data?.user]);
  };
  let known = content();

  return {
    ...state,
    getServerState: () => serverState,
    actions,
    options,
    configure(next) {
      const before = JSON.stringify(options);
      Object.assign(options, next);
      // Not at each render, or what is due would be put off again and again.
      if (before !== JSON.stringify(options)) schedule.reset();
    },
    hydrate(session) {
      if (session) {
        // The page shows it already.
        known = false;
        hear(session);
        known = content();
      } else if (session === null && state.getState().session) void revalidate();
    },
    start() {
      const close = tabs.open(hear);
      const stop = schedule.start(revalidate, actions.refresh);
      const unsubscribe = state.subscribe(() => {
        // A router that cannot render again may leave the page: told when the network is back.
        if (!navigator.onLine) return;
        const before = known;
        known = content();
        // Later, as an application that awaits the change may go to another page now, which would
        // make the router drop what it has begun.
        if (before && before !== known) setTimeout(() => options.onChange?.());
      });
      // Without an answer yet, or as the browser may be asked in it to bind the session to its device.
      if (!(initial?.session.device_bound ?? known)) void revalidate();
      return () => {
        stop();
        close();
        unsubscribe();
      };
    },
  };
}
