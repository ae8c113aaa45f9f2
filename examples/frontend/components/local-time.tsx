'use client';

import { useSyncExternalStore, type ReactElement } from 'react';

const never = () => () => undefined;

const FORMATS = {
  time: { hour: '2-digit', minute: '2-digit' },
  date: { day: 'numeric', month: 'long', year: 'numeric' },
  both: { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' },
} satisfies Record<string, Intl.DateTimeFormatOptions>;

/** A time where the reader is; the server, which does not know that, writes UTC. */
export function LocalTime({ value, format = 'time' }: { value: string; format?: keyof typeof FORMATS }): ReactElement {
  const text = useSyncExternalStore(
    never,
    () => new Intl.DateTimeFormat('en-GB', FORMATS[format]).format(new Date(value)),
    () => new Intl.DateTimeFormat('en-GB', { ...FORMATS[format], timeZone: 'UTC' }).format(new Date(value)),
  );
  return <time dateTime={value}>{text}</time>;
}
