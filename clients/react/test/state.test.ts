/** What may overwrite what, and what news and answers mean: each race as the facts that it comes down to. */

import { describe, expect, it } from 'vitest';
import type { Session, SessionData } from '../src/index.js';
import { mayBeOutdated } from '../src/requests.js';
import { isDoubtful, isOutdated, meaningOfNews, merge } from '../src/state.js';

const NOON = Date.parse('2026-03-01T12:00:00Z');
const at = (seconds: number): string => new Date(NOON + seconds * 1000).toISOString();

const session = (change: Partial<Session> = {}): Session => ({
  id: 'a',
  created_at: at(0),
  last_seen_at: at(0),
  expires_at: at(3600),
  absolute_expires_at: at(36_000),
  version: 1,
  tenant_id: null,
  auth: null,
  actor: null,
  data: { plan: 'free' },
  ...change,
});

const answer = (change: Partial<Session> = {}, seconds = 0): SessionData => ({
  session: session(change),
  user: { id: 'ada', name: 'Ada' },
  server_time: at(seconds),
});

describe('an answer is outdated', () => {
  it.each([
    ['when it has an older version, however late the server gave it', { version: 1 }, 100, true],
    ['when it is older, and would take a refresh back', { version: 2, expires_at: at(1800) }, -1, true],
    ['when it is older, and says the same', { version: 2 }, -1, true],
    ['not when a server whose clock is behind has extended the session', { version: 2, expires_at: at(5400) }, -1, false],
    ['not when it is as old as the newest', { version: 2 }, 0, false],
    ['not when it is newer, though the life was cut short', { version: 2, expires_at: at(60) }, 1, false],
    ['not when it has a newer version', { version: 3 }, -100, false],
    ['not when it is about another session', { id: 'b', version: 1 }, -100, false],
  ])('%s', (_, change, seconds, is) => {
    expect(isOutdated(session({ version: 2 }), NOON, answer(change, seconds))).toBe(is);
  });

  it('not when no session is known', () => {
    expect(isOutdated(null, NOON, answer({}, -100))).toBe(false);
  });
});

describe('what has not changed keeps its identity', () => {
  const known = answer();

  it('all of it when only last_seen_at has', () => {
    expect(merge(known, answer({ last_seen_at: at(60) }, 60))).toBe(known);
  });

  it('the session when the user has', () => {
    const next = merge(known, { ...answer({ last_seen_at: at(60) }, 60), user: { id: 'ada', name: 'Countess' } });
    expect(next.session).toBe(known.session);
    expect(next.user.name).toBe('Countess');
    expect(next.server_time).toBe(at(60));
  });

  it('nothing when the session has', () => {
    const next = answer({ version: 2 });
    expect(merge(known, next)).toBe(next);
    expect(merge(null, next)).toBe(next);
  });
});

describe('what another tab says', () => {
  const ended = (id: string) => ({ session: null, id, kind: 'revoked' as const, reason: undefined });

  it.each([
    ['of a session, is taken over', session(), undefined, answer({ version: 2 }, 1), 'alive'],
    ['of a session, is taken over where none is known', null, 'z', answer({}, 1), 'alive'],
    ['of another session, is taken over', session(), 'z', answer({ id: 'b' }, 1), 'alive'],
    ['does not bring back the session that has ended', null, 'a', answer({}, 1), undefined],
    ['does not bring back the session that another has replaced', session({ id: 'b' }), 'a', answer({}, 1), undefined],
    ['from before the newest answer, is dropped', session(), undefined, answer({ version: 2 }, -1), undefined],
    ['of the end of this session, ends it', session(), undefined, ended('a'), 'ended'],
    ['of the end of another session, does not harm this one', session({ id: 'b' }), 'a', ended('a'), undefined],
    ['of an end, casts doubt on what is being answered', null, undefined, ended('a'), 'doubtful'],
  ])('%s', (_, known, endedId, news, meaning) => {
    expect(meaningOfNews(known, endedId, NOON, news)).toBe(meaning);
  });
});

describe('an answer without a session', () => {
  it.each([
    ['is a verdict when it comes in turn', session(), true, false],
    ['may be about an older cookie when it comes out of turn', session(), false, true],
    ['is a verdict where no session is known', null, false, false],
  ])('%s', (_, known, isInTurn, is) => {
    expect(isDoubtful(known, isInTurn)).toBe(is);
  });
});

describe('the refusal of what the application asked for', () => {
  it.each([
    ['PATCH', '', session(), 401, true],
    ['POST', '/tenant', session(), 401, true],
    ['DELETE', '?scope=others', session(), 401, true],
    ['PATCH', '', session(), 412, false],
    ['PATCH', '', session(), 0, false],
    ['PATCH', '', null, 401, false],
    // What is refused is the access token.
    ['POST', '', session(), 401, false],
  ])('%s %s may be about an older cookie', (method, path, known, status, is) => {
    expect(mayBeOutdated(known, method, path, status)).toBe(is);
  });
});
