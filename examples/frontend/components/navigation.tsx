'use client';

import Link from 'next/link';
import { usePathname } from 'next/navigation';
import type { ReactElement } from 'react';
import { Icon, type IconName } from './icons';

const LINKS: [string, string, IconName][] = [
  ['/account', 'Account', 'account'],
  ['/invoices', 'Invoices', 'invoices'],
  ['/devices', 'Devices', 'devices'],
  ['/history', 'History', 'history'],
];

export function Navigation(): ReactElement {
  const path = usePathname();
  return (
    <nav className="navigation" aria-label="Main">
      <ul>
        {LINKS.map(([href, label, icon]) => (
          <li key={href}>
            {/* What a prefetch has brought may be of a session that has ended since. */}
            <Link href={href} prefetch={false} aria-current={path === href ? 'page' : undefined}>
              <Icon name={icon} />
              {label}
            </Link>
          </li>
        ))}
      </ul>
    </nav>
  );
}
