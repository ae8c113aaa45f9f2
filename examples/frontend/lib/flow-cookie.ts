const isSecure = process.env.APP_URL?.startsWith('https:') ?? false;

/**
 * Holds a sign-in that has begun.  Lax, as the browser comes back from another
 * site; with the prefix no neighbouring domain can plant one of its own.
 */
export const FLOW_COOKIE = {
  name: isSecure ? '__Host-sign_in' : 'sign_in',
  path: '/',
  httpOnly: true,
  sameSite: 'lax',
  secure: isSecure,
} as const;
