import { NextResponse, type NextRequest } from 'next/server.js';
import { sessionCookie } from './backend.js';
import { cookieNames } from './config.js';

export interface SessionProxyOptions {
  /** Paths that need a session, each with everything below it. */
  protect: string[];
  /** The page that signs users in. */
  loginUrl?: string;
  cookieName?: string | undefined;
}

function decode(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/**
 * Redirects visitors without a session cookie to the sign-in page before
 * anything is rendered.  It saves a rendering and protects nothing: only
 * `getServerSession()`, which the page must call, checks the cookie.
 *
 * In `proxy.ts`, as `proxy`.
 */
export function sessionProxy({ protect, loginUrl = '/login', cookieName }: SessionProxyOptions) {
  return (request: NextRequest): NextResponse => {
    const { pathname, searchParams } = request.nextUrl;
    const path = decode(pathname);
    const isProtected = protect.some((prefix) => path === prefix || path.startsWith(prefix.replace(/\/*$/, '/')));
    if (!isProtected || sessionCookie(request.headers.get('cookie'), cookieNames(cookieName))) {
      return NextResponse.next();
    }
    searchParams.delete('_rsc');
    const url = request.nextUrl.clone();
    url.pathname = loginUrl;
    url.search = '';
    url.searchParams.set('returnTo', pathname + (searchParams.size ? `?${searchParams}` : ''));
    // 303: the sign-in page must not get what was posted to the protected page.
    const response = NextResponse.redirect(url, request.method === 'GET' ? 307 : 303);
    response.headers.set('Cache-Control', 'no-store');
    return response;
  };
}

/** The same for Next.js 15, where the file is `middleware.ts` and exports `middleware`. */
export const sessionMiddleware = sessionProxy;
