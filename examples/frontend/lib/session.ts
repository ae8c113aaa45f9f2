import { fetchBackend, getServerSession, SessionUnavailableError } from '@session-manager/react/next';
import type { SessionData } from '@session-manager/react';
import { redirect } from 'next/navigation';

/** The session, or a redirect to the sign-in page.  Every protected page calls it: a layout is not rendered for each of its pages. */
export async function requireSession(path: string): Promise<SessionData> {
  const session = await getServerSession();
  if (!session) redirect(`/login?returnTo=${encodeURIComponent(path)}`);
  return session;
}

/** JSON of the backend, for a page that shows it. */
export async function load<T>(path: string): Promise<T> {
  const response = await fetchBackend(path);
  if (!response.ok) throw new SessionUnavailableError(`The backend answered ${response.status}.`);
  return (await response.json()) as T;
}
