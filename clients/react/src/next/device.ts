/**
 * What Django and the browser tell each other of the device that a session is
 * bound to.  It passes through the route handlers; the addresses in it become
 * the handlers' own, as the browser does not know Django's.
 */

import type { SessionServerConfig } from './config.js';

/** From Django: asks the browser to bind the session to its device. */
export const REGISTRATION = 'Secure-Session-Registration';
/** From Django: what the device is to sign next. */
export const CHALLENGE = 'Secure-Session-Challenge';
/** From the browser: what its device has signed, and for which session. */
const ANSWERS = ['Secure-Session-Response', 'Sec-Secure-Session-Id'];

export function answersOf(incoming: Headers): Record<string, string> {
  const answers: Record<string, string> = {};
  for (const name of ANSWERS) {
    const value = incoming.get(name);
    if (value) answers[name] = value;
  }
  return answers;
}

/** The parts of a structured field (RFC 9651) that matter here: a string, the name of a parameter, and all else. */
const PART = /"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"|; *([a-z*][a-z0-9_.*-]*)(?:=(?="))?|[^";]/gy;

/**
 * A structured field with another string as the value of a parameter, wherever
 * it has that parameter; undefined if the field cannot be read.
 */
export function withParameter(field: string, name: string, value: string): string | undefined {
  let result = '';
  let read = 0;
  let parameter: string | undefined;
  for (const [part, key] of field.matchAll(PART)) {
    const isValue = part.startsWith('"') && parameter === name;
    result += isValue ? `"${value.replace(/["\\]/g, '\\$&')}"` : part;
    parameter = part.endsWith('=') ? key : undefined;
    read += part.length;
  }
  return read === field.length ? result : undefined;
}

/** The header by which the browser is asked to bind the session, or undefined. */
export function registrationOf(answer: Headers, { basePath }: SessionServerConfig): string | undefined {
  const field = answer.get(REGISTRATION);
  return field ? withParameter(field, 'path', `${basePath}/device/register`) : undefined;
}

/**
 * What the browser has to know of the binding.  The origin is the one that the
 * browser names, as Django knows its own only.
 */
export function instructionsOf(answer: unknown, incoming: Headers, { basePath }: SessionServerConfig): unknown {
  const { scope, ...rest } = (answer ?? {}) as { scope?: Record<string, unknown> };
  if (!scope) return answer;
  // Without an origin the browser takes the one that it has asked.
  const origin = incoming.get('origin') ?? undefined;
  return { ...rest, refresh_url: `${basePath}/device/refresh`, scope: { ...scope, origin } };
}
