import { createServerSession, safeReturnPath } from '@session-manager/react/next';
import { NextResponse, type NextRequest } from 'next/server';
import { FLOW_COOKIE } from '@/lib/flow-cookie';
import { appUrl, finishFlow, type Flow } from '@/lib/oidc';

function parseFlow(cookie: string | undefined): Flow | undefined {
  try {
    return cookie ? (JSON.parse(cookie) as Flow) : undefined;
  } catch {
    return undefined;
  }
}

/** Why a sign-in failed, in the terms of the sign-in page. */
const REASONS: Record<number, string> = { 409: 'limit', 429: 'busy', 503: 'unavailable' };

function end(path: string): NextResponse {
  const response = NextResponse.redirect(appUrl(path), 303);
  response.cookies.set({ ...FLOW_COOKIE, value: '', maxAge: 0 });
  response.headers.set('Cache-Control', 'no-store');
  return response;
}

/** The browser comes back from the identity provider with a code. */
export async function GET(request: NextRequest): Promise<NextResponse> {
  const flow = parseFlow(request.cookies.get(FLOW_COOKIE.name)?.value);
  if (!flow) return end('/login?reason=failed');

  let grant;
  try {
    grant = await finishFlow(request.nextUrl.searchParams, flow);
  } catch {
    return end('/login?reason=failed');
  }
  const answer = await createServerSession(request, grant);
  if (!answer.ok) return end(`/login?reason=${REASONS[answer.status] ?? 'failed'}`);

  const response = end(safeReturnPath(flow.returnTo, '/account'));
  for (const cookie of answer.headers.getSetCookie()) response.headers.append('Set-Cookie', cookie);
  const registration = answer.headers.get('Secure-Session-Registration');
  if (registration) response.headers.set('Secure-Session-Registration', registration);
  return response;
}
