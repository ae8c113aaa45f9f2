/** Options of the server's side; an option that is not set is read from the environment. */
export interface SessionServerOptions {
  /** Where Django is, such as `http://127.0.0.1:8000`; SESSION_BACKEND_URL. */
  backendUrl?: string | undefined;
  /** The cookie's name without a `__Host-` prefix, which is found as well; SESSION_COOKIE_NAME, else `session_token`. */
  cookieName?: string | undefined;
  /** The same of the cookie with the proof of a bound session's device; SESSION_DEVICE_COOKIE_NAME, else `session_proof`. */
  deviceCookieName?: string | undefined;
  /** Where the route handlers are, as for `<SessionProvider>`; SESSION_BASE_PATH, else `/api/session`. */
  basePath?: string | undefined;
  /** Milliseconds to wait for Django; SESSION_BACKEND_TIMEOUT, else 5000. */
  timeout?: number | undefined;
  /**
   * How many proxies in front of Next.js append to X-Forwarded-For;
   * SESSION_TRUSTED_PROXIES, else 0: any client can write that header, so it is not trusted.
   */
  trustedProxies?: number | undefined;
  /** Origins, besides the request's own, that may send unsafe requests; SESSION_ALLOWED_ORIGINS, separated by commas. */
  allowedOrigins?: string[] | undefined;
}

export interface SessionServerConfig {
  backend: URL;
  cookieNames: string[];
  deviceCookieNames: string[];
  basePath: string;
  timeout: number;
  trustedProxies: number;
  allowedOrigins: string[];
}

export function cookieNames(name = process.env['SESSION_COOKIE_NAME'] ?? 'session_token'): string[] {
  return withPrefix(name);
}

function withPrefix(name: string): string[] {
  const prefix = '__Host-';
  return name.startsWith(prefix) ? [name] : [prefix + name, name];
}

/** Each bundle has its own copy of this module; the process warns once. */
const SAID = Symbol.for('session_manager: no client addresses');

/** Warn once in production that no client address is passed on, unless the setting says so with 0. */
export function warnWithoutAddresses(options: SessionServerOptions = {}): void {
  const env = process.env;
  const isDecided = options.trustedProxies !== undefined || env['SESSION_TRUSTED_PROXIES'] !== undefined;
  // `next build` loads the routes as well, in an environment that need not be the server's.
  const isServing = env['NODE_ENV'] === 'production' && env['NEXT_PHASE'] !== 'phase-production-build';
  const state = globalThis as Record<symbol, unknown>;
  if (isDecided || !isServing || state[SAID]) return;
  state[SAID] = true;
  console.warn(
    'Sessions: SESSION_TRUSTED_PROXIES is not set, so no client address is passed on to Django. Django throttles nothing ' +
      'by address, and lists of devices show the address of this server. Set it to the number of proxies in front of ' +
      'Next.js that append to X-Forwarded-For, and TRUSTED_PROXIES to 1 in Django; or set it to 0 if this is intended.',
  );
}

/** @throws Error when a value is missing or invalid */
export function readConfig(options: SessionServerOptions = {}): SessionServerConfig {
  const env = process.env;
  const url = options.backendUrl ?? env['SESSION_BACKEND_URL'];
  if (!url || !/^https?:\/\//.test(url)) {
    throw new Error('Set backendUrl or SESSION_BACKEND_URL to the http(s) address of the Django backend.');
  }
  const trustedProxies = options.trustedProxies ?? Number(env['SESSION_TRUSTED_PROXIES'] ?? 0);
  if (!Number.isInteger(trustedProxies) || trustedProxies < 0) {
    throw new Error('trustedProxies (SESSION_TRUSTED_PROXIES) must be a number of proxies.');
  }
  warnWithoutAddresses(options);
  const timeout = options.timeout ?? Number(env['SESSION_BACKEND_TIMEOUT'] ?? 5_000);
  if (!(timeout > 0)) throw new Error('timeout (SESSION_BACKEND_TIMEOUT) must be a number of milliseconds.');
  return {
    backend: new URL(url.replace(/\/*$/, '/')),
    cookieNames: cookieNames(options.cookieName),
    deviceCookieNames: withPrefix(options.deviceCookieName ?? env['SESSION_DEVICE_COOKIE_NAME'] ?? 'session_proof'),
    basePath: (options.basePath ?? env['SESSION_BASE_PATH'] ?? '/api/session').replace(/\/+$/, ''),
    timeout,
    trustedProxies,
    allowedOrigins:
      options.allowedOrigins ??
      (env['SESSION_ALLOWED_ORIGINS'] ?? '')
        .split(',')
        .map((origin) => origin.trim())
        .filter(Boolean),
  };
}
