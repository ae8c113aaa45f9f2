'use client';

import { useSession } from '@session-manager/react';
import { usePathname } from 'next/navigation';
import type { ReactElement, ReactNode } from 'react';
import { SignIn } from './sign-in';

/**
 * Takes the page away when the session ends, in the place where it stands: this
 * works offline too, and the way back leads here.
 */
export function Gate({ children }: { children: ReactNode }): ReactElement {
  const { status } = useSession();
  const path = usePathname();
  return status === 'unauthenticated' ? <SignIn returnTo={path} /> : <>{children}</>;
}
