import type { Metadata } from 'next';
import type { ReactElement } from 'react';
import { Icon, type IconName } from '@/components/icons';
import { LocalTime } from '@/components/local-time';
import { load, requireSession } from '@/lib/session';
import type { HistoryEvent, Page } from '@/lib/types';
import { describeUserAgent } from '@/lib/user-agent';

export const metadata: Metadata = { title: 'History' };

const EVENTS: Record<string, [string, IconName]> = {
  created: ['Signed in', 'key'],
  refreshed: ['Session extended', 'refresh'],
  rotated: ['Session extended', 'refresh'],
  updated: ['Session data changed', 'check'],
  elevated: ['Signed in again', 'key'],
  invalidated: ['Signed out', 'signOut'],
  evicted: ['Signed out: too many devices', 'stop'],
  expired: ['Session expired', 'history'],
  rejected: ['An attempt was rejected', 'warning'],
  token_reused: ['A copied session was stopped', 'stop'],
  client_changed: ['Used from another network', 'warning'],
};

const REASONS: Record<string, string> = {
  logout: 'on this device',
  logout_all: 'everywhere',
  revoked_by_user: 'from another device',
  tenant_switch: 'to switch organisations',
};

const TONES: Record<string, string> = { warning: 'warning', critical: 'danger' };

export default async function HistoryPage(): Promise<ReactElement> {
  const { session } = await requireSession('/history');
  const { results } = await load<Page<HistoryEvent>>('/api/history/');
  return (
    <div className="page">
      <div className="title">
        <div>
          <h1>History</h1>
          <p className="muted">What happened to your sessions, newest first.</p>
        </div>
      </div>
      <ol className="card rows" aria-label="Events">
        {results.map((event) => {
          const [text, icon] = EVENTS[event.event] ?? [event.event.replaceAll('_', ' '), 'history'];
          const reason = REASONS[String(event.detail?.reason)];
          const place = [event.user_agent && describeUserAgent(event.user_agent).label, event.ip].filter(Boolean);
          return (
            <li key={event.id}>
              <span className={`symbol ${TONES[event.severity ?? ''] ?? ''}`}>
                <Icon name={icon} />
              </span>
              <div className="text">
                <p className="first">
                  {text}
                  {reason && ` ${reason}`}
                  {event.session_id === session.id && <span className="badge good">This session</span>}
                </p>
                <p className="muted">
                  <LocalTime value={event.at} format="both" />
                  {place.length > 0 && <span className="number"> · {place.join(' · ')}</span>}
                </p>
              </div>
            </li>
          );
        })}
      </ol>
    </div>
  );
}
