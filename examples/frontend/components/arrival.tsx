'use client';

import { useSession } from '@session-manager/react';
import { useRouter } from 'next/navigation';
import { useEffect } from 'react';

/** Somebody whom the server has sent to the sign-in page, while this tab knows a session: one of them is wrong. */
export function Arrival({ returnTo }: { returnTo: string }): null {
  const { status, refresh } = useSession();
  const router = useRouter();
  useEffect(() => {
    if (status !== 'authenticated') return;
    void refresh();
    const timer = setTimeout(() => {
      router.replace(returnTo);
    }, 1_000);
    return () => {
      clearTimeout(timer);
    };
  }, [status, refresh, router, returnTo]);
  return null;
}
