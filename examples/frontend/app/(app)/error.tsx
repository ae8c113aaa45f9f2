'use client';

import { useSession } from '@session-manager/react';
import { useEffect, type ReactElement } from 'react';
import { Icon } from '@/components/icons';

interface Props {
  error: Error & { digest?: string };
  reset: () => void;
}

/** The backend gave no verdict.  That is no reason to sign anybody out. */
export default function ErrorPage({ error, reset }: Props): ReactElement | null {
  const { status, error: failure } = useSession();
  // A link on another site has led here; the browser proves its device before the requests of its own pages.
  const isUnproved = error.digest === 'device_proof_required';
  useEffect(() => {
    if (isUnproved && status === 'authenticated') location.reload();
  }, [isUnproved, status]);

  if (isUnproved && !failure) return null;
  return (
    <div className="page" role="alert">
      <div className="title">
        <div>
          <h1>The server cannot answer right now</h1>
          <p className="muted">You are still signed in. Please try again in a moment.</p>
        </div>
      </div>
      <div className="actions">
        <button
          type="button"
          className="button primary"
          onClick={() => {
            reset();
            location.reload();
          }}
        >
          <Icon name="refresh" size={17} />
          Try again
        </button>
        {isUnproved && (
          <a className="button" href="/login">
            Sign in again
          </a>
        )}
      </div>
    </div>
  );
}
