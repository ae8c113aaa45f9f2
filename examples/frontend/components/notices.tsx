'use client';

import { useSession } from '@session-manager/react';
import { usePathname, useRouter } from 'next/navigation';
import type { ReactElement } from 'react';
import { Icon } from './icons';
import { LocalTime } from './local-time';

/** Leaves the signed-in pages when the session ends, and says why what is shown may be out of date. */
export function Notices(): ReactElement {
  const router = useRouter();
  const path = usePathname();
  const { data, error } = useSession({
    required: true,
    onUnauthenticated: () => {
      router.replace(`/login?returnTo=${encodeURIComponent(path)}`);
    },
  });
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
