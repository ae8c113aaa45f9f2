'use client';

import { createContext, createElement, useContext, useEffect, useState, type ReactElement, type ReactNode } from 'react';
import { createSessionStore, type SessionStore, type StoreOptions } from './store.js';
import type { SessionData } from './types.js';

export interface SessionProviderProps extends Partial<StoreOptions> {
  /**
   * What `getServerSession()` returned: a session, or null for none.
   * If it is undefined, the session is fetched when the page has loaded.
   */
  session?: SessionData | null | undefined;
  children?: ReactNode;
}

const SessionContext = createContext<SessionStore | undefined>(undefined);

export function SessionProvider({
  session,
  basePath = '/api/session',
  refetchInterval = 0,
  refetchOnWindowFocus = true,
  refreshAt = 0.75,
  loginUrl = '/login',
  onChange,
  children,
}: SessionProviderProps): ReactElement {
  const options = { basePath, refetchInterval, refetchOnWindowFocus, refreshAt, loginUrl, onChange };
  const [store] = useState(() => createSessionStore(options, session));

  useEffect(() => store.start(), [store]);
  useEffect(() => {
    store.configure(options);
  });
  useEffect(() => {
    store.hydrate(session);
  }, [store, session]);

  return createElement(SessionContext.Provider, { value: store }, children);
}

export function useSessionStore(): SessionStore {
  const store = useContext(SessionContext);
  if (!store) throw new Error('No <SessionProvider>');
  return store;
}
