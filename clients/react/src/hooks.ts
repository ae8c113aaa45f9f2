'use client';

import { useEffect, useRef, useState, useSyncExternalStore } from 'react';
import { useSessionStore } from './provider.js';
import type { SessionActions } from './requests.js';
import type { SessionState } from './state.js';
import type { StoreOptions } from './store.js';
import { createTracker } from './tracker.js';
import type { SessionData, SignOutScope, Tenant, User } from './types.js';

export interface UseSessionOptions {
  /** The component needs a session. */
  required?: boolean;
  /** Called when there is no session; by default the sign-in page is opened. */
  onUnauthenticated?: () => void;
}

export interface UseSessionResult extends SessionActions, SessionState {}

/** Open the sign-in page, and tell it which page to return to. */
function openLogin(
  { loginUrl = '' }: StoreOptions,
  returnTo = location.pathname + location.search + location.hash,
): void {
  const url = new URL(loginUrl, location.href);
  url.searchParams.set('returnTo', returnTo);
  location.assign(url);
}

/**
 * The session, why there is none, and what can be done with it.
 *
 * A component renders again only when a member that it has read changes.  The
 * functions are the same ones at every render.
 */
export function useSession({ required, onUnauthenticated }: UseSessionOptions = {}): UseSessionResult {
  const store = useSessionStore();
  const [[getSnapshot, getServerSnapshot, view]] = useState(() => createTracker(store));
  const snapshot = useSyncExternalStore(store.subscribe, getSnapshot, getServerSnapshot);
  const result = Object.assign(view(snapshot), store.actions);

  const callback = useRef(onUnauthenticated);
  useEffect(() => {
    callback.current = onUnauthenticated;
  });
  const missing = !!required && result.status === 'unauthenticated';
  useEffect(() => {
    if (!missing) return;
    if (callback.current) callback.current();
    else openLogin(store.options);
  }, [missing, store]);

  return result;
}

export interface UseAuthResult {
  /** The server has answered whether somebody is signed in. */
  isLoaded: boolean;
  isSignedIn: boolean;
  user: User | null;
  userId: string | null;
  sessionId: string | null;
  /** Open the sign-in page; `returnTo` is this page by default. */
  login: (options?: { returnTo?: string }) => void;
  logout: (options?: { scope?: SignOutScope }) => Promise<void>;
}

/** Who is signed in. */
export function useAuth(): UseAuthResult {
  const { data, status, signOut } = useSession();
  const { options } = useSessionStore();
  const user = data?.user ?? null;
  return {
    isLoaded: status !== 'loading',
    isSignedIn: !!data,
    user,
    userId: user?.id ?? null,
    sessionId: data?.session.id ?? null,
    login: ({ returnTo } = {}) => {
      openLogin(options, returnTo);
    },
    logout: signOut,
  };
}

export interface UseTenantResult {
  /** The tenant that the session acts for. */
  tenantId: string | null;
  /** The tenants that the user may act for: `data.tenants`, else `user.tenants`. */
  tenants: Tenant[];
  /** Act for another tenant; the session's token is replaced. */
  switchTenant: (tenantId: string) => Promise<SessionData>;
}

const NO_TENANTS: Tenant[] = [];

/** The tenant that the user acts for. */
export function useTenant(): UseTenantResult {
  const { data, switchTenant } = useSession();
  return {
    tenantId: data?.session.tenant_id ?? null,
    tenants: data?.session.data.tenants ?? data?.user.tenants ?? NO_TENANTS,
    switchTenant,
  };
}

export interface UseSubscriptionResult {
  plan: string | null;
  status: string | null;
  /** The subscription is `active` or `trialing`. */
  isActive: boolean;
}

/** What the user has subscribed to: `data.subscription`, else `data.plan`. */
export function useSubscription(): UseSubscriptionResult {
  const data = useSession().session?.data;
  const plan = data?.subscription?.plan ?? data?.plan ?? null;
  const status = data?.subscription?.status ?? null;
  return { plan, status, isActive: status === 'active' || status === 'trialing' };
}
