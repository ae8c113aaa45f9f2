/**
 * - `network`: no answer at all: offline, or timed out
 * - `server`: an answer that does not tell whether the session lives; see `status` and `code`
 * - `expired`: the session has reached the end of its life
 * - `revoked`: the session was ended before that; see `reason`
 */
export type SessionErrorKind = 'network' | 'server' | 'expired' | 'revoked';

/** The code of a 401 that is no verdict: the browser has its device prove itself before the next request. */
export const UNPROVED = 'device_proof_required';

export class SessionError extends Error {
  override name = 'SessionError';

  constructor(
    readonly kind: SessionErrorKind,
    message: string,
    /** HTTP status, 0 without an answer. */
    readonly status = 0,
    /** The backend's code for what went wrong, such as `version_conflict`. */
    readonly code?: string,
    /** Milliseconds that the server asked to wait before another attempt. */
    readonly retryAfter = 0,
    /** Why the session was ended, such as `password_changed`, if the backend tells. */
    readonly reason?: string,
  ) {
    super(message);
  }
}
