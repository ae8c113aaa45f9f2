import { getServerSession } from '@session-manager/react/next';
import type { Metadata, Viewport } from 'next';
import type { ReactElement, ReactNode } from 'react';
import { Sessions } from '@/components/sessions';
import './globals.css';

export const metadata: Metadata = {
  title: { default: 'Invoices', template: '%s · Invoices' },
  description: 'An example of sessions kept in PostgreSQL by session_manager',
};

export const viewport: Viewport = {
  themeColor: [
    { media: '(prefers-color-scheme: light)', color: '#f6f6f3' },
    { media: '(prefers-color-scheme: dark)', color: '#0f1211' },
  ],
};

export default async function RootLayout({ children }: { children: ReactNode }): Promise<ReactElement> {
  // Without a verdict the page is sent all the same, and the browser asks again.
  const session = await getServerSession().catch(() => undefined);
  return (
    <html lang="en">
      <body>
        <Sessions session={session}>{children}</Sessions>
      </body>
    </html>
  );
}
