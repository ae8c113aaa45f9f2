import { safeReturnPath } from '@session-manager/react/next';
import type { Metadata } from 'next';
import type { ReactElement } from 'react';
import { Brand } from '@/components/brand';
import { Icon } from '@/components/icons';
import { SignInReason } from '@/components/sign-in-reason';

export const metadata: Metadata = { title: 'Sign in' };

interface Props {
  searchParams: Promise<{ returnTo?: string | string[]; reason?: string | string[] }>;
}

const POINTS = [
  'The session lives in PostgreSQL; its token is in a cookie that no script can read.',
  'Sign out of one device or of all of them, with effect at once.',
  'Every sign-in and sign-out is on record.',
];

export default async function LoginPage({ searchParams }: Props): Promise<ReactElement> {
  const { returnTo, reason } = await searchParams;
  const path = safeReturnPath([returnTo].flat()[0], '/account');
  return (
    <main className="centre">
      <div className="sign-in">
        <Brand />
        <SignInReason reason={[reason].flat()[0]} returnTo={path} />
        <div className="card">
          <div>
            <h1>Sign in</h1>
            <p className="muted">Continue with your account at the identity provider.</p>
          </div>
          {/* A link that leaves the application: no prefetching, no client-side navigation. */}
          <a className="button primary wide" href={`/auth/login?returnTo=${encodeURIComponent(path)}`}>
            <Icon name="key" size={18} />
            Continue
          </a>
          <ul className="points">
            {POINTS.map((point) => (
              <li key={point}>
                <Icon name="check" size={16} />
                {point}
              </li>
            ))}
          </ul>
        </div>
      </div>
    </main>
  );
}
