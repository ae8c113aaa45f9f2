export { SessionUnavailableError, type BackendRequest } from './backend.js';
export type { SessionServerOptions } from './config.js';
export { createServerSession, sessionHandlers, type RouteHandler } from './handlers.js';
export { sessionMiddleware, sessionProxy, type SessionProxyOptions } from './proxy.js';
export { DeviceUnprovedError, fetchBackend, ForeignRequestError, getServerSession } from './server-session.js';
export { safeReturnPath } from '../return-path.js';
