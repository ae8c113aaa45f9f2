import { safeReturnPath } from '@session-manager/react/next';
import type { Metadata } from 'next';
import type { ReactElement } from 'react';
import { Arrival } from '@/components/arrival';
import { SignIn } from '@/components/sign-in';

export const metadata: Metadata = { title: 'Sign in' };

interface Props {
  searchParams: Promise<{ returnTo?: string | string[]; reason?: string | string[] }>;
}

export default async function LoginPage({ searchParams }: Props): Promise<ReactElement> {
  const { returnTo, reason } = await searchParams;
  const path = safeReturnPath([returnTo].flat()[0], '/account');
  return (
    <>
      <Arrival returnTo={path} />
      <SignIn returnTo={path} reason={[reason].flat()[0]} />
    </>
  );
}
