import { act, cleanup, render, renderHook, screen } from '@testing-library/react';
import { StrictMode, type ReactNode } from 'react';
import { hydrateRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterEach, beforeEach, describe, expect, expectTypeOf, it, vi } from 'vitest';
import {
  SessionProvider,
  useAuth,
  useSession,
  useSubscription,
  useTenant,
  type SessionData,
  type UseSessionResult,
} from '../src/index.js';
import { Backend } from './support/backend.js';
import { setVisible } from './support/browser.js';
import { pass, settle, withoutChance } from './support/time.js';

let backend: Backend;

beforeEach(() => {
  withoutChance();
  backend = new Backend();
  backend.install();
});
afterEach(cleanup);

const within = (session?: SessionData | null) =>
  function Wrapper({ children }: { children: ReactNode }) {
    return <SessionProvider session={session}>{children}</SessionProvider>;
  };

const settled = () => act(settle);
const passed = (ms: number, step?: number) => act(() => pass(ms, step));

async function comeBack() {
  await passed(6_000);
  await act(async () => {
    setVisible(true);
    await settle();
  });
}

describe('useSession', () => {
  it('goes from loading to the session', async () => {
    backend.signIn();
    const { result } = renderHook(() => useSession(), { wrapper: within() });
    expect(result.current.status).toBe('loading');
    await settled();
    expect(result.current.status).toBe('authenticated');
    expect(result.current.data?.user.name).toBe('Ada');
  });

  it('needs a provider', () => {
    vi.spyOn(console, 'error').mockReturnValue();
    expect(() => renderHook(() => useSession())).toThrow('SessionProvider');
  });

  it('hands out the same functions at every render', async () => {
    const { result } = renderHook(() => useSession(), { wrapper: within(backend.signIn()) });
    const { createSession, update, refresh, signOut, switchTenant } = result.current;
    await act(() => update({ client: { theme: 'dark' } }));
    expect(result.current.data?.session.version).toBe(2);
    expect(result.current).toMatchObject({ createSession, update, refresh, signOut, switchTenant });
  });

  it('renders again for what was read, and for nothing else', async () => {
    const renders = { status: 0, refetching: 0, data: 0 };
    function Status() {
      renders.status++;
      return <p>{useSession().status}</p>;
    }
    function Refetching() {
      renders.refetching++;
      return <p>{String(useSession().isRefetching)}</p>;
    }
    function Plan() {
      renders.data++;
      return <p>{useSession().data?.session.data.plan}</p>;
    }
    render(
      <>
        <Status />
        <Refetching />
        <Plan />
      </>,
      { wrapper: within(backend.signIn()) },
    );
    expect(renders).toEqual({ status: 1, refetching: 1, data: 1 });

    await comeBack();
    expect(backend.log).toEqual(['GET /api/session']);
    expect(renders).toEqual({ status: 1, refetching: 3, data: 1 });

    backend.session!.data.plan = 'team';
    await comeBack();
    expect(renders).toEqual({ status: 1, refetching: 5, data: 2 });
    expect(screen.getByText('team')).toBeDefined();
  });

  it('has the session at hand, the same object until it changes', async () => {
    const seen: unknown[] = [];
    function Plan() {
      const { session } = useSession();
      seen.push(session);
      return <p>{session ? `${session.data.plan} ${session.id}` : 'none'}</p>;
    }
    render(<Plan />, { wrapper: within(backend.signIn()) });
    expect(screen.getByText('free session-1')).toBeDefined();

    backend.user = { id: 'auth0|ada', name: 'Countess Lovelace' };
    await comeBack();
    expect(backend.log).toEqual(['GET /api/session']);
    expect(seen).toHaveLength(1);

    backend.session!.data.plan = 'team';
    await comeBack();
    expect(screen.getByText('team session-1')).toBeDefined();
    expect(seen).toHaveLength(2);

    backend.signOut();
    await comeBack();
    expect(screen.getByText('none')).toBeDefined();
    expect(seen).toHaveLength(3);
  });

  it('has the session of its data, of the type that the application gave it', () => {
    const { result } = renderHook(() => useSession(), { wrapper: within(backend.signIn()) });
    expect(result.current.session).toBe(result.current.data?.session);
    expectTypeOf(result.current.session).toEqualTypeOf<SessionData['session'] | null>();
    expect(renderHook(() => useSession().session, { wrapper: within(null) }).result.current).toBe(null);
  });

  it('tells the truth about what is read later', async () => {
    let seen: UseSessionResult | undefined;
    let renders = 0;
    function Silent() {
      renders++;
      seen = useSession();
      return null;
    }
    render(<Silent />, { wrapper: within() });
    backend.signIn();
    await settled();
    expect(renders).toBe(1);
    expect(seen?.status).toBe('authenticated');
  });

  it('is safe under StrictMode: one request, one refresh', async () => {
    backend.signIn();
    const Wrapper = within();
    renderHook(() => useSession().status, {
      wrapper: ({ children }) => (
        <StrictMode>
          <Wrapper>{children}</Wrapper>
        </StrictMode>
      ),
    });
    await settled();
    expect(backend.log).toEqual(['GET /api/session']);
    await passed(50 * 60_000, 60_000);
    expect(backend.times('POST /api/session/refresh')).toBe(1);
  });

  it('stops with its provider', async () => {
    const { unmount } = renderHook(() => useSession().status, { wrapper: within(backend.signIn()) });
    unmount();
    await passed(3 * 3_600_000, 60_000);
    expect(backend.log).toEqual([]);
  });

  it('does what is due although its page renders all the time', async () => {
    backend.signIn();
    const page = () => <SessionProvider refetchInterval={5} />;
    const { rerender } = render(page());
    await passed(1_000);
    const before = backend.log.length;
    for (let i = 0; i < 100; i++) {
      rerender(page());
      await passed(100);
    }
    expect(backend.log.length).toBeGreaterThan(before);
  });

  it('follows what the server renders', async () => {
    const first = backend.signIn();
    const Plan = () => <p>{useSession().data?.session.data.plan}</p>;
    const page = (session: SessionData) => (
      <SessionProvider session={session}>
        <Plan />
      </SessionProvider>
    );
    const { rerender } = render(page(first));
    await passed(1_000);
    backend.session!.version++;
    backend.session!.data.plan = 'team';
    rerender(page(backend.answer()));
    expect(screen.getByText('team')).toBeDefined();
  });
});

