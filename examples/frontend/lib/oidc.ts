/**
 * The authorization code flow with PKCE, on the server: no token of the
 * identity provider reaches the browser either.
 */

import { SessionUnavailableError } from '@session-manager/react/next';
import * as oauth from 'oauth4webapi';

function environment(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set.`);
  return value;
}

/** This application's origin.  Not taken from the Host header, which anybody can write. */
export const appUrl = (path: string): URL => new URL(path, environment('APP_URL'));

const redirectUri = () => appUrl('/auth/callback').href;
const client = (): oauth.Client => ({ client_id: environment('OIDC_CLIENT_ID') });

/** An issuer on loopback has no certificate. */
const options = () => ({
  // eslint-disable-next-line @typescript-eslint/no-deprecated -- on purpose, on loopback only
  [oauth.allowInsecureRequests]: ['127.0.0.1', 'localhost'].includes(new URL(environment('OIDC_ISSUER')).hostname),
  signal: AbortSignal.timeout(Number(process.env.OIDC_TIMEOUT ?? 5_000)),
});

async function discover(): Promise<oauth.AuthorizationServer> {
  const issuer = new URL(environment('OIDC_ISSUER'));
  try {
    return await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, options()));
  } catch {
    throw new SessionUnavailableError('The identity provider does not answer.');
  }
}

/** What has to be known again when the browser comes back. */
export interface Flow {
  state: string;
  nonce: string;
  verifier: string;
  returnTo: string;
}

export async function beginFlow(returnTo: string): Promise<{ flow: Flow; url: URL }> {
  const { authorization_endpoint } = await discover();
  if (!authorization_endpoint) throw new Error('The identity provider has no authorization endpoint.');
  const flow = {
    state: oauth.generateRandomState(),
    nonce: oauth.generateRandomNonce(),
    verifier: oauth.generateRandomCodeVerifier(),
    returnTo,
  };
  const url = new URL(authorization_endpoint);
  url.search = new URLSearchParams({
    response_type: 'code',
    client_id: client().client_id,
    redirect_uri: redirectUri(),
    scope: 'openid profile email',
    audience: environment('OIDC_AUDIENCE'),
    state: flow.state,
    nonce: flow.nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(flow.verifier),
    code_challenge_method: 'S256',
  }).toString();
  return { flow, url };
}

/** The access token for the code in the query, and what the ID token says of the user. */
export async function finishFlow(
  query: URLSearchParams,
  flow: Flow,
): Promise<{ accessToken: string; user: Record<string, unknown> }> {
  const server = await discover();
  const parameters = oauth.validateAuthResponse(server, client(), query, flow.state);
  const response = await oauth.authorizationCodeGrantRequest(
    server,
    client(),
    oauth.None(),
    parameters,
    redirectUri(),
    flow.verifier,
    options(),
  );
  const result = await oauth.processAuthorizationCodeResponse(server, client(), response, {
    expectedNonce: flow.nonce,
    requireIdToken: true,
  });
  const claims = oauth.getValidatedIdTokenClaims(result);
  return {
    accessToken: result.access_token,
    user: { name: claims?.name, email: claims?.email, picture: claims?.picture },
  };
}
