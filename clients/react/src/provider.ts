'use client';

import { createContext, createElement, useContext, useEffect, useMemo, useState, type ReactElement, type ReactNode } from 'react';
import { createSessionStore, type SessionStore, type StoreOptions } from './store.js';
import type { SessionData } from './types.js';

export interface SessionProviderProps extends Partial<StoreOptions> {
  /**
   * What `getServerSession()` returned: a session, or null for none.
   * Left out, the session is fetched when the page has loaded.
   */
  session?: SessionData | null | undefined;
  /** The page that signs users in. */
  loginUrl?: string;
  children?: ReactNode;
}

interface ContextValue {
  store: SessionStore;
  loginUrl: string;
}

const SessionContext = createContext<ContextValue | undefined>(undefined);

export function SessionProvider({
  session,
  basePath = '/api/session',
  refetchInterval = 0,
  refetchOnWindowFocus = true,
  refreshAt = 0.75,
  loginUrl = '/login',
  children,
}: SessionProviderProps): ReactElement {
  const options = { basePath, refetchInterval, refetchOnWindowFocus, refreshAt };
  const [store] = useState(() => createSessionStore(options, session));
  const value = useMemo(() => ({ store, loginUrl }), [store, loginUrl]);

  useEffect(() => store.start(), [store]);
  useEffect(() => {
    store.configure(options);
  });
  useEffect(() => {
    store.hydrate(session);
  }, [store, session]);

  return createElement(SessionContext.Provider, { value }, children);
}

export function useSessionContext(): ContextValue {
  const value = useContext(SessionContext);
  if (!value) throw new Error('There is no <SessionProvider> above this component.');
  return value;
}
