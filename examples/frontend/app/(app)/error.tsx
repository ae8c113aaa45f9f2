'use client';

import type { ReactElement } from 'react';
import { Icon } from '@/components/icons';

/** The backend gave no verdict.  That is no reason to sign anybody out. */
export default function ErrorPage({ reset }: { reset: () => void }): ReactElement {
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
      </div>
    </div>
  );
}
