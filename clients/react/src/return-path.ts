/**
 * The path to go to after signing in, from a parameter that anybody may have
 * written.  Only a path of this origin passes; browsers read `//host`,
 * `/\host` and paths with tabs or newlines in them as other hosts.
 *
 * @returns path, query and fragment, or `fallback`
 */
export function safeReturnPath(value: string | null | undefined, fallback = '/'): string {
  const base = 'http://origin.invalid';
  try {
    const url = new URL(value ?? '', base);
    const path = url.pathname + url.search + url.hash;
    if (value?.startsWith('/') && url.origin === base && !path.startsWith('//')) return path;
  } catch {
    // not a URL at all
  }
  return fallback;
}
