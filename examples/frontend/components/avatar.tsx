import type { ReactElement } from 'react';

const initials = (name: string) =>
  name
    .split(/\s+/)
    .map((word) => word.charAt(0))
    .slice(0, 2)
    .join('')
    .toUpperCase();

export function Avatar({ name, large }: { name: string; large?: boolean }): ReactElement {
  return (
    <span className={large ? 'avatar large' : 'avatar'} aria-hidden="true">
      {initials(name)}
    </span>
  );
}
