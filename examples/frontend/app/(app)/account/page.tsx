import type { Metadata } from 'next';
import type { ReactElement } from 'react';
import { Avatar } from '@/components/avatar';
import { Countdown } from '@/components/countdown';
import { LocalTime } from '@/components/local-time';
import { SubscriptionCard } from '@/components/subscription-card';
import { requireSession } from '@/lib/session';

export const metadata: Metadata = { title: 'Account' };

export default async function AccountPage(): Promise<ReactElement> {
  const { session, user } = await requireSession('/account');
  const name = user.name ?? user.id;
  return (
    <div className="page">
      <div className="title">
        <div>
          <h1>Account</h1>
          <p className="muted">Who you are here, and for how long.</p>
        </div>
      </div>
      <div className="grid">
        <section className="card" aria-labelledby="profile">
          <header>
            <h2 id="profile">Profile</h2>
          </header>
          <div className="body page">
            <div className="person">
              <Avatar name={name} large />
              <div className="text">
                <strong>{name}</strong>
                <small>{user.email}</small>
              </div>
            </div>
            <dl className="facts">
              <dt>User id</dt>
              <dd>{user.id}</dd>
              <dt>Signed in</dt>
              <dd>
                <LocalTime value={session.created_at} format="both" />
              </dd>
              <dt>Signed in by</dt>
              <dd>{typeof session.auth?.method === 'string' ? session.auth.method : 'unknown'}</dd>
            </dl>
          </div>
        </section>
        <section className="card tall" aria-labelledby="session">
          <header>
            <h2 id="session">This session</h2>
          </header>
          <div className="body">
            <Countdown />
          </div>
        </section>
        <SubscriptionCard />
      </div>
    </div>
  );
}
