'use client';

import { SessionProvider, type SessionData } from '@session-manager/react';
import { useRouter } from 'next/navigation';
import type { ReactElement, ReactNode } from 'react';

/** The session for all components; what the server has rendered is rendered again when it has changed. */
export function Sessions(props: { session: SessionData | null | undefined; children: ReactNode }): ReactElement {
  const router = useRouter();
  return (
    <SessionProvider
      {...props}
      onChange={() => {
        router.refresh();
      }}
    />
  );
}
