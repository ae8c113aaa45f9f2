'use client';

import { useSession } from '@session-manager/react';
import { useEffect, useState, type ReactElement } from 'react';
import { Icon } from './icons';
import { LocalTime } from './local-time';

const RADIUS = 42;
const LENGTH = 2 * Math.PI * RADIUS;

function clock(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  const pad = (n: number) => String(n).padStart(2, '0');
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

/** How long the session lives, second by second. */
export function Countdown(): ReactElement | null {
  const { data, refresh, timeLeft } = useSession();
  const end = data && Date.parse(data.session.expires_at);
  // The first picture is the one that the server has drawn, by its own clock.
  const [left, setLeft] = useState(data && end ? end - Date.parse(data.server_time) : 0);
  const [busy, setBusy] = useState(false);

  useEffect(() => {
    const timer = setInterval(() => {
      setLeft(timeLeft());
    }, 1000);
    return () => {
      clearInterval(timer);
    };
  }, [timeLeft]);

  if (!data || !end) return null;
  const { session } = data;
  const whole = end - Date.parse(session.last_seen_at ?? session.created_at);
  const part = Math.min(left / Math.max(whole, left, 1), 1);
  const late = left < 60_000;

  async function extend() {
    setBusy(true);
    await refresh();
    setLeft(timeLeft());
    setBusy(false);
  }

  return (
    <div className="page">
      <div className={late ? 'countdown late' : 'countdown'}>
        <svg width="96" height="96" viewBox="0 0 96 96" aria-hidden="true" fill="none" strokeWidth="8">
          <circle className="track" cx="48" cy="48" r={RADIUS} />
          <circle
            className="left"
            cx="48"
            cy="48"
            r={RADIUS}
            strokeLinecap="round"
            strokeDasharray={LENGTH}
            strokeDashoffset={(LENGTH * (1 - part)).toFixed(2)}
          />
        </svg>
        <div role="timer" aria-label="Time left">
          <strong className="number" data-testid="time-left">
            {clock(left)}
          </strong>
          <span className="muted">until you are signed out</span>
        </div>
      </div>
      <dl className="facts">
        <dt>Ends at</dt>
        <dd>
          <LocalTime value={session.expires_at} format="both" />
        </dd>
        <dt>At the latest</dt>
        <dd>
          <LocalTime value={session.absolute_expires_at} format="both" />
        </dd>
      </dl>
      <div className="actions">
        <button type="button" className="button" disabled={busy} onClick={() => void extend()}>
          <Icon name="refresh" size={17} />
          Extend
        </button>
      </div>
    </div>
  );
}
