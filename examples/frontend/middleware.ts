import { sessionMiddleware } from '@session-manager/react/next';
import { NextResponse, type NextRequest } from 'next/server';

const protect = sessionMiddleware({ protect: ['/account', '/devices', '/history', '/invoices'] });

/** Only scripts that carry this response's nonce run; see https://nextjs.org/docs/app/guides/content-security-policy */
function policy(nonce: string): string {
  const isDevelopment = process.env.NODE_ENV === 'development';
  return [
    "default-src 'self'",
    `script-src 'self' 'nonce-${nonce}' 'strict-dynamic'${isDevelopment ? " 'unsafe-eval'" : ''}`,
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
  ].join('; ');
}

export function middleware(request: NextRequest): NextResponse {
  const answer = protect(request);
  if (answer.headers.has('location')) return answer;
  const csp = policy(btoa(crypto.randomUUID()));
  const headers = new Headers(request.headers);
  headers.set('Content-Security-Policy', csp);
  const response = NextResponse.next({ request: { headers } });
  response.headers.set('Content-Security-Policy', csp);
  return response;
}

export const config = {
  matcher: ['/((?!api/|_next/static|_next/image|icon.svg).*)'],
};
