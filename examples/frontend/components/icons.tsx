import type { ReactElement } from 'react';

const PATHS = {
  account: 'M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Zm-7 8c.8-3.2 3.6-5 7-5s6.2 1.8 7 5',
  invoices: 'M6 3h12v18l-3-2-3 2-3-2-3 2zM9.5 8.500h5M9.5 12.500h5',
  devices: 'M4 5h16v10H4zM9 19h6M12 15v4',
  phone: 'M8 3h8a1 1 0 0 1 1 1v16a1 1 0 0 1-1 1H8a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1Zm3 15h2',
  history: 'M4 12a8 8 0 1 0 2.5-5.800M4 4.500V8h3.500M12 8v4.500l3 1.7',
  signOut: 'M10 4H5v16h5M15 8l4 4-4 4M19 12H9',
  check: 'M5 12.500l4.5 4.500L19 7.5',
  warning: 'M12 4 3 20h18zM12 10v4M12 17v.1',
  offline: 'M3 3l18 18M5 12.500a10 10 0 0 1 4-2.500M2 9a15 15 0 0 1 4.5-2.800M12 6a15 15 0 0 1 10 3M14.5 10.400A10 10 0 0 1 19 12.500M8.5 16a5 5 0 0 1 6.5-.200M12 20v.1',
  chevron: 'M8 10l4 4 4-4',
  refresh: 'M20 12a8 8 0 1 1-2.5-5.800M20 4v4h-4',
  key: 'M14.5 13.500a4.5 4.5 0 1 0-4-4L4 16v4h4v-3h3z',
  stop: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM6 6l12 12',
} as const;

export type IconName = keyof typeof PATHS;

/** A decoration; what it says is said in text beside it. */
export function Icon({ name, size = 20 }: { name: IconName; size?: number }): ReactElement {
  return (
    <svg
      aria-hidden="true"
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.7"
      strokeLinecap="round"
      strokeLinejoin="round"
    >
      <path d={PATHS[name]} />
    </svg>
  );
}
