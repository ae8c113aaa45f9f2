'use client';

import { useSession } from '@session-manager/react';
import type { ReactElement } from 'react';
import { Brand } from './brand';
import { Icon } from './icons';

/** By the reason that the backend gave, else by what has happened. */
const REASONS = new Map([
  ['admin', 'You were signed out by an administrator. Sign in again to go on.'],
  ['evicted', 'You were signed out because you signed in on more devices than are allowed. Sign in again to go on.'],
  ['logout_all', 'You were signed out on another device. Sign in again to go on.'],
  ['revoked_by_user', 'You were signed out on another device. Sign in again to go on.'],
  ['password_changed', 'You were signed out because your password was changed. Sign in with the new one.'],
  ['user_deactivated', 'You were signed out because your account was deactivated.'],
  ['user_deleted', 'You were signed out because your account was deleted.'],
  ['user_id_changed', 'You were signed out because your account got another name. Sign in again to go on.'],
  ['token_reused', 'You were signed out because somebody else may have used your session. Sign in again to go on.'],
  ['expired', 'Your session has expired. Sign in again to go on.'],
  ['revoked', 'Your session was ended. Sign in again to go on.'],
  ['failed', 'The sign-in did not succeed. Please try again.'],
  ['limit', 'You are signed in on as many devices as are allowed. Sign out of one first.'],
  ['busy', 'There were too many attempts. Please wait a minute.'],
  ['unavailable', 'The server cannot answer right now. Please try again in a moment.'],
]);

const POINTS = [
  'The session lives in PostgreSQL; its token is in a cookie that no script can read.',
  'Sign out of one device or of all of them, with effect at once.',
  'Every sign-in and sign-out is on record.',
];

/** The way in, and why the user is here: `reason`, or what this tab knows. */
export function SignIn({ returnTo, reason }: { returnTo: string; reason?: string | undefined }): ReactElement {
  const { error } = useSession();
  const text = [error?.reason, error?.kind, reason].map((key) => REASONS.get(key ?? '')).find(Boolean);
  return (
    <main className="centre">
      <div className="sign-in">
        <Brand />
        <div role="status">
          {text && (
            <p className="notice">
              <Icon name="warning" size={18} />
              {text}
            </p>
          )}
        </div>
        <div className="card">
          <div>
            <h1>Sign in</h1>
            <p className="muted">Continue with your account at the identity provider.</p>
          </div>
          {/* Leaves the application: no prefetching, no client-side navigation. */}
          <a className="button primary wide" href={`/auth/login?returnTo=${encodeURIComponent(returnTo)}`}>
            <Icon name="key" size={18} />
            Continue
          </a>
          <ul className="points">
            {POINTS.map((point) => (
              <li key={point}>
                <Icon name="check" size={16} />
                {point}
              </li>
            ))}
          </ul>
        </div>
      </div>
    </main>
  );
}