describe('onChange', () => {
  it('is the function of the newest render, and does not answer what the server renders', async () => {
    const first = backend.signIn();
    const calls: string[] = [];
    const page = (name: string, session: SessionData) => (
      <StrictMode>
        <SessionProvider session={session} onChange={() => calls.push(name)}>
          <Update />
        </SessionProvider>
      </StrictMode>
    );
    function Update() {
      const { update } = useSession();
      return <button onClick={() => void update({ client: { theme: 'dark' } })}>Dark</button>;
    }
    const { rerender } = render(page('first', first));
    rerender(page('second', first));
    await act(async () => {
      screen.getByText('Dark').click();
      await settle();
    });
    expect(calls).toEqual(['second']);
    // What router.refresh() brings.
    rerender(page('third', backend.answer()));
    await settled();
    expect(calls).toEqual(['second']);
  });
});

describe('required', () => {
  it('calls back once when there is no session, and not before that is known', async () => {
    const onUnauthenticated = vi.fn();
    backend.outage = { status: 503 };
    renderHook(() => useSession({ required: true, onUnauthenticated }).status, { wrapper: within() });
    await passed(20_000);
    expect(onUnauthenticated).not.toHaveBeenCalled();
    backend.outage = undefined;
    await passed(40_000);
    expect(onUnauthenticated).toHaveBeenCalledOnce();
  });

  it('calls back when the session ends', async () => {
    const onUnauthenticated = vi.fn();
    renderHook(() => useSession({ required: true, onUnauthenticated }), { wrapper: within(backend.signIn()) });
    await settled();
    expect(onUnauthenticated).not.toHaveBeenCalled();
    backend.signOut();
    await comeBack();
    expect(onUnauthenticated).toHaveBeenCalledOnce();
  });

  it('waits until a refusal is confirmed', async () => {
    const onUnauthenticated = vi.fn();
    renderHook(() => useSession({ required: true, onUnauthenticated }), { wrapper: within(backend.signIn()) });
    backend.faults = [{ status: 401 }];
    await comeBack();
    expect(backend.log).toEqual(['GET /api/session', 'GET /api/session']);
    expect(onUnauthenticated).not.toHaveBeenCalled();
  });

  it('opens the sign-in page by default, which learns where to come back to', async () => {
    const assign = vi.fn();
    vi.stubGlobal('location', { href: location.href, pathname: '/invoices', search: '?page=2', hash: '#top', assign });
    renderHook(() => useSession({ required: true }), { wrapper: within(null) });
    await settled();
    expect(String(assign.mock.calls[0])).toBe('https://app.test/login?returnTo=%2Finvoices%3Fpage%3D2%23top');
    vi.unstubAllGlobals();
  });
});

