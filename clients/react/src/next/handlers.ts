/**
 * The route handlers: what the browser may ask of Django, under the pages' own
 * origin, so that the cookie is a first-party one and no CORS is involved.
 *
 * - Unsafe requests are accepted only from pages of this origin, and from the
 *   browser itself for its device, which signs what it sends.
 * - Only JSON, Set-Cookie and a few named headers are passed back.
 * - Only a sign-out deletes the session cookie: any other answer may be late,
 *   and the browser may hold a newer cookie when it arrives.
 */

import { callBackend, readAnswer, sessionCookie, SessionUnavailableError, type BackendRequest } from './backend.js';
import { answersOf, CHALLENGE, instructionsOf, REGISTRATION, registrationOf } from './device.js';
import { readConfig, warnWithoutAddresses, type SessionServerConfig, type SessionServerOptions } from './config.js';
import { isOwn } from './origin.js';

const MAX_BODY = 131_072;
const RELAYED = ['ETag', 'Retry-After', 'WWW-Authenticate', CHALLENGE];
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** RFC 6750: the characters of a bearer token. */
const BEARER = /^[\w.~+/-]+=*$/;

interface RouteContext {
  params: Promise<Record<string, string | string[] | undefined>>;
}

export type RouteHandler = (request: Request, context: RouteContext) => Promise<Response>;

/** A request that is answered here. */
class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly headers?: Record<string, string>,
  ) {
    super(detail);
  }
}

const notFound = () => new Refusal(404, 'not_found', 'There is nothing here.');

function json(body: unknown, status = 200, headers?: HeadersInit): Response {
  const response = new Response(body === undefined ? null : JSON.stringify(body), { status, headers: headers ?? {} });
  if (body !== undefined) response.headers.set('Content-Type', 'application/json');
  response.headers.set('Cache-Control', 'private, no-store');
  response.headers.set('Vary', 'Cookie');
  response.headers.set('X-Content-Type-Options', 'nosniff');
  response.headers.set('Cross-Origin-Resource-Policy', 'same-origin');
  return response;
}

function checkOrigin(request: Request, config: SessionServerConfig): void {
  if (!isOwn(request.headers, config)) {
    throw new Refusal(403, 'csrf_failed', 'The request does not come from a page of this site.');
  }
}

/** The body, a JSON object, read no further than is allowed. */
async function readBody(request: Request): Promise<Record<string, unknown>> {
  if (!/^application\/([\w.-]+\+)?json\b/i.test(request.headers.get('content-type') ?? '')) {
    throw new Refusal(415, 'unsupported_media_type', 'The body must be application/json.');
  }
  const chunks: Uint8Array[] = [];
  let size = 0;
  const reader = (request.body as ReadableStream<Uint8Array> | null)?.getReader();
  for (let part = await reader?.read(); part?.value; part = await reader?.read()) {
    size += part.value.length;
    if (size > MAX_BODY) {
      await reader?.cancel();
      throw new Refusal(413, 'too_large', `The body is larger than ${MAX_BODY} bytes.`);
    }
    chunks.push(part.value);
  }
  try {
    const body: unknown = JSON.parse(await new Blob(chunks as BlobPart[]).text());
    if (body && typeof body === 'object' && !Array.isArray(body)) return body as Record<string, unknown>;
  } catch {
    // answered below
  }
  throw new Refusal(400, 'parse_error', 'The body must be a JSON object.');
}

/** Does a Set-Cookie take the session's cookie away? */
function isClearing(cookie: string, { cookieNames }: SessionServerConfig): boolean {
  const [pair = '', ...attributes] = cookie.split(';').map((part) => part.trim());
  const [name = '', value] = pair.split('=');
  const find = (attribute: string) =>
    attributes.find((part) => part.toLowerCase().startsWith(attribute))?.slice(attribute.length);
  const maxAge = find('max-age=');
  // Max-Age goes before Expires (RFC 6265, section 5.3).
  const isOver = maxAge === undefined ? Date.parse(find('expires=') ?? '') <= Date.now() : Number(maxAge) <= 0;
  return cookieNames.includes(name) && (!value || value === '""' || isOver);
}

/** Pass an answer of the backend on. */
async function relay(response: Response, config: SessionServerConfig, isSignOut = false): Promise<Response> {
  const headers = new Headers();
  for (const cookie of response.headers.getSetCookie()) {
    if ((isSignOut && response.ok) || !isClearing(cookie, config)) headers.append('Set-Cookie', cookie);
  }
  for (const name of RELAYED) {
    const value = response.headers.get(name);
    if (value) headers.set(name, value);
  }
  const registration = registrationOf(response.headers, config);
  if (registration) headers.set(REGISTRATION, registration);
  if (response.status === 204) return json(undefined, 204, headers);
  const isJson = response.headers.get('content-type')?.startsWith('application/json');
  if (isJson && (response.status < 300 || response.status >= 400)) {
    return json(await readAnswer(response), response.status, headers);
  }
  // A page for people, or a redirect: of no use to the caller, and perhaps not for its eyes.
  if (response.status >= 500 || response.status === 429) {
    return json({ detail: 'The backend cannot answer.', code: 'backend_error' }, response.status, headers);
  }
  return json({ detail: 'The backend gave an answer that is not understood.', code: 'bad_gateway' }, 502);
}

/**
 * Pass an answer to the browser's device on.  Anything but a challenge with a
 * status of 4xx ends the binding in the browser for good, and with it the
 * session: a throttle must not.
 */
