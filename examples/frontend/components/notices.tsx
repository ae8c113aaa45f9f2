'use client';

import { useSession } from '@session-manager/react';
import type { ReactElement } from 'react';
import { Icon } from './icons';
import { LocalTime } from './local-time';

/** Says why what is shown could not be confirmed. */
export function Notices(): ReactElement {
  const { data, error } = useSession();
  return (
    <div className="notices" role="status">
      {error && data && (
        <p className="notice">
          <Icon name={error.kind === 'network' ? 'offline' : 'warning'} size={18} />
          <span>
            {error.kind === 'network' ? 'You are offline.' : 'The server cannot answer right now.'} You stay signed in
            until <LocalTime value={data.session.expires_at} />.
          </span>
        </p>
      )}
    </div>
  );
}
