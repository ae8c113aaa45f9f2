'use client';

import { useSession } from '@session-manager/react';
import { useRouter } from 'next/navigation';
import { useEffect, type ReactElement } from 'react';
import { Icon } from './icons';

const TEXTS: Record<string, string> = {
  expired: 'Your session has expired. Sign in again to go on.',
  revoked: 'You were signed out on another device. Sign in again to go on.',
  failed: 'The sign-in did not succeed. Please try again.',
  limit: 'You are signed in on as many devices as are allowed. Sign out of one first.',
  busy: 'There were too many attempts. Please wait a minute.',
  unavailable: 'The server cannot answer right now. Please try again in a moment.',
};

/** Why the user is here.  Somebody who is signed in after all goes on. */
export function SignInReason({ reason, returnTo }: { reason: string | undefined; returnTo: string }): ReactElement {
  const { error, status, refresh } = useSession();
  const router = useRouter();

  useEffect(() => {
    // A page has sent us here: the server may know more than this tab.
    if (status === 'authenticated') {
      void refresh().then(() => {
        router.refresh();
      });
    }
    // eslint-disable-next-line react-hooks/exhaustive-deps -- once, on arrival
  }, []);

  const text = TEXTS[error && error.kind !== 'network' && error.kind !== 'server' ? error.kind : (reason ?? '')];
  return (
    <div role="status">
      {status === 'authenticated' ? (
        <p className="notice">
          <Icon name="check" size={18} />
          <span>
            You are signed in. <a href={returnTo}>Go on</a>
          </span>
        </p>
      ) : (
        text && (
          <p className="notice">
            <Icon name="warning" size={18} />
            {text}
          </p>
        )
      )}
    </div>
  );
}
