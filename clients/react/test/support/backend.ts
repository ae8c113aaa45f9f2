/**
 * The route handlers as the browser's part sees them: a session behind
 * /api/session that can be refreshed and ended, or fail in any way.
 */

import { delay, http, HttpResponse } from 'msw';
import { setupServer } from 'msw/node';
import type { SessionData } from '../../src/index.js';

export const server = setupServer();

const HOUR = 3_600_000;

export type Fault = { status: number; retryAfter?: string; body?: string } | 'network';

export class Backend {
  /** Requests as "METHOD /path", in order. */
  log: string[] = [];
  /** What the next requests get in place of an answer. */
  faults: Fault[] = [];
  /** Every request gets this while it is set. */
  outage: Fault | undefined;
  /** Milliseconds that an answer takes. */
  latency = 0;
  /** The server's clock minus the browser's. */
  skew = 0;
  ttl = HOUR;
  /** What a refusal says besides. */
  refusal: { code: string; reason?: string } = { code: 'session_expired' };
  session: SessionData['session'] | null = null;
  user: SessionData['user'] = { id: 'auth0|ada', name: 'Ada' };
  bodies: unknown[] = [];
  headers: Headers[] = [];
  private count = 0;

  now(): number {
    return Date.now() + this.skew;
  }

  private iso(ms: number): string {
    return new Date(ms).toISOString();
  }

  /** Begin a session; the answer that a page would be rendered with. */
  signIn(): SessionData {
    const now = this.now();
    this.session = {
      id: `session-${++this.count}`,
      created_at: this.iso(now),
      last_seen_at: this.iso(now),
      expires_at: this.iso(now + this.ttl),
      absolute_expires_at: this.iso(now + 100 * HOUR),
      version: 1,
      tenant_id: 'acme',
      auth: null,
      actor: null,
      data: { plan: 'free', tenants: [{ id: 'acme', name: 'Acme' }] },
    };
    return this.answer();
  }

  answer(): SessionData {
    if (!this.session) throw new Error('no session');
    return structuredClone({ session: this.session, user: this.user, server_time: this.iso(this.now()) });
  }

  signOut(): void {
    this.session = null;
  }

  times(request: string): number {
    return this.log.filter((line) => line === request).length;
  }

  private async fault(request: Request): Promise<Response | undefined> {
    const url = new URL(request.url);
    this.log.push(`${request.method} ${url.pathname}${url.search}`);
    this.headers.push(request.headers);
    this.bodies.push(await request.clone().text());
    if (this.latency) await delay(this.latency);
    const fault = this.outage ?? this.faults.shift();
    if (!fault) return undefined;
    if (fault === 'network') return HttpResponse.error();
    return new HttpResponse(fault.body ?? JSON.stringify({ detail: 'no', code: 'fault' }), {
      status: fault.status,
      headers: { 'Content-Type': 'application/json', ...(fault.retryAfter && { 'Retry-After': fault.retryAfter }) },
    });
  }

  install(): void {
    const unauthorised = () => HttpResponse.json({ detail: 'no session', ...this.refusal }, { status: 401 });
    const current = () => (this.session ? HttpResponse.json(this.answer()) : unauthorised());
    server.use(
      http.get('/api/session', async ({ request }) => {
        // What is answered is what held when the request came in.
        const answer = current();
        return (await this.fault(request)) ?? answer;
      }),
      http.post('/api/session', async ({ request }) => {
        const fault = await this.fault(request);
        if (fault) return fault;
        return HttpResponse.json(this.signIn(), { status: 201 });
      }),
      http.patch('/api/session', async ({ request }) => {
        const fault = await this.fault(request);
        if (fault) return fault;
        if (!this.session) return unauthorised();
        const expected = request.headers.get('if-match');
        if (expected && expected !== `"${this.session.version}"`) {
          return HttpResponse.json({ detail: 'changed', code: 'version_conflict' }, { status: 412 });
        }
        this.session.version++;
        Object.assign(this.session.data, await request.json());
        return current();
      }),
      http.delete('/api/session', async ({ request }) => {
        const fault = await this.fault(request);
        if (fault) return fault;
        if (!new URL(request.url).search.includes('others')) this.signOut();
        return new HttpResponse(null, { status: 204 });
      }),
      http.post('/api/session/refresh', async ({ request }) => {
        const fault = await this.fault(request);
        if (fault) return fault;
        if (this.session) this.session.expires_at = this.iso(this.now() + this.ttl);
        return current();
      }),
      http.post('/api/session/tenant', async ({ request }) => {
        const fault = await this.fault(request);
        if (fault) return fault;
        if (!this.session) return unauthorised();
        const { tenant_id } = (await request.json()) as { tenant_id: string };
        this.session = { ...this.session, tenant_id, id: `session-${++this.count}` };
        return current();
      }),
    );
  }
}