async function relayToDevice(response: Response, incoming: Headers, config: SessionServerConfig): Promise<Response> {
  const answer = await relay(response, config);
  const { headers } = answer;
  if (answer.status === 429) return json(await answer.json(), 503, headers);
  return answer.status === 200 ? json(instructionsOf(await answer.json(), incoming, config), answer.status, headers) : answer;
}

const unavailable = (error: SessionUnavailableError) =>
  json({ detail: error.message, code: 'backend_unavailable' }, 503, { 'Retry-After': String(error.retryAfter) });

const isOfDevice = ([first]: string[]) => first === 'device';

/** Where a request goes, by its method and the path below the handlers' own. */
async function route(request: Request, path: string[]): Promise<{ path: string } & BackendRequest> {
  const [first, second, ...rest] = path;
  const { method } = request;
  const { searchParams } = new URL(request.url);
  const at = `${method} ${isOfDevice(path) ? path.join('/') : path.length > 1 && first ? `${first}/*` : (first ?? '')}`;
  if (rest.length) throw notFound();

  switch (at) {
    case 'GET ':
      return { path: '/api/sessions/current/' };
    case 'POST ':
      return createRequest(await readBody(request));
    case 'PATCH ': {
      const version = request.headers.get('if-match');
      return {
        method,
        path: '/api/sessions/current/',
        body: JSON.stringify(await readBody(request)),
        headers: version ? { 'If-Match': version } : undefined,
      };
    }
    case 'DELETE ': {
      const scope = searchParams.get('scope') ?? 'local';
      if (scope === 'local') return { method, path: '/api/sessions/current/' };
      if (scope !== 'others' && scope !== 'global') {
        throw new Refusal(400, 'invalid', 'scope must be local, others or global.');
      }
      return {
        method: 'POST',
        path: '/api/sessions/invalidate-all/',
        body: JSON.stringify({ except_current: scope === 'others' }),
      };
    }
    case 'POST refresh':
      return { method, path: '/api/sessions/refresh/' };
    case 'POST tenant':
      return { method, path: '/api/sessions/tenant/', body: JSON.stringify(await readBody(request)) };
    case 'POST device/register':
    case 'POST device/refresh':
      return { method, path: `/api/sessions/${path.join('/')}/`, headers: answersOf(request.headers) };
    case 'DELETE impersonation':
      return { method, path: '/api/sessions/impersonation/' };
    case 'GET devices': {
      const after = searchParams.get('after');
      if (after && !UUID.test(after)) throw new Refusal(400, 'invalid', 'after must be a UUID.');
      return { path: '/api/sessions/' + (after ? `?after=${after}` : '') };
    }
    case 'DELETE devices/*':
      if (!second || !UUID.test(second)) throw notFound();
      return { method, path: `/api/sessions/${second}/` };
    default:
      throw notFound();
  }
}

function createRequest(body: Record<string, unknown>): { path: string } & BackendRequest {
  const { accessToken, ...rest } = body;
  if (typeof accessToken !== 'string' || !BEARER.test(accessToken)) {
    throw new Refusal(400, 'invalid', 'accessToken must be an access token.');
  }
  return {
    method: 'POST',
    path: '/api/sessions/create/',
    body: JSON.stringify(rest),
    headers: { Authorization: `Bearer ${accessToken}` },
  };
}

/**
 * The handlers of `app/api/session/[[...path]]/route.ts`:
 *
 *     export const { GET, POST, PATCH, DELETE } = sessionHandlers();
 */
export function sessionHandlers(options?: SessionServerOptions): Record<'GET' | 'POST' | 'PATCH' | 'DELETE', RouteHandler> {
  warnWithoutAddresses(options);
  const handle: RouteHandler = async (request, { params }) => {
    try {
      const config = readConfig(options);
      const path = [Object.values(await params)[0] ?? []].flat();
      const isDevice = isOfDevice(path);
      if (request.method !== 'GET' && !isDevice) checkOrigin(request, config);
      const { path: target, ...rest } = await route(request, path);
      const isAnonymous = !sessionCookie(request.headers.get('cookie'), config.cookieNames);
      if (isAnonymous && request.method === 'GET' && !path.length) return json({ session: null });
      const isSignOut = request.method === 'DELETE';
      const answer = await callBackend(request.headers, target, rest, config);
      return await (isDevice ? relayToDevice(answer, request.headers, config) : relay(answer, config, isSignOut));
    } catch (error) {
      if (error instanceof Refusal) {
        return json({ detail: error.message, code: error.code }, error.status, error.headers);
      }
      if (error instanceof SessionUnavailableError) return unavailable(error);
      throw error;
    }
  };
  return { GET: handle, POST: handle, PATCH: handle, DELETE: handle };
}

/**
 * Sign in on the server: in the route that the identity provider redirects
 * back to, with the access token that it got there.  The token thus never
 * reaches the browser.
 *
 * @param request the browser's request
 * @returns the backend's answer; its Set-Cookie headers belong into the response,
 *   and so does Secure-Session-Registration, if it has that
 */
export async function createServerSession(
  request: Request,
  body: { accessToken: string; user?: Record<string, unknown>; remember?: boolean },
  options?: SessionServerOptions,
): Promise<Response> {
  const { path, ...rest } = createRequest(body);
  try {
    const config = readConfig(options);
    return await relay(await callBackend(request.headers, path, rest, config), config);
  } catch (error) {
    if (error instanceof SessionUnavailableError) return unavailable(error);
    throw error;
  }
}
