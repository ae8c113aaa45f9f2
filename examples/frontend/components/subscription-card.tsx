'use client';

import { useSubscription, useTenant } from '@session-manager/react';
import type { ReactElement } from 'react';

const capitalise = (word: string) => word.charAt(0).toUpperCase() + word.slice(1).replaceAll('_', ' ');

export function SubscriptionCard(): ReactElement {
  const { plan, status, isActive } = useSubscription();
  const { tenantId, tenants } = useTenant();
  const tenant = tenants.find(({ id }) => id === tenantId)?.name ?? tenantId;
  return (
    <section className="card" aria-labelledby="subscription">
      <header>
        <h2 id="subscription">Subscription</h2>
        <span className={isActive ? 'badge good' : 'badge warning'} data-testid="subscription">
          {capitalise(status ?? 'none')}
        </span>
      </header>
      <div className="body">
        <dl className="facts">
          <dt>Plan</dt>
          <dd>{capitalise(plan ?? 'none')}</dd>
          <dt>Organisation</dt>
          <dd>{tenant ?? 'None'}</dd>
        </dl>
      </div>
    </section>
  );
}
