export { SessionProvider, type SessionProviderProps } from './provider.js';
export {
  useAuth,
  useSession,
  useSubscription,
  useTenant,
  type UseAuthResult,
  type UseSessionOptions,
  type UseSessionResult,
  type UseSubscriptionResult,
  type UseTenantResult,
} from './hooks.js';
export { SessionError, type SessionErrorKind } from './error.js';
export { safeReturnPath } from './return-path.js';
export type { CreateSessionInput, SessionActions } from './requests.js';
export type { SessionState } from './state.js';
export type {
  Data,
  DefaultData,
  DefaultUser,
  Register,
  Session,
  SessionData,
  SessionStatus,
  SignOutScope,
  Subscription,
  Tenant,
  User,
} from './types.js';
