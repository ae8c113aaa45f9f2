import type { SessionServerConfig } from './config.js';

/**
 * Whether a request comes from a page of this site.  Another site can make a
 * browser send one with the cookie.  Browsers say in Sec-Fetch-Site where a
 * request comes from, and older ones in Origin.
 */
export function isOwn(headers: Headers, { allowedOrigins, trustedProxies }: SessionServerConfig): boolean {
  const site = headers.get('sec-fetch-site');
  const origin = headers.get('origin');
  if (site === 'same-origin') return true;
  if (!origin) return false;
  if (allowedOrigins.includes(origin)) return true;
  if (site) return false;
  const forwarded = trustedProxies > 0 ? headers.get('x-forwarded-host')?.split(',').at(-trustedProxies) : null;
  const host = (forwarded ?? headers.get('host'))?.trim();
  return Boolean(host) && URL.canParse(origin) && new URL(origin).host === host;
}
