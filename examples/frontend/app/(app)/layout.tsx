import type { ReactElement, ReactNode } from 'react';
import { Brand } from '@/components/brand';
import { Gate } from '@/components/gate';
import { Navigation } from '@/components/navigation';
import { Notices } from '@/components/notices';
import { Person } from '@/components/person';
import { TenantSwitch } from '@/components/tenant-switch';

/** The frame.  It decides nothing: each page asks for the session itself. */
export default function AppLayout({ children }: { children: ReactNode }): ReactElement {
  return (
    <Gate>
      <div className="shell">
        <header className="sidebar">
          <Brand />
          <TenantSwitch />
          <Navigation />
          <div className="spacer" />
          <Person />
        </header>
        <main className="main">
          <Notices />
          {children}
        </main>
      </div>
    </Gate>
  );
}
