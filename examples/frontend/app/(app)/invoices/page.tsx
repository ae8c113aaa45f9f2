import type { Metadata } from 'next';
import type { ReactElement } from 'react';
import { InvoiceOrder } from '@/components/invoice-order';
import { LocalTime } from '@/components/local-time';
import { NewInvoice } from '@/components/new-invoice';
import { load, requireSession } from '@/lib/session';
import type { Invoice, Page } from '@/lib/types';

export const metadata: Metadata = { title: 'Invoices' };

const money = ({ amount, currency }: Invoice) =>
  new Intl.NumberFormat('en-GB', { style: 'currency', currency }).format(Number(amount));

export default async function InvoicesPage(): Promise<ReactElement> {
  const { session } = await requireSession('/invoices');
  const { results } = await load<Page<Invoice>>('/api/invoices/');
  if (session.data.client?.invoice_order === 'amount') results.sort((a, b) => Number(b.amount) - Number(a.amount));
  return (
    <div className="page">
      <div className="title">
        <div>
          <h1>Invoices</h1>
          <p className="muted">Those of this organisation, and of no other: the database sees to that.</p>
        </div>
        <div className="actions">
          <InvoiceOrder />
        </div>
      </div>
      <div className="card scroll" tabIndex={0} role="region" aria-label="Invoices">
        <table>
          <thead>
            <tr>
              <th scope="col">Customer</th>
              <th scope="col">Number</th>
              <th scope="col">Issued</th>
              <th scope="col" className="right">
                Amount
              </th>
            </tr>
          </thead>
          <tbody>
            {results.map((invoice) => (
              <tr key={invoice.number}>
                <td>{invoice.customer}</td>
                <td className="muted number">{invoice.number.slice(0, 8)}</td>
                <td className="muted">
                  <LocalTime value={invoice.issued_on} format="date" />
                </td>
                <td className="right number">{money(invoice)}</td>
              </tr>
            ))}
          </tbody>
        </table>
        {results.length === 0 && <p className="empty">There are no invoices yet.</p>}
      </div>
      <NewInvoice />
    </div>
  );
}
