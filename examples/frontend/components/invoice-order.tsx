'use client';

import { useSession } from '@session-manager/react';
import type { ReactElement } from 'react';

/** Stores how the user wants invoices sorted; the server renders them so. */
export function InvoiceOrder(): ReactElement {
  const { session, update } = useSession();
  const isByAmount = session?.data.client?.invoice_order === 'amount';
  return (
    <button
      type="button"
      className="button"
      aria-pressed={isByAmount}
      onClick={() => void update({ client: { invoice_order: isByAmount ? null : 'amount' } })}
    >
      Largest first
    </button>
  );
}
