import type { Metadata } from 'next';
import type { ReactElement } from 'react';
import { requireSession } from '@/lib/session';

export const metadata: Metadata = { title: 'Invoices' };

export default async function InvoicesPage(): Promise<ReactElement> {
  await requireSession('/invoices');
  return (
    <div className="page">
      <h1>Invoices</h1>
    </div>
  );
}
