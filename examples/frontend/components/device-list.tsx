'use client';

import { useSession, type SignOutScope } from '@session-manager/react';
import { useRouter } from 'next/navigation';
import { useState, type ReactElement } from 'react';
import type { Device } from '@/lib/types';
import { describeUserAgent } from '@/lib/user-agent';
import { Icon } from './icons';
import { LocalTime } from './local-time';

export function DeviceList({ devices }: { devices: Device[] }): ReactElement {
  const { refresh, signOut } = useSession();
  const router = useRouter();
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState(false);

  async function run(work: () => Promise<void>) {
    setBusy(true);
    setFailed(false);
    try {
      await work();
    } catch {
      setFailed(true);
    } finally {
      setBusy(false);
      router.refresh();
    }
  }

  const leave = (scope: SignOutScope) => run(() => signOut({ scope }));

  const revoke = (id: string) =>
    run(async () => {
      const response = await fetch(`/api/session/devices/${id}`, { method: 'DELETE' });
      // 404: it has ended by itself.  401: so have we, which refresh() finds out.
      if (response.status === 401) await refresh();
      else if (!response.ok && response.status !== 404) throw new Error('not revoked');
    });

  return (
    <div className="page">
      <div className="title">
        <div>
          <h1>Devices</h1>
          <p className="muted">Where you are signed in. End what you do not recognise.</p>
        </div>
        <div className="actions">
          <button
            type="button"
            className="button"
            disabled={busy || devices.length < 2}
            onClick={() => void leave('others')}
          >
            Sign out all others
          </button>
          <button type="button" className="button danger" disabled={busy} onClick={() => void leave('global')}>
            Sign out everywhere
          </button>
        </div>
      </div>
      {failed && (
        <p className="notice danger" role="alert">
          <Icon name="warning" size={18} />
          That did not succeed. Please try again.
        </p>
      )}
      <ul className="card rows devices" aria-label="Devices">
        {devices.map(({ id, is_current, ip, last_seen_at, created_at, user_agent }) => {
          const { label, isPhone } = describeUserAgent(user_agent);
          return (
            <li key={id} data-session={id}>
              <span className={is_current ? 'symbol good' : 'symbol'}>
                <Icon name={isPhone ? 'phone' : 'devices'} />
              </span>
              <div className="text">
                <p className="first">
                  {label}
                  {is_current && <span className="badge good">This device</span>}
                </p>
                <p className="muted">
                  <span className="number">{ip ?? 'Unknown address'}</span> · last seen{' '}
                  <LocalTime value={last_seen_at ?? created_at} format="both" />
                </p>
              </div>
              {!is_current && (
                <button type="button" className="button danger" disabled={busy} onClick={() => void revoke(id)}>
                  Revoke<span className="hidden-visually"> {label}</span>
                </button>
              )}
            </li>
          );
        })}
      </ul>
    </div>
  );
}
