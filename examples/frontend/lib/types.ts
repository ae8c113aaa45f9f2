/** What the backend's lists hold. */

export interface Device {
  id: string;
  is_current: boolean;
  created_at: string;
  last_seen_at: string | null;
  expires_at: string;
  ip: string | null;
  user_agent: string | null;
}

export interface HistoryEvent {
  id: number;
  at: string;
  session_id: string | null;
  event: string;
  severity: string | null;
  ip: string | null;
  user_agent: string | null;
  detail: Record<string, unknown> | null;
}

export interface Page<T> {
  results: T[];
}

export interface Invoice {
  number: string;
  customer: string;
  amount: string;
  currency: string;
  issued_on: string;
}
