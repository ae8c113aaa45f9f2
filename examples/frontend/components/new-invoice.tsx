'use client';

import { useActionState, type ReactElement } from 'react';
import { createInvoice } from '@/app/(app)/invoices/actions';
import { Icon } from './icons';

export function NewInvoice(): ReactElement {
  const [problem, action, busy] = useActionState(createInvoice, null);
  return (
    <section className="card" aria-labelledby="new-invoice">
      <header>
        <h2 id="new-invoice">New invoice</h2>
      </header>
      <div className="body page">
        {problem && (
          <p className="notice danger" role="alert">
            <Icon name="warning" size={18} />
            {problem}
          </p>
        )}
        <form className="fields" action={action}>
          <label>
            Customer
            <input name="customer" required maxLength={100} autoComplete="off" />
          </label>
          <label>
            Amount in euro
            <input name="amount" required inputMode="decimal" pattern="\d{1,10}(\.\d{1,2})?" autoComplete="off" />
          </label>
          <button type="submit" className="button primary" disabled={busy}>
            Create
          </button>
        </form>
      </div>
    </section>
  );
}
