import { expect, it } from 'vitest';
import { safeReturnPath } from '../src/index.js';

it.each(['/', '/invoices', '/invoices?page=2#top', '/a/../b', '/%2F%2Fevil.example', '/?next=https://evil.example'])(
  'keeps %s',
  (path) => {
    expect(safeReturnPath(path)).toBe(new URL(path, 'https://x.test').href.slice('https://x.test'.length));
  },
);

it.each([
  null,
  undefined,
  '',
  'invoices',
  'https://evil.example',
  '//evil.example',
  '///evil.example',
  '/\\evil.example',
  '\\/evil.example',
  '/\t/evil.example',
  '/\n/evil.example',
  '\t//evil.example',
  ' //evil.example',
  '/.//evil.example',
  '/x/..//evil.example',
  '/..//evil.example/%2e%2e',
  'javascript:alert(1)',
  'data:text/html,x',
  'http:evil.example',
  '//[',
])('replaces %j', (path) => {
  expect(safeReturnPath(path, '/home')).toBe('/home');
});
