/**
 * What the backend answers, as it stands on the wire: member names are the
 * REST interface's, times are ISO 8601 with an offset.
 */

/**
 * Augment this interface to give the application's own types to every hook:
 *
 *     declare module '@session-manager/react' {
 *       interface Register { user: MyUser; data: MySessionData }
 *     }
 */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type -- filled in by augmentation
export interface Register {}

/** An organisation that the user may act for. */
export interface Tenant {
  id: string;
  name?: string;
  [member: string]: unknown;
}

/** A user as the backend describes it, unless `Register` says otherwise. */
export interface DefaultUser {
  id: string;
  email?: string;
  name?: string;
  picture?: string;
  tenants?: Tenant[];
  [claim: string]: unknown;
}

/** What the user has subscribed to; read from the session's data. */
export interface Subscription {
  plan?: string;
  status?: string;
  [member: string]: unknown;
}

/** Session data, unless `Register` says otherwise: a JSON object. */
export interface DefaultData {
  /** What `update` may write, unless the backend's CLIENT_DATA names others; all else is the server's. */
  client?: Record<string, unknown>;
  tenants?: Tenant[];
  plan?: string;
  subscription?: Subscription;
  [member: string]: unknown;
}

export type User = Register extends { user: infer U } ? U : DefaultUser;
export type Data = Register extends { data: infer D } ? D : DefaultData;

/** A live session.  It never holds the token, which no script can read. */
export interface Session {
  id: string;
  created_at: string;
  authenticated_at?: string;
  last_seen_at: string | null;
  /** When the session ends unless it is refreshed. */
  expires_at: string;
  /** When the session ends in any case. */
  absolute_expires_at: string;
  /** Grows with each change of `data`. */
  version: number;
  tenant_id: string | null;
  /** How the user proved who they are. */
  auth: Record<string, unknown> | null;
  /** The id of the user who acts as `user`; null: the user. */
  actor: string | null;
  /**
   * The session works on one device alone, whose browser proves it.  What a page was rendered with says
   * false only if the browser may still bind it.
   */
  device_bound?: boolean | undefined;
  data: Data;
}

/** What `useSession().data` and `getServerSession()` hold. */
export interface SessionData {
  session: Session;
  user: User;
  /** The server's clock when it answered. */
  server_time: string;
}

export type SessionStatus = 'loading' | 'authenticated' | 'unauthenticated';

export type SignOutScope = 'local' | 'others' | 'global';