describe('rendering on the server', () => {
  const Page = () => {
    const { status, data } = useSession();
    return <p>{`${status} ${data?.user.name ?? ''}`}</p>;
  };

  it.each([
    ['a session', () => backend.signIn(), 'authenticated Ada'],
    ['none', () => null, 'unauthenticated '],
    ['no knowledge', () => undefined, 'loading '],
  ])('shows and hydrates %s', async (_, session, text) => {
    const data = session();
    const page = (
      <SessionProvider session={data}>
        <Page />
      </SessionProvider>
    );
    const html = renderToString(page);
    expect(html).toBe(`<p>${text}</p>`);
    const root = document.createElement('div');
    root.innerHTML = html;
    const onRecoverableError = vi.fn();
    await act(async () => {
      hydrateRoot(root, page, { onRecoverableError });
      await settle();
    });
    expect(onRecoverableError).not.toHaveBeenCalled();
    if (data !== undefined) expect(root.innerHTML).toBe(html);
    expect(backend.times('GET /api/session')).toBe(data === undefined ? 1 : 0);
  });
});

describe('useAuth', () => {
  it('says who is signed in, and signs out', async () => {
    const { result } = renderHook(() => useAuth(), { wrapper: within(backend.signIn()) });
    expect(result.current).toMatchObject({
      isLoaded: true,
      isSignedIn: true,
      userId: 'auth0|ada',
      sessionId: 'session-1',
      user: { name: 'Ada' },
    });
    await act(() => result.current.logout());
    expect(result.current).toMatchObject({ isLoaded: true, isSignedIn: false, user: null, userId: null, sessionId: null });
  });

  it('opens the sign-in page', () => {
    const assign = vi.fn();
    vi.stubGlobal('location', { href: location.href, pathname: '/', search: '', hash: '', assign });
    const { result } = renderHook(() => useAuth(), { wrapper: within(null) });
    result.current.login({ returnTo: '/reports' });
    expect(String(assign.mock.calls[0])).toBe('https://app.test/login?returnTo=%2Freports');
    vi.unstubAllGlobals();
  });
});

describe('useTenant', () => {
  it('tells the tenants and switches between them', async () => {
    const { result } = renderHook(() => useTenant(), { wrapper: within(backend.signIn()) });
    expect(result.current).toMatchObject({ tenantId: 'acme', tenants: [{ id: 'acme', name: 'Acme' }] });
    await act(() => result.current.switchTenant('umbrella'));
    expect(result.current.tenantId).toBe('umbrella');
  });

  it('without a session there is none', () => {
    const { result, rerender } = renderHook(() => useTenant(), { wrapper: within(null) });
    const { tenants } = result.current;
    expect(result.current).toMatchObject({ tenantId: null, tenants: [] });
    rerender();
    expect(result.current.tenants).toBe(tenants);
  });
});

describe('useSubscription', () => {
  it.each([
    [{ subscription: { plan: 'team', status: 'active' } }, { plan: 'team', status: 'active', isActive: true }],
    [{ subscription: { plan: 'team', status: 'trialing' } }, { plan: 'team', status: 'trialing', isActive: true }],
    [{ subscription: { plan: 'team', status: 'past_due' } }, { plan: 'team', status: 'past_due', isActive: false }],
    [{ plan: 'free' }, { plan: 'free', status: null, isActive: false }],
    [{}, { plan: null, status: null, isActive: false }],
  ])('of %j', (data, expected) => {
    backend.signIn();
    backend.session!.data = data;
    const { result } = renderHook(() => useSubscription(), { wrapper: within(backend.answer()) });
    expect(result.current).toEqual(expected);
  });
});
