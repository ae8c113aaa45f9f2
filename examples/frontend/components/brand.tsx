import Link from 'next/link';
import type { ReactElement } from 'react';

export function Brand(): ReactElement {
  return (
    <Link className="brand" href="/">
      <svg aria-hidden="true" width="30" height="30" viewBox="0 0 32 32">
        <rect width="32" height="32" rx="9" fill="currentColor" />
        <path
          d="M10 8h12v16l-3-2-3 2-3-2-3 2zM13.5 13h5M13.5 17h5"
          fill="none"
          stroke="var(--accent-text)"
          strokeWidth="1.8"
          strokeLinecap="round"
          strokeLinejoin="round"
        />
      </svg>
      Invoices
    </Link>
  );
}
