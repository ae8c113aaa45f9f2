'use server';

import { fetchBackend, getServerSession } from '@session-manager/react/next';
import { revalidatePath } from 'next/cache';

/** Write an invoice.  Returns what went wrong, or null. */
export async function createInvoice(_: string | null, form: FormData): Promise<string | null> {
  // An action can be called without its page: it asks for itself.
  if (!(await getServerSession())) return 'You are signed out.';
  const body = JSON.stringify({ customer: form.get('customer'), amount: form.get('amount') });
  const response = await fetchBackend('/api/invoices/', { method: 'POST', body });
  if (response.status === 201) {
    revalidatePath('/invoices');
    return null;
  }
  if (response.status === 403) {
    return ((await response.json()) as { detail: string }).detail;
  }
  return response.status === 400 ? 'Please name a customer and an amount.' : 'That did not succeed. Please try again.';
}
