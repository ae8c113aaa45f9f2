/** Holds a sign-in that has begun.  Lax, as the browser comes back from another site. */
export const FLOW_COOKIE = {
  name: 'sign_in',
  path: '/auth/callback',
  httpOnly: true,
  sameSite: 'lax',
  secure: process.env.APP_URL?.startsWith('https:') ?? false,
} as const;
