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
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isOver = false;
    // A session that has ended is gone when this is done, and the effect with it.
    void refresh().then(() => {
      if (isOver) return;
      timer = setTimeout(() => {
        router.replace(returnTo);
      }, 1_000);
    });
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [status, refresh, router, returnTo]);
  return null;
}
