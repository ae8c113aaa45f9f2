import { safeReturnPath } from '@session-manager/react/next';
import { NextResponse, type NextRequest } from 'next/server';
import { FLOW_COOKIE } from '@/lib/flow-cookie';
import { appUrl, beginFlow } from '@/lib/oidc';

/** Send the browser to the identity provider. */
export async function GET(request: NextRequest): Promise<NextResponse> {
  const returnTo = safeReturnPath(request.nextUrl.searchParams.get('returnTo'), '/account');
  try {
    const { flow, url } = await beginFlow(returnTo);
    const response = NextResponse.redirect(url, 303);
    response.cookies.set({ ...FLOW_COOKIE, value: JSON.stringify(flow), maxAge: 600 });
    response.headers.set('Cache-Control', 'no-store');
    return response;
  } catch {
    return NextResponse.redirect(appUrl('/login?reason=unavailable'), 303);
  }
}
